#include "deploy/check/promql.h"

#include <algorithm>
#include <set>

namespace sextant::deploy {
namespace {

struct Token {
  enum Kind { kName, kNumber, kText, kSymbol } kind;
  std::string text;
};

bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool tokenise(std::string_view text, std::vector<Token>& out, std::string& error) {
  std::vector<char> open;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    size_t end = i + 1;
    if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
      ++i;
      continue;
    }
    if (c == '#') {
      i = std::min(text.find('\n', i), text.size());
      continue;
    }
    if (c == '"' || c == '\'' || c == '`') {
      while (end < text.size() && text[end] != c) end += text[end] == '\\' && c != '`' ? 2 : 1;
      if (end >= text.size()) return error = "a text does not end", false;
      out.push_back({Token::kText, std::string(text.substr(i + 1, end - i - 1))});
      i = end + 1;
      continue;
    }
    if (is_name_start(c) && !(c == ':' && !open.empty() && open.back() == '[')) {
      while (end < text.size() && (is_name_start(text[end]) || is_digit(text[end]))) ++end;
      out.push_back({Token::kName, std::string(text.substr(i, end - i))});
    } else if (is_digit(c) || c == '.') {
      // Numbers and durations: 1.5e-3, 5m, 1h30m, 0x1f.
      while (end < text.size() &&
             (is_digit(text[end]) || text[end] == '.' || (text[end] >= 'a' && text[end] <= 'z') ||
              ((text[end] == '-' || text[end] == '+') && text[end - 1] == 'e' && is_digit(text[end - 2]))))
        ++end;
      out.push_back({Token::kNumber, std::string(text.substr(i, end - i))});
    } else {
      static const std::string symbols = "(){}[],+-*/%^=!<>~@:";
      if (symbols.find(c) == std::string::npos) return error = std::string("'") + c + "' is no part of PromQL", false;
      if (c == '(' || c == '{' || c == '[') open.push_back(c);
      if (c == ')' || c == '}' || c == ']') {
        if (open.empty() || open.back() != (c == ')' ? '(' : c == '}' ? '{' : '['))
          return error = "brackets do not match", false;
        open.pop_back();
      }
      out.push_back({Token::kSymbol, std::string(1, c)});
    }
    i = end;
  }
  if (!open.empty()) return error = "brackets do not match", false;
  if (out.empty()) return error = "empty", false;
  return true;
}

class Reading {
 public:
  explicit Reading(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  void read(PromqlReading& out) {
    static const std::set<std::string> words = {"and", "or",  "unless", "bool",  "offset", "inf",
                                                "Inf", "nan", "NaN",    "start", "end",    "atan2"};
    static const std::set<std::string> lists = {"by", "without", "on", "ignoring", "group_left", "group_right"};
    std::vector<std::string> calls;  // per open parenthesis
    for (size_t i = 0; i < tokens_.size(); ++i) {
      const Token& token = tokens_[i];
      if (token.kind == Token::kSymbol) {
        if (token.text == "(") calls.push_back(i > 0 && tokens_[i - 1].kind == Token::kName ? tokens_[i - 1].text : "");
        if (token.text == ")") calls.pop_back();
        if (token.text == "[") i = closing(i);
        if (token.text == "{") i = selector(i, "", function_at(i, calls), out);
        continue;
      }
      if (token.kind != Token::kName || words.count(token.text) > 0) continue;
      if (lists.count(token.text) > 0) {
        if (is(i + 1, "(")) i = closing(i + 1);
        continue;
      }
      if (token.text == "histogram_quantile" && is(i + 1, "(") && !good_quantile(i + 1))
        out.bad_quantiles.push_back(text_of(i));
      if (is(i + 1, "(") ||
          (i + 1 < tokens_.size() && (tokens_[i + 1].text == "by" || tokens_[i + 1].text == "without")))
        continue;
      const std::string function = function_at(i, calls);
      if (is(i + 1, "{"))
        i = selector(i + 1, token.text, function, out);
      else
        out.selectors.push_back({token.text, {}, function});
    }
  }

 private:
  bool is(size_t i, const char* text) const {
    return i < tokens_.size() && tokens_[i].kind != Token::kText && tokens_[i].text == text;
  }

  size_t closing(size_t i) const {
    int depth = 0;
    for (; i < tokens_.size(); ++i) {
      if (tokens_[i].kind != Token::kSymbol) continue;
      const char c = tokens_[i].text[0];
      depth += c == '(' || c == '[' || c == '{' ? 1 : c == ')' || c == ']' || c == '}' ? -1 : 0;
      if (depth == 0) return i;
    }
    return tokens_.size() - 1;
  }

  std::string function_at(size_t i, const std::vector<std::string>& calls) const {
    return i > 0 && is(i - 1, "(") && !calls.empty() ? calls.back() : "";
  }

  size_t selector(size_t i, std::string metric, const std::string& function, PromqlReading& out) const {
    const size_t end = closing(i);
    PromqlSelector read{std::move(metric), {}, function};
    for (size_t k = i + 1; k + 1 < end; ++k) {
      if (tokens_[k].kind != Token::kName || !(is(k + 1, "=") || is(k + 1, "!"))) continue;
      if (tokens_[k].text == "__name__" && is(k + 1, "=") && k + 2 < end && tokens_[k + 2].kind == Token::kText)
        read.metric = tokens_[k + 2].text;
      else
        read.labels.push_back(tokens_[k].text);
    }
    out.selectors.push_back(std::move(read));
    return end;
  }

  // `by ( ..., le, ... )` at i; gives the token behind it, or 0.
  size_t by_le(size_t i) const {
    if (!is(i, "by") || !is(i + 1, "(")) return 0;
    const size_t end = closing(i + 1);
    for (size_t k = i + 2; k < end; ++k)
      if (is(k, "le")) return end + 1;
    return 0;
  }

  bool rate_of_buckets(size_t i) const {
    if (!is(i, "(") || i + 3 >= tokens_.size()) return false;
    const std::string& function = tokens_[i + 1].text;
    if (function != "rate" && function != "irate" && function != "increase") return false;
    if (!is(i + 2, "(") || tokens_[i + 3].kind != Token::kName || !tokens_[i + 3].text.ends_with("_bucket"))
      return false;
    return is(closing(i + 2) - 1, "]") && closing(i + 2) + 1 == closing(i);
  }

  bool good_quantile(size_t open) const {
    const size_t end = closing(open);
    size_t i = open + 1;
    for (int depth = 0; i < end && !(depth == 0 && is(i, ",")); ++i) depth += is(i, "(") ? 1 : is(i, ")") ? -1 : 0;
    if (++i >= end || !is(i, "sum")) return false;
    if (is(i + 1, "(")) {  // sum (rate(...)) by (le)
      const size_t behind = closing(i + 1) + 1;
      return rate_of_buckets(i + 1) && by_le(behind) == end;
    }
    const size_t argument = by_le(i + 1);
    return argument != 0 && rate_of_buckets(argument) && closing(argument) + 1 == end;
  }

  std::string text_of(size_t i) const {
    std::string out;
    for (size_t k = i; k <= closing(i + 1) && out.size() < 160; ++k)
      out += tokens_[k].kind == Token::kText ? "\"" + tokens_[k].text + "\"" : tokens_[k].text;
    return out;
  }

  std::vector<Token> tokens_;
};

}  // namespace

PromqlReading read_promql(std::string_view text) {
  PromqlReading out;
  std::vector<Token> tokens;
  if (tokenise(text, tokens, out.error)) Reading(std::move(tokens)).read(out);
  return out;
}

}  // namespace sextant::deploy
