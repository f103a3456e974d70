// ChatRequest: a /v1/chat/completions body, typed; and the part of it that makes the prompt, which /tokenize
// shares. Any thread.
#pragma once

#include <optional>
#include <string>

#include "engine/base/result.h"
#include "server/openai/json_reader.h"
#include "server/openai/sampling_fields.h"

namespace sextant::openai {

// What the template turns into a prompt.
struct ChatPrompt {
  Json messages;   // see read_messages
  Json tools;      // null or an array
  Json documents;  // null or an array
  Json kwargs;     // an object: further variables of the template
  bool add_generation_prompt = true;
  bool continue_final_message = false;
};

struct ChatRequest {
  SharedFields shared;
  ChatPrompt prompt;
};

Result<ChatRequest> parse_chat_request(const Json& body, const ModelLimits& limits);
Result<ChatPrompt> parse_chat_prompt(const Json& body);

}  // namespace sextant::openai
