// /tokenize and /detokenize, with vLLM's fields both ways. Runs on the text pool; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/result.h"
#include "server/openai/prepare.h"

namespace sextant::openai {

// The body of the answer. A request with `messages` is rendered by the chat template, one with `prompt` is
// not.
Result<std::string> tokenize(std::string_view body, const ServedModel& model, int64_t now_unix_s);
Result<std::string> detokenize(std::string_view body, const ServedModel& model);

}  // namespace sextant::openai
