// Reads a /v1/chat/completions body.
#include "server/openai/chat_request.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <utility>

#include "server/openai/chat_messages.h"
#include "server/openai/field_reader.h"
#include "server/openai/field_table.h"

namespace sextant::openai {
namespace {

// Variables of the template that have their own request fields.
constexpr std::array<std::string_view, 5> kReservedVariables = {"messages", "tools", "documents",
                                                                "add_generation_prompt", "continue_final_message"};

Status read_kwargs(const Json& body, Json* kwargs) {
  *kwargs = Json::object();
  const Json* value = find_field(body, "chat_template_kwargs");
  if (value == nullptr) return ok_status();
  if (!value->is_object()) return type_error("chat_template_kwargs", "an object", *value);
  for (const std::string_view name : kReservedVariables) {
    if (value->contains(name)) {
      const std::string param = "chat_template_kwargs." + std::string(name);
      return invalid_argument("'" + param + "' is given by the request's field '" + std::string(name) + "'.", param,
                              "invalid_value");
    }
  }
  *kwargs = *value;
  return ok_status();
}

// The last message must have text to go on from.
Status check_continuation(const ChatPrompt& prompt) {
  const Json& content = prompt.messages.back()["content"];
  if (!content.is_string() || content.get_ref<const std::string&>().find_first_not_of(" \t\r\n") == std::string::npos) {
    return invalid_argument("'continue_final_message' needs a last message with text in its content.",
                            "continue_final_message", "invalid_value");
  }
  return ok_status();
}

// Documents are what templates of retrieval models show.
Status read_documents(const Json& body, Json* documents) {
  const Json* value = find_field(body, "documents");
  *documents = nullptr;
  if (value == nullptr) return ok_status();
  if (!value->is_array()) return type_error("documents", "an array of objects", *value);
  for (size_t i = 0; i < value->size(); ++i) {
    if (!(*value)[i].is_object()) return type_error("documents[" + std::to_string(i) + "]", "an object", (*value)[i]);
  }
  *documents = *value;
  return ok_status();
}

Status check_tool_choice(const Json& body, const ChatPrompt& prompt) {
  const Json* choice = find_field(body, "tool_choice");
  const bool is_none = choice != nullptr && *choice == "none";
  if (choice != nullptr && !is_none) {
    if (!choice->is_string() && !choice->is_object()) {
      return type_error("tool_choice", "a string or an object", *choice);
    }
    return invalid_argument("'tool_choice' other than \"none\" is not supported: tool calls are not parsed yet.",
                            "tool_choice", "unsupported_parameter");
  }
  if (!prompt.tools.is_null() && !is_none) {
    return invalid_argument("'tools' is not supported unless 'tool_choice' is \"none\": tool calls are not parsed yet.",
                            "tools", "unsupported_parameter");
  }
  return ok_status();
}

Status read_reasoning_effort(const Json& body, Json* kwargs) {
  std::optional<std::string> effort;
  RETURN_IF_ERROR(read_string(body, "reasoning_effort", 16, &effort));
  if (!effort) return ok_status();
  constexpr std::array<std::string_view, 7> kKnown = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
  if (std::find(kKnown.begin(), kKnown.end(), *effort) == kKnown.end()) {
    return range_error("reasoning_effort", "one of none, minimal, low, medium, high, xhigh, max", in_quotes(*effort));
  }
  (*kwargs)["reasoning_effort"] = *effort;
  if (!kwargs->contains("enable_thinking")) (*kwargs)["enable_thinking"] = *effort != "none";
  return ok_status();
}

Status read_logprobs(const Json& body, SamplingParams* sampling) {
  bool logprobs = false;
  RETURN_IF_ERROR(read_boolean(body, "logprobs", &logprobs));
  std::optional<int64_t> top;
  RETURN_IF_ERROR(read_integer(body, "top_logprobs", 0, SamplingParams::kMaxLogprobs, &top));
  if (top.value_or(0) > 0 && !logprobs) {
    return invalid_argument("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs", "invalid_value");
  }
  if (logprobs) sampling->logprobs = static_cast<int32_t>(top.value_or(0));
  return ok_status();
}

}  // namespace

Result<ChatPrompt> parse_chat_prompt(const Json& body) {
  ChatPrompt prompt;
  ASSIGN_OR_RETURN(prompt.messages, read_messages(body));
  ASSIGN_OR_RETURN(prompt.tools, read_tools(body));
  RETURN_IF_ERROR(read_kwargs(body, &prompt.kwargs));
  RETURN_IF_ERROR(read_boolean(body, "continue_final_message", &prompt.continue_final_message));
  prompt.add_generation_prompt = !prompt.continue_final_message;
  RETURN_IF_ERROR(read_boolean(body, "add_generation_prompt", &prompt.add_generation_prompt));
  if (prompt.continue_final_message) {
    if (prompt.add_generation_prompt) {
      return invalid_argument("'continue_final_message' and 'add_generation_prompt' cannot both be true.",
                              "continue_final_message", "invalid_value");
    }
    RETURN_IF_ERROR(check_continuation(prompt));
  }
  return prompt;
}

Result<ChatRequest> parse_chat_request(const Json& body, const ModelLimits& limits) {
  if (!body.is_object()) {
    return invalid_argument("The body must be a JSON object, not " + std::string(json_type_name(body)) + ".", {},
                            "invalid_type");
  }
  RETURN_IF_ERROR(chat_fields().check(body));
  ChatRequest request;
  SharedFields& shared = request.shared;
  RETURN_IF_ERROR(parse_shared_fields(body, limits, 1, &shared));
  std::optional<int64_t> max_completion_tokens;
  RETURN_IF_ERROR(
      read_integer(body, "max_completion_tokens", 1, std::numeric_limits<int64_t>::max(), &max_completion_tokens));
  if (max_completion_tokens) shared.max_tokens = max_completion_tokens;
  RETURN_IF_ERROR(check_best_of(body, shared.sampling.n));
  RETURN_IF_ERROR(read_logprobs(body, &shared.sampling));
  RETURN_IF_ERROR(check_sampling(shared, limits));
  ASSIGN_OR_RETURN(request.prompt, parse_chat_prompt(body));
  RETURN_IF_ERROR(read_documents(body, &request.prompt.documents));
  RETURN_IF_ERROR(read_reasoning_effort(body, &request.prompt.kwargs));
  RETURN_IF_ERROR(check_tool_choice(body, request.prompt));
  return request;
}

}  // namespace sextant::openai
