// Tables made once, at first use.
#include "engine/text/byte_alphabet.h"

#include <array>

#include "engine/text/utf8.h"

namespace sextant {
namespace {

constexpr uint32_t kAlphabetEnd = 0x100 + 68;  // 68 bytes do not stand for themselves

constexpr bool stands_for_itself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

struct Tables {
  std::array<std::string, 256> chars;
  std::array<int, kAlphabetEnd> bytes;

  Tables() {
    bytes.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t code_point = stands_for_itself(byte) ? byte : next++;
      append_utf8(code_point, &chars[byte]);
      bytes[code_point] = static_cast<int>(byte);
    }
  }
};

const Tables& tables() {
  static const Tables instance;
  return instance;
}

}  // namespace

std::string_view byte_alphabet_char(uint8_t byte) { return tables().chars[byte]; }

std::optional<uint8_t> byte_alphabet_byte(uint32_t code_point) {
  if (code_point >= kAlphabetEnd || tables().bytes[code_point] < 0) return std::nullopt;
  return static_cast<uint8_t>(tables().bytes[code_point]);
}

std::optional<std::string> byte_alphabet_decode(std::string_view spelling) {
  std::string bytes;
  bytes.reserve(spelling.size());
  while (!spelling.empty()) {
    const Utf8Char c = decode_utf8_char(spelling);
    if (c.kind != Utf8Char::Kind::kValid) return std::nullopt;
    const std::optional<uint8_t> byte = byte_alphabet_byte(c.code_point);
    if (!byte) return std::nullopt;
    bytes.push_back(static_cast<char>(*byte));
    spelling.remove_prefix(c.length);
  }
  return bytes;
}

}  // namespace sextant
