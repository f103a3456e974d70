// The fields that /v1/completions and /v1/chat/completions share, read and checked once.
// Any thread. Must not know prompts or templates.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/core/sampling_params.h"
#include "server/openai/json_reader.h"

namespace sextant::openai {

// What requests are checked against.
struct ModelLimits {
  int32_t vocab_size = 0;
  int64_t max_model_len = 0;
};

inline constexpr int kMaxStopStrings = 64;
inline constexpr size_t kMaxStopBytes = 4096;  // of all together: each choice searches with tables of this size
inline constexpr size_t kMaxIdBytes = 256;     // of request_id

struct SharedFields {
  std::optional<std::string> model;
  SamplingParams sampling;  // seed and max_tokens still to be resolved; logprobs is the endpoint's business
  std::optional<uint64_t> seed;
  std::optional<int64_t> max_tokens;
  std::vector<std::string> stop;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;
  std::optional<bool> add_special_tokens;  // the default is the endpoint's
  bool echo = false;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage_stats = false;
  bool return_token_ids = false;
  bool return_tokens_as_token_ids = false;
  bool show_prompt_logprobs = false;
  std::optional<int64_t> truncate_prompt_tokens;  // -1: what fits
  bool truncate_left = true;                      // keep the last tokens
  int32_t priority = 0;
  std::string cache_salt;
  std::string request_id;
};

// `min_max_tokens`: the least that max_tokens may be. Field names were checked against the endpoint's table
// before.
Status parse_shared_fields(const Json& body, const ModelLimits& limits, int64_t min_max_tokens, SharedFields* fields);

// best_of must equal n (or be absent): candidates are not ranked.
Status check_best_of(const Json& body, int32_t n);

// SamplingParams::validate on what is known before the prompt is: ranges that the engine would refuse later.
Status check_sampling(const SharedFields& fields, const ModelLimits& limits);

}  // namespace sextant::openai
