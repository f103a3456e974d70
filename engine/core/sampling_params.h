// SamplingParams: how the tokens of one request are chosen. Immutable once validated; shared by all its sequences.
// Names and meanings are vLLM's SamplingParams. Stop *strings* are not here: they are found on the text side.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "engine/base/status.h"

namespace sextant {

struct SamplingParams {
  int32_t n = 1;                                      // choices
  float temperature = 1.0f;                           // 0: the most likely token
  float top_p = 1.0f;                                 // (0, 1]
  int32_t top_k = 0;                                  // 0 (or -1 from a client): all
  float min_p = 0.0f;                                 // [0, 1]; relative to the most likely token's probability
  float presence_penalty = 0.0f;                      // [-2, 2]; output tokens, once each
  float frequency_penalty = 0.0f;                     // [-2, 2]; output tokens, per occurrence
  float repetition_penalty = 1.0f;                    // > 0; prompt and output tokens (Keskar et al. 2019, CTRL)
  std::vector<std::pair<int32_t, float>> logit_bias;  // token id, added to the logit; at most kMaxLogitBias entries
  std::vector<int32_t> allowed_token_ids;             // empty: all
  uint64_t seed = 0;        // resolved before it gets here; a request without one was given a random seed
  int64_t max_tokens = 16;  // >= 1
  int64_t min_tokens = 0;   // stop tokens are not chosen before this many
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids;     // beside the model's eos tokens
  std::optional<int32_t> logprobs;         // that many most likely tokens beside the chosen one; 0: the chosen one only
  std::optional<int32_t> prompt_logprobs;  // the same for each prompt token but the first

  static constexpr int32_t kMaxN = 128;
  static constexpr int32_t kMaxLogprobs = 20;
  static constexpr size_t kMaxLogitBias = 1024;

  // Below this, dividing by the temperature would leave the range of fp32; vLLM draws the line there too.
  bool greedy() const { return temperature < 1e-5f; }
  bool needs_penalties() const {
    return presence_penalty != 0.0f || frequency_penalty != 0.0f || repetition_penalty != 1.0f;
  }
  // The first field out of range (NaN and infinities are), with the range; `param` is the field.
  Status validate(int32_t vocab_size) const;
};

}  // namespace sextant
