#include "engine/text/jinja/unicode.h"

#include <utf8proc.h>
#include <algorithm>
#include <vector>

namespace sextant::jinja {
namespace {

bool is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

utf8proc_category_t category(int32_t code_point) {
  return code_point < 0 ? UTF8PROC_CATEGORY_CN : utf8proc_category(code_point);
}

// The full (one to many) upper-case mappings that text in the wild can contain; the rest map one to one.
const char* full_upper(int32_t code_point) {
  switch (code_point) {
    case 0xDF: return "SS";
    case 0x149: return "\xCA\xBCN";
    case 0x1F0: return "J\xCC\x8C";
    case 0x587: return "\xD4\xB5\xD5\x92";
    case 0xFB00: return "FF";
    case 0xFB01: return "FI";
    case 0xFB02: return "FL";
    case 0xFB03: return "FFI";
    case 0xFB04: return "FFL";
    case 0xFB05:
    case 0xFB06: return "ST";
    default: return nullptr;
  }
}

const char* full_title(int32_t code_point) {
  switch (code_point) {
    case 0xDF: return "Ss";
    case 0xFB00: return "Ff";
    case 0xFB01: return "Fi";
    case 0xFB02: return "Fl";
    case 0xFB03: return "Ffi";
    case 0xFB04: return "Ffl";
    case 0xFB05:
    case 0xFB06: return "St";
    default: return full_upper(code_point);
  }
}

bool is_cased(int32_t code_point) { return is_upper(code_point) || is_lower(code_point) || is_title(code_point); }

// A capital sigma ends a word: a cased letter before it and none after it (marks and dots between are
// skipped).
bool is_final_sigma(std::string_view text, size_t offset, bool letter_before) {
  if (!letter_before) return false;
  for (size_t i = offset + 2; i < text.size();) {
    const DecodedChar next = decode_char(text, i);
    const utf8proc_category_t kind = category(next.code_point);
    const bool ignorable = kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_CF || next.code_point == '\'' ||
                           next.code_point == '.' || next.code_point == ':';
    if (!ignorable) return !is_cased(next.code_point);
    i += next.num_bytes;
  }
  return true;
}

enum class CaseRule { kUpper, kLower, kTitle };

void append_case(std::string& out, std::string_view text, size_t offset, DecodedChar c, CaseRule rule,
                 bool letter_before) {
  if (c.code_point < 0) {
    out += text[offset];
  } else if (c.code_point < 0x80) {
    const char byte = text[offset];
    const bool lower = byte >= 'a' && byte <= 'z';
    const bool upper = byte >= 'A' && byte <= 'Z';
    out += rule == CaseRule::kLower ? static_cast<char>(upper ? byte + 32 : byte)
                                    : static_cast<char>(lower ? byte - 32 : byte);
  } else if (rule == CaseRule::kLower) {
    if (c.code_point == 0x130) {
      out += "i\xCC\x87";
    } else if (c.code_point == 0x3A3) {
      append_utf8(out, is_final_sigma(text, offset, letter_before) ? 0x3C2 : 0x3C3);
    } else {
      append_utf8(out, static_cast<uint32_t>(utf8proc_tolower(c.code_point)));
    }
  } else {
    const char* full = rule == CaseRule::kUpper ? full_upper(c.code_point) : full_title(c.code_point);
    if (full != nullptr) {
      out += full;
    } else {
      append_utf8(out, static_cast<uint32_t>(rule == CaseRule::kUpper ? utf8proc_toupper(c.code_point)
                                                                      : utf8proc_totitle(c.code_point)));
    }
  }
}

template <typename RuleOf>
std::string map_case(std::string_view text, RuleOf rule_of) {
  std::string out;
  out.reserve(text.size());
  bool letter_before = false;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    append_case(out, text, i, c, rule_of(c.code_point, letter_before, i), letter_before);
    letter_before = is_cased(c.code_point);
    i += c.num_bytes;
  }
  return out;
}

}  // namespace

DecodedChar decode_char(std::string_view text, size_t offset) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[offset + i]); };
  const unsigned char first = byte(0);
  const size_t left = text.size() - offset;
  if (first < 0x80) return {first, 1};
  if (first >= 0xC2 && first <= 0xDF && left >= 2 && is_continuation(byte(1))) {
    return {((first & 0x1F) << 6) | (byte(1) & 0x3F), 2};
  }
  if ((first & 0xF0) == 0xE0 && left >= 3 && is_continuation(byte(1)) && is_continuation(byte(2))) {
    const int32_t code_point = ((first & 0x0F) << 12) | ((byte(1) & 0x3F) << 6) | (byte(2) & 0x3F);
    if (code_point >= 0x800 && (code_point < 0xD800 || code_point > 0xDFFF)) return {code_point, 3};
  }
  if (first >= 0xF0 && first <= 0xF4 && left >= 4 && is_continuation(byte(1)) && is_continuation(byte(2)) &&
      is_continuation(byte(3))) {
    const int32_t code_point =
        ((first & 0x07) << 18) | ((byte(1) & 0x3F) << 12) | ((byte(2) & 0x3F) << 6) | (byte(3) & 0x3F);
    if (code_point >= 0x10000 && code_point <= 0x10FFFF) return {code_point, 4};
  }
  return {-1, 1};
}

void append_utf8(std::string& out, uint32_t code_point) {
  if (code_point < 0x80) {
    out += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    out += static_cast<char>(0xC0 | (code_point >> 6));
    out += static_cast<char>(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    out += static_cast<char>(0xE0 | (code_point >> 12));
    out += static_cast<char>(0x80 | ((code_point >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code_point & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (code_point >> 18));
    out += static_cast<char>(0x80 | ((code_point >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((code_point >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code_point & 0x3F));
  }
}

bool is_valid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    if (c.code_point < 0) return false;
    i += c.num_bytes;
  }
  return true;
}

size_t count_chars(std::string_view text) {
  if (is_ascii(text)) return text.size();
  size_t count = 0;
  for (size_t i = 0; i < text.size(); ++count) i += decode_char(text, i).num_bytes;
  return count;
}

size_t char_offset(std::string_view text, size_t char_idx) {
  size_t offset = 0;
  for (; char_idx > 0 && offset < text.size(); --char_idx) offset += decode_char(text, offset).num_bytes;
  return offset;
}

bool is_space(int32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_line_break(int32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool is_printable(int32_t c) {
  if (c >= 0x20 && c < 0x7F) return true;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
  }
}

bool is_alpha(int32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}
bool is_decimal(int32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }
bool is_digit(int32_t c) {
  return is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ||
         (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468);
}
bool is_numeric(int32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_NO;
}
bool is_upper(int32_t c) { return category(c) == UTF8PROC_CATEGORY_LU; }
bool is_lower(int32_t c) { return category(c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA; }
bool is_title(int32_t c) { return category(c) == UTF8PROC_CATEGORY_LT; }
bool is_identifier_start(int32_t c) { return c == '_' || is_alpha(c) || category(c) == UTF8PROC_CATEGORY_NL; }
bool is_identifier_continue(int32_t c) {
  if (is_identifier_start(c)) return true;
  const utf8proc_category_t kind = category(c);
  return kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_MC || kind == UTF8PROC_CATEGORY_ND ||
         kind == UTF8PROC_CATEGORY_PC;
}

std::string to_upper(std::string_view text) {
  return map_case(text, [](int32_t, bool, size_t) { return CaseRule::kUpper; });
}
std::string to_lower(std::string_view text) {
  return map_case(text, [](int32_t, bool, size_t) { return CaseRule::kLower; });
}
std::string to_capitalized(std::string_view text) {
  return map_case(text, [](int32_t, bool, size_t i) { return i == 0 ? CaseRule::kTitle : CaseRule::kLower; });
}
std::string to_title(std::string_view text) {
  return map_case(text, [](int32_t, bool in_word, size_t) { return in_word ? CaseRule::kLower : CaseRule::kTitle; });
}
std::string swap_case(std::string_view text) {
  return map_case(text, [](int32_t c, bool, size_t) { return is_upper(c) ? CaseRule::kLower : CaseRule::kUpper; });
}

std::string to_casefold(std::string_view text) {
  if (!is_valid_utf8(text)) return to_lower(text);
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    int32_t folded[8];
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(c.code_point, folded, 8, UTF8PROC_CASEFOLD, &boundary);
    for (utf8proc_ssize_t k = 0; k < count && k < 8; ++k) append_utf8(out, static_cast<uint32_t>(folded[k]));
    i += c.num_bytes;
  }
  return out;
}

namespace {

template <typename Drop>
std::string_view strip_if(std::string_view text, StripSide side, Drop drop) {
  size_t begin = 0;
  size_t end = text.size();
  if (side != StripSide::kRight) {
    while (begin < end) {
      const DecodedChar c = decode_char(text, begin);
      if (!drop(text.substr(begin, c.num_bytes), c.code_point)) break;
      begin += c.num_bytes;
    }
  }
  if (side != StripSide::kLeft) {
    while (end > begin) {
      size_t start = end - 1;
      while (start > begin && end - start < 4 && is_continuation(static_cast<unsigned char>(text[start]))) --start;
      DecodedChar c = decode_char(text, start);
      if (start + c.num_bytes != end) {  // a stray continuation byte
        start = end - 1;
        c = {-1, 1};
      }
      if (!drop(text.substr(start, c.num_bytes), c.code_point)) break;
      end = start;
    }
  }
  return text.substr(begin, end - begin);
}

}  // namespace

std::string_view strip(std::string_view text, StripSide side) {
  return strip_if(text, side, [](std::string_view, int32_t c) { return is_space(c); });
}

std::string_view strip_chars(std::string_view text, std::string_view chars, StripSide side) {
  std::vector<std::string_view> set;  // sorted: a hostile set must not make stripping quadratic
  for (size_t i = 0; i < chars.size();) {
    const size_t num_bytes = decode_char(chars, i).num_bytes;
    set.push_back(chars.substr(i, num_bytes));
    i += num_bytes;
  }
  std::sort(set.begin(), set.end());
  return strip_if(text, side,
                  [&](std::string_view c, int32_t) { return std::binary_search(set.begin(), set.end(), c); });
}

}  // namespace sextant::jinja
