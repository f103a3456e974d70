#include "engine/text/jinja/string_literal.h"

#include <cstdint>

#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// What Python makes of a backslash before a character beyond ASCII: the character's own escape, spelled out.
void append_spelled_out(int32_t code_point, std::string& value) {
  const int num_digits = code_point < 0x100 ? 2 : (code_point < 0x10000 ? 4 : 8);
  value += num_digits == 2 ? "\\x" : (num_digits == 4 ? "\\u" : "\\U");
  for (int shift = 4 * (num_digits - 1); shift >= 0; shift -= 4)
    value += "0123456789abcdef"[(code_point >> shift) & 0xF];
}

}  // namespace

const char* decode_string_literal(std::string_view literal, std::string& value) {
  for (size_t i = 0; i < literal.size();) {
    if (literal[i] != '\\' || i + 1 >= literal.size()) {
      value += literal[i++];
      continue;
    }
    const char c = literal[i + 1];
    i += 2;
    switch (c) {
      case '\n': continue;
      case '\\':
      case '\'':
      case '"': value += c; continue;
      case 'a': value += '\a'; continue;
      case 'b': value += '\b'; continue;
      case 'f': value += '\f'; continue;
      case 'n': value += '\n'; continue;
      case 'r': value += '\r'; continue;
      case 't': value += '\t'; continue;
      case 'v': value += '\v'; continue;
      case 'N': return "named characters (\\N{...}) are not supported";
      default: break;
    }
    if (c >= '0' && c <= '7') {
      uint32_t code = static_cast<uint32_t>(c - '0');
      for (int k = 0; k < 2 && i < literal.size() && literal[i] >= '0' && literal[i] <= '7'; ++k) {
        code = code * 8 + static_cast<uint32_t>(literal[i++] - '0');
      }
      append_utf8(value, code);
      continue;
    }
    if (c == 'x' || c == 'u' || c == 'U') {
      const size_t num_digits = c == 'x' ? 2 : (c == 'u' ? 4 : 8);
      uint32_t code = 0;
      for (size_t k = 0; k < num_digits; ++k) {
        const int digit = i < literal.size() ? hex_value(literal[i]) : -1;
        if (digit < 0) return "truncated \\x, \\u or \\U escape in a string";
        code = code * 16 + static_cast<uint32_t>(digit);
        ++i;
      }
      if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return "a string escape names no character";
      append_utf8(value, code);
      continue;
    }
    const DecodedChar next = decode_char(literal, i - 1);
    if (next.code_point >= 0x80) {
      append_spelled_out(next.code_point, value);
      i += next.num_bytes - 1;
    } else {
      value += '\\';
      value += c;
    }
  }
  return nullptr;
}

}  // namespace sextant::jinja
