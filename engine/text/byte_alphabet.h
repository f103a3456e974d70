// The byte alphabet of byte-level vocabularies (GPT-2's): every byte has a printable character, so that tokens of
// arbitrary bytes can be spelled in JSON. Printable Latin-1 stands for itself, the rest for U+0100 onwards. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sextant {

// The UTF-8 of the character that stands for `byte`; 1 or 2 bytes.
std::string_view byte_alphabet_char(uint8_t byte);
// The byte for which `code_point` stands, if any.
std::optional<uint8_t> byte_alphabet_byte(uint32_t code_point);
// The bytes that `spelling` stands for; nothing when a character is not of the alphabet.
std::optional<std::string> byte_alphabet_decode(std::string_view spelling);

}  // namespace sextant
