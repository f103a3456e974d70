// Shared fields: types and what only the API knows here; ranges of sampling parameters are SamplingParams'
// own.
#include "server/openai/sampling_fields.h"

#include <charconv>
#include <limits>
#include <string_view>
#include <utility>

#include "server/openai/field_reader.h"
#include "server/openai/field_table.h"

namespace sextant::openai {
namespace {

constexpr int32_t kInt32Min = std::numeric_limits<int32_t>::min();
constexpr int32_t kInt32Max = std::numeric_limits<int32_t>::max();
constexpr int64_t kInt64Min = std::numeric_limits<int64_t>::min();
constexpr int64_t kInt64Max = std::numeric_limits<int64_t>::max();
constexpr float kMaxLogitBias = 100.0f;
constexpr size_t kMaxCacheSaltBytes = 1024;

Status read_int32(const Json& body, std::string_view name, int32_t min, int32_t max, int32_t* out) {
  std::optional<int64_t> value;
  RETURN_IF_ERROR(read_integer(body, name, min, max, &value));
  if (value) *out = static_cast<int32_t>(*value);
  return ok_status();
}

Status read_stop(const Json& body, std::vector<std::string>* stop) {
  const Json* value = find_field(body, "stop");
  if (value == nullptr) return ok_status();
  const Json one = value->is_string() ? Json::array({*value}) : Json();
  const Json& list = value->is_string() ? one : *value;
  if (!list.is_array()) return type_error("stop", "a string or an array of strings", *value);
  if (list.size() > kMaxStopStrings) {
    return range_error("stop", "at most " + std::to_string(kMaxStopStrings) + " strings",
                       std::to_string(list.size()) + " strings");
  }
  size_t num_bytes = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string param = value->is_string() ? "stop" : "stop[" + std::to_string(i) + "]";
    if (!list[i].is_string()) return type_error(param, "a string", list[i]);
    const std::string& text = list[i].get_ref<const std::string&>();
    if (text.empty()) return range_error(param, "at least one character long", "empty");
    num_bytes += text.size();
    if (num_bytes > kMaxStopBytes) {
      return range_error("stop", "at most " + std::to_string(kMaxStopBytes) + " bytes long in all", "longer");
    }
    stop->push_back(text);
  }
  return ok_status();
}

// {"<token id>": bias}, ids as strings because JSON keys are.
Status read_logit_bias(const Json& body, int32_t vocab_size, std::vector<std::pair<int32_t, float>>* out) {
  const Json* value = find_field(body, "logit_bias");
  if (value == nullptr) return ok_status();
  if (!value->is_object()) return type_error("logit_bias", "an object of token ids and numbers", *value);
  for (const auto& [key, bias] : value->items()) {
    int32_t id = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || id < 0 || id >= vocab_size) {
      return range_error("logit_bias",
                         "an object whose keys are token ids in [0, " + std::to_string(vocab_size - 1) + "]",
                         in_quotes(key));
    }
    if (!bias.is_number()) return type_error("logit_bias." + key, "a number", bias);
    const float amount = to_float(bias.get<double>());
    if (!(amount >= -kMaxLogitBias && amount <= kMaxLogitBias)) {
      return range_error("logit_bias." + key, "in [-100, 100]", bias.dump());
    }
    out->emplace_back(id, amount);
  }
  return ok_status();
}

Status read_stream_options(const Json& body, SharedFields* fields) {
  const Json* options = find_field(body, "stream_options");
  if (options == nullptr) return ok_status();
  if (!options->is_object()) return type_error("stream_options", "an object", *options);
  RETURN_IF_ERROR(stream_options_fields().check(*options, "stream_options"));
  if (!fields->stream && !options->empty()) {
    return invalid_argument("'stream_options' is only allowed when 'stream' is true.", "stream_options",
                            "invalid_value");
  }
  for (const auto& [name, out] : {std::pair<std::string_view, bool*>{"include_usage", &fields->include_usage},
                                  {"continuous_usage_stats", &fields->continuous_usage_stats}}) {
    const Json* value = find_field(*options, name);
    if (value == nullptr) continue;
    if (!value->is_boolean()) return type_error("stream_options." + std::string(name), "a boolean", *value);
    *out = value->get<bool>();
  }
  // As in vLLM: the running numbers are part of reporting usage at all.
  fields->continuous_usage_stats = fields->continuous_usage_stats && fields->include_usage;
  return ok_status();
}

Status read_truncation(const Json& body, const ModelLimits& limits, SharedFields* fields) {
  RETURN_IF_ERROR(
      read_integer(body, "truncate_prompt_tokens", -1, limits.max_model_len, &fields->truncate_prompt_tokens));
  if (fields->truncate_prompt_tokens == 0) {
    return range_error("truncate_prompt_tokens",
                       "-1 (what fits) or in [1, " + std::to_string(limits.max_model_len) + "]", "0");
  }
  std::optional<std::string> side;
  RETURN_IF_ERROR(read_string(body, "truncation_side", 16, &side));
  if (side && *side != "left" && *side != "right") {
    return range_error("truncation_side", "\"left\" or \"right\"", in_quotes(*side));
  }
  fields->truncate_left = side != "right";
  return ok_status();
}

Status read_request_id(const Json& body, std::string* out) {
  std::optional<std::string> id;
  RETURN_IF_ERROR(read_string(body, "request_id", kMaxIdBytes, &id));
  if (!id) return ok_status();
  for (const char c : *id) {
    if (c <= ' ' || c > '~' || c == '"' || c == '\\') {
      return invalid_argument("'request_id' must consist of printable ASCII without spaces, quotes and backslashes.",
                              "request_id", "invalid_value");
    }
  }
  *out = *id;
  return ok_status();
}

}  // namespace

Status parse_shared_fields(const Json& body, const ModelLimits& limits, int64_t min_max_tokens, SharedFields* fields) {
  SamplingParams& sampling = fields->sampling;
  RETURN_IF_ERROR(read_string(body, "model", 1024, &fields->model));
  RETURN_IF_ERROR(read_boolean(body, "stream", &fields->stream));
  RETURN_IF_ERROR(read_stream_options(body, fields));

  RETURN_IF_ERROR(read_int32(body, "n", 1, SamplingParams::kMaxN, &sampling.n));
  RETURN_IF_ERROR(read_float(body, "temperature", &sampling.temperature));
  RETURN_IF_ERROR(read_float(body, "top_p", &sampling.top_p));
  RETURN_IF_ERROR(read_int32(body, "top_k", -1, kInt32Max, &sampling.top_k));
  if (sampling.top_k == -1) sampling.top_k = 0;
  RETURN_IF_ERROR(read_float(body, "min_p", &sampling.min_p));
  RETURN_IF_ERROR(read_float(body, "presence_penalty", &sampling.presence_penalty));
  RETURN_IF_ERROR(read_float(body, "frequency_penalty", &sampling.frequency_penalty));
  RETURN_IF_ERROR(read_float(body, "repetition_penalty", &sampling.repetition_penalty));
  RETURN_IF_ERROR(read_logit_bias(body, limits.vocab_size, &sampling.logit_bias));
  if (const Json* ids = find_field(body, "allowed_token_ids")) {
    RETURN_IF_ERROR(read_token_ids(*ids, "allowed_token_ids", limits.vocab_size, &sampling.allowed_token_ids));
    if (sampling.allowed_token_ids.empty()) {
      return range_error("allowed_token_ids", "an array of at least one token id", "empty");
    }
  }
  std::optional<int64_t> seed;
  RETURN_IF_ERROR(read_integer(body, "seed", kInt64Min, kInt64Max, &seed));
  if (seed) fields->seed = static_cast<uint64_t>(*seed);

  RETURN_IF_ERROR(read_integer(body, "max_tokens", min_max_tokens, kInt64Max, &fields->max_tokens));
  std::optional<int64_t> min_tokens;
  RETURN_IF_ERROR(read_integer(body, "min_tokens", 0, limits.max_model_len, &min_tokens));
  sampling.min_tokens = min_tokens.value_or(0);
  RETURN_IF_ERROR(read_boolean(body, "ignore_eos", &sampling.ignore_eos));
  if (const Json* ids = find_field(body, "stop_token_ids")) {
    RETURN_IF_ERROR(read_token_ids(*ids, "stop_token_ids", limits.vocab_size, &sampling.stop_token_ids));
  }
  RETURN_IF_ERROR(read_stop(body, &fields->stop));
  RETURN_IF_ERROR(read_boolean(body, "include_stop_str_in_output", &fields->include_stop_str_in_output));
  RETURN_IF_ERROR(read_boolean(body, "skip_special_tokens", &fields->skip_special_tokens));

  std::optional<int64_t> prompt_logprobs;
  RETURN_IF_ERROR(read_integer(body, "prompt_logprobs", 0, SamplingParams::kMaxLogprobs, &prompt_logprobs));
  if (prompt_logprobs) {
    if (fields->stream) {
      return invalid_argument("'prompt_logprobs' is not available when 'stream' is true.", "prompt_logprobs",
                              "invalid_value");
    }
    sampling.prompt_logprobs = static_cast<int32_t>(*prompt_logprobs);
    fields->show_prompt_logprobs = true;
  }

  if (const Json* add = find_field(body, "add_special_tokens")) {
    if (!add->is_boolean()) return type_error("add_special_tokens", "a boolean", *add);
    fields->add_special_tokens = add->get<bool>();
  }
  RETURN_IF_ERROR(read_boolean(body, "echo", &fields->echo));
  RETURN_IF_ERROR(read_boolean(body, "return_token_ids", &fields->return_token_ids));
  RETURN_IF_ERROR(read_boolean(body, "return_tokens_as_token_ids", &fields->return_tokens_as_token_ids));
  RETURN_IF_ERROR(read_truncation(body, limits, fields));
  RETURN_IF_ERROR(read_int32(body, "priority", kInt32Min, kInt32Max, &fields->priority));
  std::optional<std::string> salt;
  RETURN_IF_ERROR(read_string(body, "cache_salt", kMaxCacheSaltBytes, &salt));
  if (salt && salt->empty()) return range_error("cache_salt", "1 to 1024 bytes long", "empty");
  fields->cache_salt = salt.value_or("");
  return read_request_id(body, &fields->request_id);
}

Status check_best_of(const Json& body, int32_t n) {
  std::optional<int64_t> best_of;
  RETURN_IF_ERROR(read_integer(body, "best_of", 1, SamplingParams::kMaxN, &best_of));
  if (best_of && *best_of != n) {
    return invalid_argument(
        "'best_of' is not supported unless it equals 'n' (" + std::to_string(n) + "): candidates are not ranked.",
        "best_of", "unsupported_parameter");
  }
  return ok_status();
}

Status check_sampling(const SharedFields& fields, const ModelLimits& limits) {
  SamplingParams known = fields.sampling;
  known.max_tokens = std::max<int64_t>(1, fields.max_tokens.value_or(limits.max_model_len));
  return known.validate(limits.vocab_size);
}

}  // namespace sextant::openai
