// prepare: a request body to a GenerationSpec: JSON, fields, model, chat template, tokens, context length.
// Heavy; runs on the text pool. Immutable inputs, any thread. Must not know the engine or HTTP.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "server/openai/chat_request.h"
#include "server/openai/generation_spec.h"
#include "server/openai/json_reader.h"
#include "server/openai/sampling_fields.h"

namespace sextant::openai {

// What is served. The pointees outlive every request.
struct ServedModel {
  const Tokenizer* tokenizer = nullptr;
  const ChatTemplate* chat_template = nullptr;  // null: chat is refused
  ModelLimits limits;
  std::vector<std::string> names;  // the first is what a request without `model` gets
};

struct RequestIdentity {
  std::string request_id;  // when the body gives none
  int64_t now_unix_s = 0;
};

Result<GenerationSpec> prepare_completion(std::string_view body, const ServedModel& model,
                                          const RequestIdentity& identity);
Result<GenerationSpec> prepare_chat(std::string_view body, const ServedModel& model, const RequestIdentity& identity);
// /v1/stream: `prompt` or `messages`, one choice, nothing that its frames have no place for. "api_key" is a WebSocket's.
Result<GenerationSpec> prepare_lines(std::string_view body, const ServedModel& model, const RequestIdentity& identity);
Result<GenerationSpec> prepare_generate(std::string_view body, const ServedModel& model,
                                        const RequestIdentity& identity);

// ok, or 400 "no_tokenizer": `param` would need text, which a server without a tokenizer does not know. `instead`: what it takes.
Status require_tokenizer(const ServedModel& model, const std::string& param, std::string_view instead);

// kNotFound "model_not_found" when `body` names a model that is not served; the name to answer with
// otherwise. A `model` that is not a string is left to the field checks.
Result<std::string> resolve_model(const Json& body, const ServedModel& model);
Status model_not_found(std::string_view name, const ServedModel& model);

// The prompt as text. A template's own complaint (raise_exception) comes back as its message, naming
// `messages`.
Result<std::string> render_chat_prompt(const ChatPrompt& prompt, const ServedModel& model, int64_t now_unix_s);

}  // namespace sextant::openai
