// Text to ids and back.
#include "server/openai/tokenize.h"

#include <optional>
#include <utility>
#include <vector>

#include "server/openai/field_reader.h"
#include "server/openai/field_table.h"

namespace sextant::openai {
namespace {

Status require_object(const Json& body) {
  if (body.is_object()) return ok_status();
  return invalid_argument("The body must be a JSON object, not " + std::string(json_type_name(body)) + ".", {},
                          "invalid_type");
}

Result<std::string> prompt_text(const Json& json, bool is_chat, const ServedModel& model, int64_t now_unix_s) {
  if (is_chat) {
    ASSIGN_OR_RETURN(const ChatPrompt prompt, parse_chat_prompt(json));
    return render_chat_prompt(prompt, model, now_unix_s);
  }
  const Json* prompt = find_field(json, "prompt");
  if (prompt == nullptr) {
    return invalid_argument("'prompt' or 'messages' is required.", "prompt", "missing_required_parameter");
  }
  if (!prompt->is_string()) return type_error("prompt", "a string", *prompt);
  return prompt->get<std::string>();
}

}  // namespace

Result<std::string> tokenize(std::string_view body, const ServedModel& model, int64_t now_unix_s) {
  ASSIGN_OR_RETURN(const Json json, parse_json(body));
  RETURN_IF_ERROR(require_object(json));
  RETURN_IF_ERROR(resolve_model(json, model).status());
  RETURN_IF_ERROR(require_tokenizer(model, "prompt", "tokenize before you call it"));
  const bool is_chat = find_field(json, "messages") != nullptr;
  RETURN_IF_ERROR((is_chat ? tokenize_chat_fields() : tokenize_completion_fields()).check(json));
  std::optional<std::string> name;
  RETURN_IF_ERROR(read_string(json, "model", 1024, &name));
  bool add_special_tokens = !is_chat;
  RETURN_IF_ERROR(read_boolean(json, "add_special_tokens", &add_special_tokens));
  bool return_token_strs = false;
  RETURN_IF_ERROR(read_boolean(json, "return_token_strs", &return_token_strs));
  ASSIGN_OR_RETURN(const std::string text, prompt_text(json, is_chat, model, now_unix_s));

  const std::vector<int32_t> ids = model.tokenizer->encode(text, {.add_special_tokens = add_special_tokens});
  Json answer = {
      {"count", ids.size()}, {"max_model_len", model.limits.max_model_len}, {"tokens", ids}, {"token_strs", nullptr}};
  if (return_token_strs) {
    Json strs = Json::array();
    for (const int32_t id : ids) strs.push_back(model.tokenizer->token_text(id));
    answer["token_strs"] = std::move(strs);
  }
  return dump_json(answer);
}

Result<std::string> detokenize(std::string_view body, const ServedModel& model) {
  ASSIGN_OR_RETURN(const Json json, parse_json(body));
  RETURN_IF_ERROR(require_object(json));
  RETURN_IF_ERROR(resolve_model(json, model).status());
  RETURN_IF_ERROR(require_tokenizer(model, "tokens", "detokenize what it answers"));
  RETURN_IF_ERROR(detokenize_fields().check(json));
  std::optional<std::string> name;
  RETURN_IF_ERROR(read_string(json, "model", 1024, &name));
  const Json* tokens = find_field(json, "tokens");
  if (tokens == nullptr) return invalid_argument("'tokens' is required.", "tokens", "missing_required_parameter");
  std::vector<int32_t> ids;
  RETURN_IF_ERROR(read_token_ids(*tokens, "tokens", model.limits.vocab_size, &ids));
  return dump_json({{"prompt", model.tokenizer->decode(ids, false)}});
}

}  // namespace sextant::openai
