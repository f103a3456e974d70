#include "engine/text/utf8.h"
#include "tests/support/random_seed.h"

#include <random>

#include <gtest/gtest.h>

namespace sextant {
namespace {

std::string replaced(std::string_view bytes) {
  std::string out;
  EXPECT_EQ(append_replacing_invalid(bytes, true, &out), bytes.size());
  return out;
}

TEST(Utf8, ReplacesInvalidBytesAsPythonDoes) {
  // bytes, and what Python's bytes.decode(errors="replace").encode() makes of them
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"\377", "\357\277\275"},
      {"\303", "\357\277\275"},
      {"\342\202", "\357\277\275"},
      {"\342\202\254", "\342\202\254"},
      {"\342\050\241", "\357\277\275\050\357\277\275"},
      {"\360\237\230", "\357\277\275"},
      {"\360\237\230\200", "\360\237\230\200"},
      {"\360\050\214\274", "\357\277\275\050\357\277\275\357\277\275"},
      {"\300\257", "\357\277\275\357\277\275"},
      {"\340\200\257", "\357\277\275\357\277\275\357\277\275"},
      {"\355\240\200", "\357\277\275\357\277\275\357\277\275"},
      {"\364\220\200\200", "\357\277\275\357\277\275\357\277\275\357\277\275"},
      {"\370\210\200\200\200", "\357\277\275\357\277\275\357\277\275\357\277\275\357\277\275"},
      {"\141\200\142", "\141\357\277\275\142"},
      {"\360\220\200", "\357\277\275"},
      {"\360\200\200", "\357\277\275\357\277\275\357\277\275"},
      {"\341\200\342\360\221\222\361\277\101", "\357\277\275\357\277\275\357\277\275\357\277\275\101"},
      {"\200\277\302", "\357\277\275\357\277\275\357\277\275"},
      {"\302\101", "\357\277\275\101"},
      {"\364\217\277\277", "\364\217\277\277"},
      {"\356\200\200", "\356\200\200"},
      {"\361\200\200\342\202", "\357\277\275\357\277\275"},
  };
  for (const auto& [bytes, expected] : cases) EXPECT_EQ(replaced(bytes), expected);
}

TEST(Utf8, EveryCodePointComesBack) {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    std::string text;
    append_utf8(c, &text);
    const Utf8Char decoded = decode_utf8_char(text);
    if (c >= 0xD800 && c < 0xE000) {
      ASSERT_NE(decoded.kind, Utf8Char::Kind::kValid) << c;
      continue;
    }
    ASSERT_EQ(decoded.kind, Utf8Char::Kind::kValid) << c;
    ASSERT_EQ(decoded.code_point, c);
    ASSERT_EQ(decoded.length, text.size());
    for (size_t n = 1; n < text.size(); ++n) {
      ASSERT_EQ(decode_utf8_char(text.substr(0, n)).kind, Utf8Char::Kind::kIncomplete) << c;
    }
  }
}

TEST(Utf8, ValidPrefixEndsWhereDecodingFails) {
  const uint64_t seed = random_seed();
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int i = 0; i < 20000; ++i) {
    std::string bytes;
    for (size_t n = random() % 24; n > 0; --n)
      bytes += static_cast<char>(random() % 4 == 0 ? random() : random() % 128);
    size_t expected = 0;
    while (expected < bytes.size()) {
      const Utf8Char c = decode_utf8_char(std::string_view(bytes).substr(expected));
      if (c.kind != Utf8Char::Kind::kValid) break;
      expected += c.length;
    }
    ASSERT_EQ(valid_utf8_prefix(bytes), expected) << "seed " << seed;
  }
}

TEST(Utf8, CharacterClasses) {
  for (const uint32_t c : {0x09u, 0x0Du, 0x20u, 0x85u, 0xA0u, 0x1680u, 0x2003u, 0x3000u})
    EXPECT_TRUE(is_unicode_space(c));
  for (const uint32_t c : {0x00u, 0x1Cu, 0x41u, 0x180Eu, 0x200Bu, 0xFEFFu}) EXPECT_FALSE(is_unicode_space(c)) << c;
  for (const uint32_t c : {0x30u, 0x41u, 0x5Fu, 0xE9u, 0x300u, 0x65E5u, 0x663u}) EXPECT_TRUE(is_unicode_word(c)) << c;
  for (const uint32_t c : {0x20u, 0x2Du, 0x3Cu, 0x1F642u}) EXPECT_FALSE(is_unicode_word(c)) << c;
}

}  // namespace
}  // namespace sextant
