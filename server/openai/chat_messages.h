// Chat messages as templates want them: checked, content flattened to text, tool arguments as objects.
// Any thread. Must not know sampling.
#pragma once

#include "engine/base/result.h"
#include "server/openai/json_reader.h"

namespace sextant::openai {

inline constexpr size_t kMaxMessages = 16'384;

// The request's `messages`: a non-empty array of objects with a role. Roles are free: the template decides.
// Content is a string, a list of text parts (joined by line breaks), or null where tool_calls speak. Errors
// name the element.
Result<Json> read_messages(const Json& body);

// `tools` (an array of objects), null when absent.
Result<Json> read_tools(const Json& body);

}  // namespace sextant::openai
