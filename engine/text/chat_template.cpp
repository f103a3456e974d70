#include "engine/text/chat_template.h"

#include <algorithm>
#include <new>
#include <stdexcept>

#include "engine/text/jinja/failure.h"
#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/lexer.h"
#include "engine/text/jinja/parser.h"
#include "engine/text/jinja/unicode.h"

namespace sextant {
namespace {

Status status_of(const jinja::Failure& failure, int line) {
  if (failure.kind == jinja::FailureKind::kRaised) return invalid_argument(failure.message);
  return invalid_argument("line " + std::to_string(std::max(line, 1)) + ": " + failure.message);
}

}  // namespace

struct ChatTemplate::Impl {
  ChatTemplateLimits limits;
  std::unique_ptr<jinja::Template> tree;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::parse(std::string_view source, const ChatTemplateLimits& limits) {
  if (source.size() > limits.max_source_bytes) {
    return Status(StatusCode::kTooLarge, "line 1: the chat template has " + std::to_string(source.size()) +
                                             " bytes; the limit is " + std::to_string(limits.max_source_bytes));
  }
  if (!jinja::is_valid_utf8(source)) return invalid_argument("line 1: the chat template is not valid UTF-8");
  try {
    auto impl = std::make_unique<Impl>();
    impl->limits = limits;
    impl->tree = jinja::Parser(jinja::tokenize(source), limits.max_depth).parse();
    return ChatTemplate(std::move(impl));
  } catch (const jinja::Failure& failure) {
    return status_of(failure, failure.line);
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, "line 1: out of memory while reading the chat template");
  }
}

Result<std::string> ChatTemplate::render(const nlohmann::ordered_json& variables, int64_t now_unix_s) const {
  if (!variables.is_object()) return internal_error("a chat template's variables must be a JSON object");
  try {
    jinja::Interpreter interpreter(*impl_->tree, impl_->limits, now_unix_s);
    try {
      return interpreter.render(variables);
    } catch (const jinja::Failure& failure) {
      return status_of(failure, interpreter.line());
    }
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, "out of memory while rendering the chat template");
  } catch (const std::length_error&) {
    return Status(StatusCode::kResourceExhausted, "out of memory while rendering the chat template");
  }
}

}  // namespace sextant
