// UTF-8 as bytes from models and users: validation, decoding, replacement of what is invalid.
// Pure functions; any thread. Must not know tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sextant {

struct Utf8Char {
  enum class Kind {
    kValid,       // `code_point` in `length` bytes
    kInvalid,     // the `length` bytes (at least 1) stand for one U+FFFD, as Unicode recommends ("maximal subpart")
    kIncomplete,  // the text ends inside what may still become a valid character of which `length` bytes are here
  };
  Kind kind = Kind::kValid;
  uint32_t code_point = 0;
  size_t length = 0;
};

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

// The character at the start of `text`, which is not empty.
Utf8Char decode_utf8_char(std::string_view text);
// Length of the longest valid prefix.
size_t valid_utf8_prefix(std::string_view text);
void append_utf8(uint32_t code_point, std::string* out);

// Appends `bytes` with each invalid sequence as one U+FFFD, exactly as Python's decode(errors="replace") does, and
// returns how many bytes were used. An incomplete character at the end is used (as U+FFFD) only if `is_end`.
size_t append_replacing_invalid(std::string_view bytes, bool is_end, std::string* out);

// White space and word characters as regular expressions over Unicode see them (\s and \w).
bool is_unicode_space(uint32_t code_point);
bool is_unicode_word(uint32_t code_point);

}  // namespace sextant
