// From body to token ids.
#include "server/openai/prepare.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "server/openai/completion_request.h"
#include "server/openai/field_reader.h"

namespace sextant::openai {
namespace {

constexpr int64_t kDefaultCompletionTokens = 16;  // OpenAI's default of /v1/completions

GenerationSpec make_spec(Endpoint endpoint, SharedFields shared, std::string model, const RequestIdentity& identity) {
  GenerationSpec spec;
  spec.endpoint = endpoint;
  spec.id = (endpoint == Endpoint::kChat ? "chatcmpl-" : "cmpl-") +
            (shared.request_id.empty() ? identity.request_id : shared.request_id);
  spec.model = std::move(model);
  spec.created_unix_s = identity.now_unix_s;
  spec.sampling = std::move(shared.sampling);
  spec.seed = shared.seed;
  spec.asked_max_tokens = shared.max_tokens;
  spec.stop = std::move(shared.stop);
  spec.include_stop_str_in_output = shared.include_stop_str_in_output;
  spec.skip_special_tokens = shared.skip_special_tokens;
  spec.stream = shared.stream;
  spec.include_usage = shared.include_usage;
  spec.continuous_usage_stats = shared.continuous_usage_stats;
  spec.return_token_ids = shared.return_token_ids;
  spec.return_tokens_as_token_ids = shared.return_tokens_as_token_ids;
  spec.echo = shared.echo;
  spec.echo_only = shared.echo && shared.max_tokens == 0;
  spec.show_logprobs = spec.sampling.logprobs.has_value();
  spec.show_prompt_logprobs = shared.show_prompt_logprobs;
  spec.priority = shared.priority;
  spec.cache_salt = std::move(shared.cache_salt);
  return spec;
}

// Drops prompt tokens beyond what the request allows; true if it dropped any.
bool truncate(const SharedFields& shared, const ModelLimits& limits, std::vector<int32_t>* ids) {
  if (!shared.truncate_prompt_tokens) return false;
  int64_t keep = *shared.truncate_prompt_tokens;
  if (keep == -1) {
    const int64_t output = std::clamp<int64_t>(shared.max_tokens.value_or(1), 1, limits.max_model_len);
    keep = std::max<int64_t>(1, limits.max_model_len - output);
  }
  const auto kept = static_cast<size_t>(keep);
  if (ids->size() <= kept) return false;
  if (shared.truncate_left) {
    ids->erase(ids->begin(), ids->end() - static_cast<std::ptrdiff_t>(kept));
  } else {
    ids->resize(kept);
  }
  return true;
}

// Room for the output, or the numbers that do not fit.
Status resolve_max_tokens(const SharedFields& shared, const ModelLimits& limits, std::optional<int64_t> default_tokens,
                          const std::string& param, PromptSpec* prompt) {
  const auto num_prompt_tokens = static_cast<int64_t>(prompt->token_ids.size());
  const int64_t room = limits.max_model_len - num_prompt_tokens;
  if (prompt->token_ids.empty()) {
    return invalid_argument("'" + param + "' gives no tokens; at least one is needed.", param, "invalid_value");
  }
  const int64_t wanted = std::max<int64_t>(1, shared.max_tokens.value_or(1));
  if (wanted <= room) {
    prompt->max_tokens = shared.max_tokens ? wanted : std::min(default_tokens.value_or(room), room);
    return ok_status();
  }
  std::string message = "This model's maximum context length is " + std::to_string(limits.max_model_len) + " tokens. ";
  if (shared.max_tokens && num_prompt_tokens < limits.max_model_len) {
    message += "However, you requested " + std::to_string(wanted) + " output tokens and your prompt has " +
               std::to_string(num_prompt_tokens) + " tokens, which leaves room for " + std::to_string(room) +
               ". Reduce max_tokens or the length of the prompt.";
  } else {
    message += "However, your prompt has " + std::to_string(num_prompt_tokens) +
               " tokens and at least one is needed for the output. Reduce the length of the prompt.";
  }
  return invalid_argument(std::move(message), param, "context_length_exceeded");
}

// Cuts a rendered chat off after the last message's text, so that the model goes on with it.
Result<std::string> cut_after_final_message(std::string rendered, const std::string& content) {
  constexpr const char* kSpace = " \t\r\n\f\v";
  const size_t first = content.find_first_not_of(kSpace);
  CHECK_NE(first, std::string::npos);  // checked when the request was read
  const std::string from_first = content.substr(first);
  const std::string trimmed = from_first.substr(0, from_first.find_last_not_of(kSpace) + 1);
  const size_t at = rendered.rfind(trimmed);
  if (at == std::string::npos) {
    return invalid_argument(
        "'continue_final_message' cannot be honoured: the chat template does not show the last "
        "message's content as it is.",
        "continue_final_message", "invalid_value");
  }
  // Templates that trim content lose its trailing space; those that do not keep it.
  const bool keeps_space = rendered.compare(at, from_first.size(), from_first) == 0;
  rendered.resize(at + (keeps_space ? from_first.size() : trimmed.size()));
  return rendered;
}

}  // namespace

Status model_not_found(std::string_view name, const ServedModel& model) {
  std::string message = "The model " + in_quotes(name) + " does not exist. Served here:";
  for (size_t i = 0; i < model.names.size(); ++i) message += (i == 0 ? " " : ", ") + model.names[i];
  return {StatusCode::kNotFound, message + ".", "model", "model_not_found"};
}

Status require_tokenizer(const ServedModel& model, const std::string& param, std::string_view instead) {
  if (model.tokenizer->knows_text()) return ok_status();
  return invalid_argument(
      "This server has no tokenizer (--skip-tokenizer-init) and knows no text: " + std::string(instead) + ".", param,
      "no_tokenizer");
}

Result<std::string> resolve_model(const Json& body, const ServedModel& model) {
  const Json* name = body.is_object() ? find_field(body, "model") : nullptr;
  if (name == nullptr || !name->is_string()) return model.names.front();
  const std::string& wanted = name->get_ref<const std::string&>();
  if (std::find(model.names.begin(), model.names.end(), wanted) == model.names.end()) {
    return model_not_found(wanted, model);
  }
  return wanted;
}

Result<std::string> render_chat_prompt(const ChatPrompt& prompt, const ServedModel& model, int64_t now_unix_s) {
  RETURN_IF_ERROR(require_tokenizer(model, "messages", "use /v1/completions with 'prompt' as a list of token ids"));
  if (model.chat_template == nullptr) {
    return invalid_argument(
        "This model has no chat template: use /v1/completions, or start the server with "
        "--chat-template.",
        "messages", "no_chat_template");
  }
  Json variables = prompt.kwargs.is_object() ? prompt.kwargs : Json::object();
  variables["messages"] = prompt.messages;
  variables["tools"] = prompt.tools;
  variables["documents"] = prompt.documents;
  variables["add_generation_prompt"] = prompt.add_generation_prompt;
  const auto set_token = [&](const char* name, std::optional<int32_t> id) {
    if (id && !variables.contains(name)) variables[name] = model.tokenizer->token_text(*id);
  };
  set_token("bos_token", model.tokenizer->bos_token_id());
  const std::vector<int32_t>& eos = model.tokenizer->eos_token_ids();
  set_token("eos_token", eos.empty() ? std::nullopt : std::optional<int32_t>(eos.front()));
  Result<std::string> rendered = model.chat_template->render(variables, now_unix_s);
  if (!rendered.ok()) {
    const Status& status = rendered.status();
    return Status(StatusCode::kInvalidArgument, status.message(), "messages", "chat_template_error");
  }
  if (!prompt.continue_final_message) return rendered;
  return cut_after_final_message(std::move(*rendered), prompt.messages.back()["content"].get<std::string>());
}

namespace {

Result<GenerationSpec> completion_spec(const Json& json, const ServedModel& model, const RequestIdentity& identity) {
  ASSIGN_OR_RETURN(std::string name, resolve_model(json, model));
  ASSIGN_OR_RETURN(CompletionRequest request, parse_completion_request(json, model.limits));
  const SharedFields& shared = request.shared;
  GenerationSpec spec = make_spec(Endpoint::kCompletion, shared, std::move(name), identity);
  if (!spec.stop.empty()) RETURN_IF_ERROR(require_tokenizer(model, "stop", "use 'stop_token_ids'"));
  if (!model.tokenizer->knows_text()) spec.return_token_ids = spec.return_tokens_as_token_ids = true;
  const EncodeOptions encode{.add_special_tokens = shared.add_special_tokens.value_or(true)};
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    const std::string param = request.prompts.size() == 1 ? "prompt" : "prompt[" + std::to_string(i) + "]";
    PromptSpec prompt;
    std::string* text = std::get_if<std::string>(&request.prompts[i]);
    if (text != nullptr) RETURN_IF_ERROR(require_tokenizer(model, param, "give the prompt as a list of token ids"));
    prompt.token_ids = text != nullptr ? model.tokenizer->encode(*text, encode)
                                       : std::move(std::get<std::vector<int32_t>>(request.prompts[i]));
    const bool truncated = truncate(shared, model.limits, &prompt.token_ids);
    RETURN_IF_ERROR(resolve_max_tokens(shared, model.limits, kDefaultCompletionTokens, param, &prompt));
    if (shared.echo) {
      prompt.echo_text =
          text != nullptr && !truncated ? std::move(*text) : model.tokenizer->decode(prompt.token_ids, false);
    }
    spec.prompts.push_back(std::move(prompt));
  }
  return spec;
}

Result<GenerationSpec> chat_spec(const Json& json, const ServedModel& model, const RequestIdentity& identity) {
  ASSIGN_OR_RETURN(std::string name, resolve_model(json, model));
  ASSIGN_OR_RETURN(ChatRequest request, parse_chat_request(json, model.limits));
  const SharedFields& shared = request.shared;
  GenerationSpec spec = make_spec(Endpoint::kChat, shared, std::move(name), identity);
  ASSIGN_OR_RETURN(const std::string text, render_chat_prompt(request.prompt, model, identity.now_unix_s));
  PromptSpec prompt;
  prompt.token_ids = model.tokenizer->encode(text, {.add_special_tokens = shared.add_special_tokens.value_or(false)});
  truncate(shared, model.limits, &prompt.token_ids);
  RETURN_IF_ERROR(resolve_max_tokens(shared, model.limits, std::nullopt, "messages", &prompt));
  const Json& last = request.prompt.messages.back();
  if (!request.prompt.add_generation_prompt) spec.response_role = last["role"].get<std::string>();
  if (shared.echo && last["role"] == spec.response_role && last["content"].is_string()) {
    prompt.echo_text = last["content"].get<std::string>();
  }
  spec.prompts.push_back(std::move(prompt));
  return spec;
}

// What is not a field of OpenAI's requests, and what the answer has no place for.
Status check_plain(const Json& json, bool stream, const char* path) {
  const Json* asked = find_field(json, "stream");
  if (asked != nullptr && asked->is_boolean() && asked->get<bool>() != stream) {
    return invalid_argument(std::string("Answers of ") + path + (stream ? " are always" : " are never") +
                                " streamed; " + (stream ? "use /generate" : "use /v1/stream") + " instead.",
                            "stream", "invalid_value");
  }
  for (const char* name :
       {"logprobs", "top_logprobs", "prompt_logprobs", "echo", "return_token_ids", "stream_options"}) {
    const Json* value = find_field(json, name);
    if (value == nullptr || *value == Json(false)) continue;
    return invalid_argument(std::string("'") + name + "' has no place in an answer of " + path +
                                "; use /v1/completions or /v1/chat/completions.",
                            name, "unsupported_parameter");
  }
  return ok_status();
}

Result<GenerationSpec> prepare_plain(std::string_view body, const ServedModel& model, const RequestIdentity& identity,
                                     Endpoint endpoint) {
  const bool stream = endpoint == Endpoint::kLines;
  const char* path = stream ? "/v1/stream" : "/generate";
  ASSIGN_OR_RETURN(Json json, parse_json(body));
  RETURN_IF_ERROR(require_tokenizer(model, "prompt", "use /v1/completions with 'prompt' as a list of token ids"));
  if (json.is_object()) {
    RETURN_IF_ERROR(check_plain(json, stream, path));
    if (const auto key = json.find("api_key"); stream && key != json.end()) {
      if (!key->is_string()) return type_error("api_key", "a string", *key);
      json.erase(key);
    }
  }
  const bool is_chat = json.is_object() && find_field(json, "messages") != nullptr;
  ASSIGN_OR_RETURN(GenerationSpec spec,
                   is_chat ? chat_spec(json, model, identity) : completion_spec(json, model, identity));
  if (spec.num_choices() != 1) {
    return invalid_argument(std::string("An answer of ") + path + " is one text: one prompt, and 'n' of 1.",
                            spec.prompts.size() > 1 ? "prompt" : "n", "invalid_value");
  }
  spec.endpoint = endpoint;
  spec.stream = stream;
  return spec;
}

}  // namespace

Result<GenerationSpec> prepare_completion(std::string_view body, const ServedModel& model,
                                          const RequestIdentity& identity) {
  ASSIGN_OR_RETURN(const Json json, parse_json(body));
  return completion_spec(json, model, identity);
}

Result<GenerationSpec> prepare_chat(std::string_view body, const ServedModel& model, const RequestIdentity& identity) {
  ASSIGN_OR_RETURN(const Json json, parse_json(body));
  return chat_spec(json, model, identity);
}

Result<GenerationSpec> prepare_lines(std::string_view body, const ServedModel& model, const RequestIdentity& identity) {
  return prepare_plain(body, model, identity, Endpoint::kLines);
}

Result<GenerationSpec> prepare_generate(std::string_view body, const ServedModel& model,
                                        const RequestIdentity& identity) {
  return prepare_plain(body, model, identity, Endpoint::kGenerate);
}

}  // namespace sextant::openai
