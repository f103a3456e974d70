#include "engine/text/jinja/lexer.h"

#include <algorithm>
#include <array>

#include "engine/text/jinja/failure.h"
#include "engine/text/jinja/string_literal.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

bool is_digit_char(char c) { return c >= '0' && c <= '9'; }
bool is_hex_char(char c) { return is_digit_char(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)) {}

  std::vector<Token> run() {
    while (position_ < source_.size()) text();
    add(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail_here(std::string message) const {
    throw Failure{FailureKind::kSyntax, line_, std::move(message)};
  }

  void add(TokenType type, std::string text) { tokens_.push_back({type, line_, std::move(text)}); }

  // Moves on, counting lines; what is passed decides whether the next tag stands at the start of a line.
  void advance(size_t end) {
    if (end == position_) return;
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(position_),
                                         source_.begin() + static_cast<ptrdiff_t>(end), '\n'));
    at_line_start_ = source_[end - 1] == '\n';
    position_ = end;
  }

  char at(size_t i) const { return i < source_.size() ? source_[i] : '\0'; }
  bool starts_with(size_t i, std::string_view what) const {
    return std::string_view(source_).substr(i).starts_with(what);
  }
  size_t skip_space(size_t i) const {
    while (i < source_.size()) {
      const DecodedChar c = decode_char(source_, i);
      if (!is_space(c.code_point)) break;
      i += c.num_bytes;
    }
    return i;
  }

  // Emits source[position_, end) as text, stripped as the tag that follows asks: `sign` is its '-', '+' or
  // nothing.
  void emit_text(size_t end, char sign, bool is_variable) {
    std::string_view text = std::string_view(source_).substr(position_, end - position_);
    if (sign == '-') {
      text = strip(text, StripSide::kRight);
    } else if (sign != '+' && !is_variable) {
      const size_t line_begin = text.rfind('\n') + 1;  // npos + 1 is 0
      if ((line_begin > 0 || at_line_start_) && strip(text.substr(line_begin), StripSide::kLeft).empty()) {
        text = text.substr(0, line_begin);
      }
    }
    if (!text.empty()) add(TokenType::kText, std::string(text));
    advance(end);
  }

  size_t find_tag(size_t from) const {
    for (size_t i = source_.find('{', from); i != std::string::npos; i = source_.find('{', i + 1)) {
      const char next = at(i + 1);
      if (next == '%' || next == '{' || next == '#') return i;
    }
    return std::string::npos;
  }

  // {%- raw -%}: the end of the whole tag, or npos when this is another tag.
  size_t raw_tag_end(size_t tag) const {
    size_t i = tag + 2;
    if (at(i) == '-' || at(i) == '+') ++i;
    i = skip_space(i);
    if (!starts_with(i, "raw")) return std::string::npos;
    i = skip_space(i + 3);
    if (starts_with(i, "-%}")) return skip_space(i + 3);
    return starts_with(i, "%}") ? i + 2 : std::string::npos;
  }

  void text() {
    const size_t tag = find_tag(position_);
    if (tag == std::string::npos) {
      add(TokenType::kText, source_.substr(position_));
      advance(source_.size());
      return;
    }
    const char kind = source_[tag + 1];
    const char sign = at(tag + 2) == '-' || at(tag + 2) == '+' ? at(tag + 2) : '\0';
    emit_text(tag, sign, kind == '{');
    const size_t inside = tag + 2 + (sign == '\0' ? 0 : 1);
    if (kind == '#') return comment(inside);
    if (kind == '%') {
      if (const size_t end = raw_tag_end(tag); end != std::string::npos) return raw(end);
    }
    add(kind == '%' ? TokenType::kBlockBegin : TokenType::kVariableBegin, "");
    advance(inside);
    expression(kind == '%');
  }

  // After a block or comment: `-` eats all white space, `+` nothing, otherwise one newline goes.
  size_t after_end(size_t end, char sign) const {
    if (sign == '-') return skip_space(end);
    return sign != '+' && at(end) == '\n' ? end + 1 : end;
  }

  void comment(size_t begin) {
    const size_t end = source_.find("#}", begin);
    if (end == std::string::npos) fail_here("Missing end of comment tag");
    const char sign = end > begin && (source_[end - 1] == '-' || source_[end - 1] == '+') ? source_[end - 1] : '\0';
    advance(after_end(end + 2, sign));
  }

  void raw(size_t begin) {
    advance(begin);
    for (size_t tag = source_.find("{%", begin); tag != std::string::npos; tag = source_.find("{%", tag + 2)) {
      size_t i = tag + 2;
      const char sign = at(i) == '-' || at(i) == '+' ? at(i++) : '\0';
      i = skip_space(i);
      if (!starts_with(i, "endraw")) continue;
      i = skip_space(i + 6);
      const char end_sign = at(i) == '-' || at(i) == '+' ? at(i++) : '\0';
      if (!starts_with(i, "%}")) continue;
      emit_text(tag, sign, false);
      advance(after_end(i + 2, end_sign));
      return;
    }
    fail_here("Missing end of raw directive");
  }

  // The inside of {% %} or {{ }}.
  void expression(bool is_block) {
    std::string open;  // brackets: inside them %} and }} are operators
    const std::string_view end = is_block ? "%}" : "}}";
    for (;;) {
      if (position_ >= source_.size()) {
        fail_here(is_block ? "unexpected end of template inside a block tag"
                           : "unexpected end of template inside an expression");
      }
      if (open.empty()) {
        const char sign = source_[position_];
        const bool signed_end = (sign == '-' || (sign == '+' && is_block)) && starts_with(position_ + 1, end);
        if (signed_end || starts_with(position_, end)) {
          add(is_block ? TokenType::kBlockEnd : TokenType::kVariableEnd, "");
          const size_t after = position_ + (signed_end ? 3 : 2);
          if (is_block) return advance(after_end(after, signed_end ? sign : '\0'));
          return advance(signed_end ? skip_space(after) : after);
        }
      }
      const size_t next = skip_space(position_);
      if (next != position_) {
        advance(next);
        continue;
      }
      token(open);
    }
  }

  void token(std::string& open) {
    const char c = source_[position_];
    if (is_digit_char(c)) return number();
    if (c == '"' || c == '\'') return string(c);
    const DecodedChar decoded = decode_char(source_, position_);
    if (is_identifier_continue(decoded.code_point)) return name();
    static constexpr std::array<std::string_view, 6> kLong = {"//", "**", "==", "!=", ">=", "<="};
    static constexpr std::string_view kShort = "+-/*%~[](){}><=.:|,;";
    std::string op;
    for (const std::string_view candidate : kLong) {
      if (starts_with(position_, candidate)) op = candidate;
    }
    if (op.empty() && kShort.find(c) != std::string_view::npos) op = std::string(1, c);
    if (op.empty()) fail_here("unexpected character '" + source_.substr(position_, decoded.num_bytes) + "'");
    if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : (c == '[' ? ']' : '}');
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) fail_here("unexpected '" + op + "'");
      if (open.back() != c) fail_here("unexpected '" + op + "', expected '" + open.back() + "'");
      open.pop_back();
    }
    add(TokenType::kOperator, op);
    advance(position_ + op.size());
  }

  void name() {
    size_t end = position_;
    bool valid = is_identifier_start(decode_char(source_, position_).code_point);
    while (end < source_.size()) {
      const DecodedChar c = decode_char(source_, end);
      if (!is_identifier_continue(c.code_point)) break;
      end += c.num_bytes;
    }
    if (!valid) fail_here("Invalid character in identifier");
    add(TokenType::kName, source_.substr(position_, end - position_));
    advance(end);
  }

  // Digits with single underscores between them, from `i` on; returns where they end (i when there are none).
  template <typename IsDigit>
  size_t digits(size_t i, IsDigit is_digit_of) const {
    size_t end = i;
    while (is_digit_of(at(end)) || (end > i && at(end) == '_' && is_digit_of(at(end + 1)))) ++end;
    return end;
  }

  void number() {
    const char letter = static_cast<char>(at(position_ + 1) | 0x20);
    if (source_[position_] == '0' && (letter == 'x' || letter == 'o' || letter == 'b')) {
      const auto of_base = [letter](char c) {
        return letter == 'x' ? is_hex_char(c) : (letter == 'o' ? c >= '0' && c <= '7' : c == '0' || c == '1');
      };
      const size_t begin = position_ + 2 + (at(position_ + 2) == '_' ? 1 : 0);
      const size_t end = digits(begin, of_base);
      if (end > begin) return add_number(TokenType::kInteger, end);
    }
    // A float never starts right behind a dot: x.0.1 is two items.
    const bool after_dot = position_ > 0 && source_[position_ - 1] == '.';
    const size_t whole = digits(position_, is_digit_char);
    size_t end = whole;
    bool is_float = false;
    if (at(end) == '.' && is_digit_char(at(end + 1))) {
      end = digits(end + 1, is_digit_char);
      is_float = true;
    }
    if (at(end) == 'e' || at(end) == 'E') {
      const size_t exponent = end + 1 + (at(end + 1) == '+' || at(end + 1) == '-' ? 1 : 0);
      if (const size_t exponent_end = digits(exponent, is_digit_char); exponent_end > exponent) {
        end = exponent_end;
        is_float = true;
      }
    }
    if (is_float && !after_dot) return add_number(TokenType::kFloat, end);
    if (source_[position_] != '0') return add_number(TokenType::kInteger, whole);
    add_number(TokenType::kInteger, digits(position_, [](char c) { return c == '0'; }));  // no octal 0755
  }

  void add_number(TokenType type, size_t end) {
    std::string text = source_.substr(position_, end - position_);
    text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
    add(type, std::move(text));
    advance(end);
  }

  void string(char quote) {
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail_here("a string does not end");
    const auto literal = std::string_view(source_).substr(position_ + 1, end - position_ - 1);
    std::string value;
    if (const char* problem = decode_string_literal(literal, value)) fail_here(problem);
    add(TokenType::kString, std::move(value));
    advance(end + 1);
  }

  std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

std::string describe(const Token& token) {
  switch (token.type) {
    case TokenType::kText: return "text";
    case TokenType::kVariableBegin: return "'{{'";
    case TokenType::kVariableEnd: return "'}}'";
    case TokenType::kBlockBegin: return "'{%'";
    case TokenType::kBlockEnd: return "'%}'";
    case TokenType::kString: return "a string";
    case TokenType::kEnd: return "the end of the template";
    default: return "'" + token.text.substr(0, 100) + "'";
  }
}

}  // namespace sextant::jinja
