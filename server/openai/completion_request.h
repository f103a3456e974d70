// CompletionRequest: a /v1/completions body, typed. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "engine/base/result.h"
#include "server/openai/json_reader.h"
#include "server/openai/sampling_fields.h"

namespace sextant::openai {

inline constexpr size_t kMaxPrompts = 1024;  // of one request
inline constexpr size_t kMaxChoices = 1024;  // prompts times n

struct CompletionRequest {
  using Prompt = std::variant<std::string, std::vector<int32_t>>;
  SharedFields shared;
  std::vector<Prompt> prompts;  // at least one
};

Result<CompletionRequest> parse_completion_request(const Json& body, const ModelLimits& limits);

}  // namespace sextant::openai
