// Code points of UTF-8 text as Python's str sees them: counting, indexing, white space, case, character
// classes. Invalid bytes never fail here: each stands for itself as one character. Pure functions, any
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sextant::jinja {

struct DecodedChar {
  int32_t code_point = -1;  // -1: an invalid byte
  size_t num_bytes = 1;
};

// Precondition: offset < text.size().
DecodedChar decode_char(std::string_view text, size_t offset);
void append_utf8(std::string& out, uint32_t code_point);
bool is_valid_utf8(std::string_view text);

size_t count_chars(std::string_view text);
// Byte offset of the character number `char_idx`, or text.size() when there are fewer.
size_t char_offset(std::string_view text, size_t char_idx);

bool is_space(int32_t code_point);       // str.isspace, str.strip, \s
bool is_line_break(int32_t code_point);  // str.splitlines
bool is_printable(int32_t code_point);   // str.isprintable
bool is_alpha(int32_t code_point);
bool is_decimal(int32_t code_point);
bool is_digit(int32_t code_point);
bool is_numeric(int32_t code_point);
bool is_upper(int32_t code_point);
bool is_lower(int32_t code_point);
bool is_title(int32_t code_point);
bool is_identifier_start(int32_t code_point);
bool is_identifier_continue(int32_t code_point);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string to_casefold(std::string_view text);
std::string to_capitalized(std::string_view text);  // str.capitalize
std::string to_title(std::string_view text);        // str.title
std::string swap_case(std::string_view text);

enum class StripSide { kLeft, kRight, kBoth };
// Removes white space, or any of the characters of `chars` when given.
std::string_view strip(std::string_view text, StripSide side);
std::string_view strip_chars(std::string_view text, std::string_view chars, StripSide side);

}  // namespace sextant::jinja
