#include "server/fleet/request_facts.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

namespace sextant::fleet {
namespace {

constexpr int kMaxDepth = 512;
constexpr int64_t kMostTokens = int64_t{1} << 30;

// Walks over values; texts and numbers are not looked into but where asked.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  size_t at() const { return at_; }
  bool done() const { return at_ == text_.size(); }
  char peek() const { return done() ? '\0' : text_[at_]; }
  void skip_space() {
    while (!done() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
  }
  bool take(char c) {
    skip_space();
    if (peek() != c || done()) return false;
    ++at_;
    return true;
  }

  // With its quotes; empty when there is none.
  std::string_view string() {
    skip_space();
    const size_t begin = at_;
    if (peek() != '"') return {};
    for (++at_; !done(); ++at_) {
      if (text_[at_] == '\\') {
        if (++at_ == text_.size()) break;
      } else if (text_[at_] == '"') {
        return text_.substr(begin, ++at_ - begin);
      }
    }
    return {};
  }

  // Any value; empty when there is none, or what is nested too deep. Brackets are only counted: whether they match is the
  // server's to judge.
  std::string_view value() {
    skip_space();
    const size_t begin = at_;
    if (peek() == '"') return string();
    if (peek() != '{' && peek() != '[') {
      while (!done() && std::string_view(",]} \t\r\n").find(text_[at_]) == std::string_view::npos) ++at_;
      return text_.substr(begin, at_ - begin);
    }
    int depth = 0;
    while (!done()) {
      const char c = text_[at_];
      if (c == '"') {
        if (string().empty()) return {};
        continue;
      }
      ++at_;
      if (c == '{' || c == '[') {
        if (++depth > kMaxDepth) return {};
      } else if (c == '}' || c == ']') {
        if (--depth == 0) return text_.substr(begin, at_ - begin);
      }
    }
    return {};
  }

 private:
  const std::string_view text_;
  size_t at_ = 0;
};

// Escapes resolved; nothing for what is no text.
std::optional<std::string> text_of(std::string_view quoted) {
  if (quoted.size() < 2 || quoted[0] != '"') return std::nullopt;
  const std::string_view inside = quoted.substr(1, quoted.size() - 2);
  if (inside.find('\\') == inside.npos) return std::string(inside);
  const auto parsed = nlohmann::json::parse(quoted, nullptr, false);
  if (!parsed.is_string()) return std::nullopt;
  return parsed.get<std::string>();
}

int64_t count_of(std::string_view number, int64_t otherwise) {
  double value = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (error != std::errc() || end != number.data() + number.size() || !(value >= 0)) return otherwise;
  return static_cast<int64_t>(std::min(value, static_cast<double>(kMostTokens)));
}

}  // namespace

int64_t RequestFacts::estimated_tokens(int64_t default_max_tokens) const {
  const int64_t answer = max_tokens >= 0 ? max_tokens : default_max_tokens;
  return static_cast<int64_t>(prompt.size() / 4) + std::min(answer * std::max<int64_t>(1, num_choices), kMostTokens) +
         1;
}

Result<RequestFacts> read_request_facts(std::string_view body) {
  Scanner scanner(body);
  const auto bad = [&](const char* what) {
    return invalid_argument("the body is not a JSON object: " + std::string(what) + " at byte " +
                            std::to_string(scanner.at()));
  };
  if (!scanner.take('{')) return bad("no '{'");
  RequestFacts facts;
  std::string_view messages;
  std::string_view prompt;
  int64_t max_tokens = -1;
  int64_t max_completion_tokens = -1;
  if (!scanner.take('}')) {
    do {
      const std::string_view quoted = scanner.string();
      if (quoted.empty()) return bad("no key");
      if (!scanner.take(':')) return bad("no ':'");
      const std::string_view value = scanner.value();
      if (value.empty()) return bad("no value");
      const std::optional<std::string> key = text_of(quoted);
      if (!key) return bad("no key that is a text");
      if (*key == "model") {
        std::optional<std::string> model = text_of(value);
        if (!model) return invalid_argument("model must be a string", "model");
        facts.model = std::move(*model);
        facts.model_value = value;
      } else if (*key == "stream") {
        facts.stream = value == "true";
      } else if (*key == "max_tokens") {
        max_tokens = count_of(value, -1);
      } else if (*key == "max_completion_tokens") {
        max_completion_tokens = count_of(value, -1);
      } else if (*key == "n") {
        facts.num_choices = std::min<int64_t>(count_of(value, 1), 1 << 20);
      } else if (*key == "messages") {
        messages = value;
      } else if (*key == "prompt" || *key == "input") {
        prompt = value;
      }
    } while (scanner.take(','));
    if (!scanner.take('}')) return bad("neither ',' nor '}'");
  }
  scanner.skip_space();
  if (!scanner.done()) return bad("something after its end");
  facts.max_tokens = max_completion_tokens >= 0 ? max_completion_tokens : max_tokens;
  facts.prompt = messages.empty() ? prompt : messages;
  return facts;
}

std::string with_model(std::string_view body, const RequestFacts& facts, std::string_view model) {
  const std::string name = nlohmann::json(model).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (facts.model_value.empty()) {
    const size_t brace = body.find('{') + 1;
    const bool is_empty = body.find_first_not_of(" \t\r\n", brace) == body.find_last_of('}');
    return std::string(body.substr(0, brace)) + "\"model\":" + name + (is_empty ? "" : ",") +
           std::string(body.substr(brace));
  }
  const auto at = static_cast<size_t>(facts.model_value.data() - body.data());
  return std::string(body.substr(0, at)) + name + std::string(body.substr(at + facts.model_value.size()));
}

}  // namespace sextant::fleet
