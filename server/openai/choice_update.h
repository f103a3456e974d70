// ChoiceUpdate: what one engine event made of one choice, as text; and, merged, a whole choice. Plain data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/engine.h"

namespace sextant::openai {

// vLLM's `stop_reason`: the stop string, or the stop token id that was not the model's own end.
using StopReason = std::variant<std::monostate, int32_t, std::string>;

struct ChoiceUpdate {
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<PositionLogprobs> logprobs;  // one per token id, when asked for
  std::optional<FinishReason> finish_reason;
  StopReason stop_reason;
};

// Of the whole request, or so far.
struct Usage {
  int64_t num_prompt_tokens = 0;
  int64_t num_completion_tokens = 0;
  int64_t num_cached_tokens = 0;
};

}  // namespace sextant::openai
