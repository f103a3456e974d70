// Reads messages and tools.
#include "server/openai/chat_messages.h"

#include <string>
#include <utility>

#include "server/openai/field_reader.h"
#include "server/openai/field_table.h"

namespace sextant::openai {
namespace {

Status read_content(const Json& message, const std::string& param, Json* out) {
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) {
    const Json* calls = find_field(message, "tool_calls");
    if (calls == nullptr || calls->empty()) {
      return invalid_argument("'" + param + "' is required.", param, "missing_required_parameter");
    }
    *out = nullptr;
    return ok_status();
  }
  if (content->is_string()) {
    *out = *content;
    return ok_status();
  }
  if (!content->is_array()) return type_error(param, "a string or an array of content parts", *content);
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    const Json& part = (*content)[i];
    const std::string part_param = param + "[" + std::to_string(i) + "]";
    if (!part.is_object()) return type_error(part_param, "a content part (an object)", part);
    const Json* type = find_field(part, "type");
    if (type == nullptr || !type->is_string()) {
      return invalid_argument("'" + part_param + ".type' must be the string \"text\".", part_param + ".type",
                              "invalid_type");
    }
    if (*type != "text") {
      return invalid_argument("'" + part_param + ".type' must be \"text\": this model reads text only. It is " +
                                  in_quotes(type->get_ref<const std::string&>()) + ".",
                              part_param + ".type", "unsupported_content_type");
    }
    const Json* part_text = find_field(part, "text");
    if (part_text == nullptr || !part_text->is_string()) {
      return invalid_argument("'" + part_param + ".text' must be a string.", part_param + ".text", "invalid_type");
    }
    if (i > 0) text += '\n';
    text += part_text->get_ref<const std::string&>();
  }
  *out = std::move(text);
  return ok_status();
}

// The API carries arguments as JSON text; templates expect the object.
Status read_tool_calls(const Json& calls, const std::string& param, Json* out) {
  if (!calls.is_array()) return type_error(param, "an array", calls);
  *out = calls;
  for (size_t i = 0; i < out->size(); ++i) {
    Json& call = (*out)[i];
    const std::string call_param = param + "[" + std::to_string(i) + "]";
    if (!call.is_object()) return type_error(call_param, "an object", call);
    const auto function = call.find("function");
    if (function == call.end() || !function->is_object()) {
      return invalid_argument("'" + call_param + ".function' must be an object.", call_param + ".function",
                              "invalid_type");
    }
    const auto arguments = function->find("arguments");
    if (arguments == function->end() || !arguments->is_string()) continue;
    const std::string text = arguments->get<std::string>();
    Result<Json> parsed = parse_json(text.empty() ? "{}" : text);
    if (!parsed.ok() || !parsed->is_object()) {
      const std::string arguments_param = call_param + ".function.arguments";
      return invalid_argument("'" + arguments_param + "' must be the text of a JSON object" +
                                  (parsed.ok() ? "." : ". " + parsed.status().message()),
                              arguments_param, "invalid_value");
    }
    *arguments = std::move(*parsed);
  }
  return ok_status();
}

}  // namespace

Result<Json> read_messages(const Json& body) {
  const Json* messages = find_field(body, "messages");
  if (messages == nullptr) return invalid_argument("'messages' is required.", "messages", "missing_required_parameter");
  if (!messages->is_array()) return type_error("messages", "an array of messages", *messages);
  if (messages->empty()) return range_error("messages", "an array of at least one message", "empty");
  if (messages->size() > kMaxMessages) {
    return range_error("messages", "at most " + std::to_string(kMaxMessages) + " messages",
                       std::to_string(messages->size()) + " messages");
  }
  Json read = Json::array();
  for (size_t i = 0; i < messages->size(); ++i) {
    const Json& message = (*messages)[i];
    const std::string param = "messages[" + std::to_string(i) + "]";
    if (!message.is_object()) return type_error(param, "an object", message);
    RETURN_IF_ERROR(chat_message_fields().check(message, param));
    const Json* role = find_field(message, "role");
    if (role == nullptr)
      return invalid_argument("'" + param + ".role' is required.", param + ".role", "missing_required_parameter");
    if (!role->is_string()) return type_error(param + ".role", "a string", *role);
    Json shaped = Json::object();
    shaped["role"] = *role;
    RETURN_IF_ERROR(read_content(message, param + ".content", &shaped["content"]));
    if (const Json* calls = find_field(message, "tool_calls")) {
      RETURN_IF_ERROR(read_tool_calls(*calls, param + ".tool_calls", &shaped["tool_calls"]));
    }
    for (const char* name : {"name", "tool_call_id", "reasoning", "reasoning_content", "thinking"}) {
      const Json* value = find_field(message, name);
      if (value == nullptr) continue;
      if (!value->is_string()) return type_error(param + "." + name, "a string", *value);
      shaped[name] = *value;
    }
    read.push_back(std::move(shaped));
  }
  return read;
}

Result<Json> read_tools(const Json& body) {
  const Json* tools = find_field(body, "tools");
  if (tools == nullptr || (tools->is_array() && tools->empty())) return Json(nullptr);
  if (!tools->is_array()) return type_error("tools", "an array", *tools);
  for (size_t i = 0; i < tools->size(); ++i) {
    if (!(*tools)[i].is_object()) return type_error("tools[" + std::to_string(i) + "]", "an object", (*tools)[i]);
  }
  return *tools;
}

}  // namespace sextant::openai
