// Cuts a template's source into text and the tokens between {% %} and {{ }}, with Jinja's white space control
// (trim_blocks and lstrip_blocks on, one trailing newline dropped).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sextant::jinja {

enum class TokenType : uint8_t {
  kText,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenType type = TokenType::kEnd;
  int line = 1;
  std::string text;  // text, name, operator, digits, or the string's value

  bool is_name(std::string_view name) const { return type == TokenType::kName && text == name; }
  bool is_operator(std::string_view op) const { return type == TokenType::kOperator && text == op; }
};

// Throws Failure (kSyntax). The last token is kEnd.
std::vector<Token> tokenize(std::string_view source);

// For messages: what a user would call this token.
std::string describe(const Token& token);

}  // namespace sextant::jinja
