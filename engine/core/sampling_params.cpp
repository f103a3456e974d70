#include "engine/core/sampling_params.h"

#include <cmath>
#include <sstream>
#include <string>

#include "engine/base/result.h"

namespace sextant {
namespace {

template <typename T>
std::string text(T value) {
  std::ostringstream stream;
  stream << value;
  return stream.str();
}

template <typename T>
Status out_of_range(const char* param, const std::string& range, T value) {
  return invalid_argument(std::string(param) + " must be " + range + ", not " + text(value), param);
}

// False for NaN.
bool inside(float value, float low, float high) { return value >= low && value <= high; }

Status check_token_ids(const std::vector<int32_t>& token_ids, int32_t vocab_size, const char* param) {
  for (const int32_t token_id : token_ids) {
    if (token_id < 0 || token_id >= vocab_size) {
      return invalid_argument(
          std::string(param) + " must hold token ids from 0 to " + text(vocab_size - 1) + ", not " + text(token_id),
          param);
    }
  }
  return ok_status();
}

}  // namespace

Status SamplingParams::validate(int32_t vocab_size) const {
  if (n < 1 || n > kMaxN) return out_of_range("n", "from 1 to " + text(kMaxN), n);
  if (!std::isfinite(temperature) || temperature < 0)
    return out_of_range("temperature", "a number from 0", temperature);
  if (!(top_p > 0 && top_p <= 1)) return out_of_range("top_p", "above 0 and at most 1", top_p);
  if (top_k < -1) return out_of_range("top_k", "0 or -1 for all tokens, or a positive number", top_k);
  if (!inside(min_p, 0, 1)) return out_of_range("min_p", "from 0 to 1", min_p);
  if (!inside(presence_penalty, -2, 2)) return out_of_range("presence_penalty", "from -2 to 2", presence_penalty);
  if (!inside(frequency_penalty, -2, 2)) return out_of_range("frequency_penalty", "from -2 to 2", frequency_penalty);
  if (!std::isfinite(repetition_penalty) || repetition_penalty <= 0) {
    return out_of_range("repetition_penalty", "a number above 0", repetition_penalty);
  }
  if (logit_bias.size() > kMaxLogitBias) {
    return out_of_range("logit_bias", "at most " + text(kMaxLogitBias) + " entries", logit_bias.size());
  }
  for (const auto& [token_id, bias] : logit_bias) {
    if (token_id < 0 || token_id >= vocab_size) {
      return out_of_range("logit_bias", "keyed by token ids from 0 to " + text(vocab_size - 1), token_id);
    }
    if (!std::isfinite(bias)) return out_of_range("logit_bias", "made of finite numbers", bias);
  }
  RETURN_IF_ERROR(check_token_ids(allowed_token_ids, vocab_size, "allowed_token_ids"));
  if (max_tokens < 1) return out_of_range("max_tokens", "at least 1", max_tokens);
  if (min_tokens < 0 || min_tokens > max_tokens) {
    return out_of_range("min_tokens", "from 0 to max_tokens (" + text(max_tokens) + ")", min_tokens);
  }
  RETURN_IF_ERROR(check_token_ids(stop_token_ids, vocab_size, "stop_token_ids"));
  if (logprobs && (*logprobs < 0 || *logprobs > kMaxLogprobs)) {
    return out_of_range("logprobs", "from 0 to " + text(kMaxLogprobs), *logprobs);
  }
  if (prompt_logprobs && (*prompt_logprobs < 0 || *prompt_logprobs > kMaxLogprobs)) {
    return out_of_range("prompt_logprobs", "from 0 to " + text(kMaxLogprobs), *prompt_logprobs);
  }
  return ok_status();
}

}  // namespace sextant
