// Decoders of ggml's blocks against the values that the gguf package gives for random ones (tests/data/block_values), bit by bit.
#include "engine/base/block_values.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/base/float16.h"

namespace sextant {
namespace {

std::vector<uint8_t> bytes_of_hex(const std::string& hex) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

struct Golden {
  WeightType type;
  std::vector<uint8_t> blocks;
  std::vector<uint32_t> values;  // bits of fp32
};

std::vector<Golden> golden() {
  std::ifstream file(SEXTANT_TEST_DATA "/block_values/block_values.txt");
  std::vector<Golden> all;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream words(line);
    std::string name, blocks, values;
    words >> name >> blocks >> values;
    const std::optional<WeightType> type = parse_weight_type(name);
    EXPECT_TRUE(type.has_value()) << name;
    if (!type) continue;
    const std::vector<uint8_t> bytes = bytes_of_hex(values);
    Golden next{*type, bytes_of_hex(blocks), std::vector<uint32_t>(bytes.size() / 4)};
    std::memcpy(next.values.data(), bytes.data(), bytes.size());
    all.push_back(std::move(next));
  }
  return all;
}

TEST(BlockValues, AreThoseOfTheGgufPackage) {
  int types = 0;
  for (const Golden& expected : golden()) {
    SCOPED_TRACE(weight_type_name(expected.type));
    const auto cols = static_cast<int64_t>(expected.values.size());
    ASSERT_GE(cols, 256);
    ASSERT_EQ(encoded_bytes(expected.type, 1, static_cast<uint64_t>(cols)), expected.blocks.size());
    ASSERT_TRUE(has_block_values(expected.type));
    // One more value before and behind, and blocks at an odd address.
    std::vector<float> got(expected.values.size() + 2, 7.5f);
    std::vector<uint8_t> moved(expected.blocks.size() + 1);
    std::copy(expected.blocks.begin(), expected.blocks.end(), moved.begin() + 1);
    decode_row(expected.type, moved.data() + 1, cols, got.data() + 1);
    for (size_t i = 0; i < expected.values.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(got[i + 1]), expected.values[i])
          << "value " << i << ": " << got[i + 1] << ", not " << std::bit_cast<float>(expected.values[i]);
    }
    EXPECT_EQ(got.front(), 7.5f);
    EXPECT_EQ(got.back(), 7.5f);
    ++types;
  }
  EXPECT_EQ(types, 13);
}

TEST(BlockValues, KnowNoOtherTypes) {
  int known = 0;
  for (int i = 0; i < kNumWeightTypes; ++i) known += has_block_values(static_cast<WeightType>(i)) ? 1 : 0;
  EXPECT_EQ(known, 13);
  EXPECT_FALSE(has_block_values(WeightType::kF16));
  EXPECT_FALSE(has_block_values(WeightType::kIQ2XS));
}

TEST(BlockValues, SomeTypesAreQ8_0) {
  int exact = 0;
  for (const Golden& expected : golden()) {
    if (!is_exact_as_q8_0(expected.type)) continue;
    SCOPED_TRACE(weight_type_name(expected.type));
    const auto cols = static_cast<int64_t>(expected.values.size());
    std::vector<uint8_t> row(*encoded_bytes(WeightType::kQ8_0, 1, expected.values.size()));
    recode_row_as_q8_0(expected.type, expected.blocks.data(), cols, row.data());
    std::vector<float> got(expected.values.size());
    decode_row(WeightType::kQ8_0, row.data(), cols, got.data());
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), expected.values[i]) << i;
    ++exact;
  }
  EXPECT_EQ(exact, 2);
}

TEST(BlockValues, AnInfiniteOrMissingScaleShows) {
  std::vector<uint8_t> block(18, 0);
  std::vector<float> out(32);
  block[1] = 0x7c;  // infinity
  decode_row(WeightType::kQ4_0, block.data(), 32, out.data());
  EXPECT_TRUE(std::isinf(out[0]));
  block[0] = 1;  // NaN
  decode_row(WeightType::kQ4_0, block.data(), 32, out.data());
  EXPECT_TRUE(std::isnan(out[31]));
  std::vector<uint8_t> mx(17, 0x77);  // 6 times 2^128
  mx[0] = 255;
  decode_row(WeightType::kMXFP4, mx.data(), 32, out.data());
  EXPECT_TRUE(std::isinf(out[0]));
}

// Every half is itself again, and what lies between two goes to the nearer, halfway to the even one.
TEST(Float16, RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7c00u; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float low = f32_of_f16(half);
    ASSERT_EQ(low, std::ldexp(static_cast<float>((bits >> 10) == 0 ? bits : (bits & 0x3ffu) + 1024),
                              static_cast<int>(std::max(bits >> 10, 1u)) - 25));
    ASSERT_EQ(f16_of_f32(low), half);
    ASSERT_EQ(f16_of_f32(-low), half | 0x8000u);
    // What follows 65504 would be 65536.
    const float high = bits == 0x7bffu ? 65536.0f : f32_of_f16(static_cast<uint16_t>(half + 1));
    const float middle = low + (high - low) / 2;  // exact
    const auto next = static_cast<uint16_t>(half + 1);
    ASSERT_EQ(f16_of_f32(middle), bits % 2 == 0 ? half : next) << low;
    ASSERT_EQ(f16_of_f32(std::nextafter(middle, low)), half) << low;
    ASSERT_EQ(f16_of_f32(std::nextafter(middle, high)), next) << low;
  }
  EXPECT_EQ(f16_of_f32(INFINITY), 0x7c00u);
  EXPECT_EQ(f16_of_f32(3e38f), 0x7c00u);
  EXPECT_EQ(f16_of_f32(-INFINITY), 0xfc00u);
  EXPECT_TRUE(std::isnan(f32_of_f16(f16_of_f32(NAN))));
  EXPECT_TRUE(std::isinf(f32_of_f16(0xfc00u)));
  EXPECT_EQ(std::bit_cast<uint32_t>(f32_of_f16(0x8000u)), 0x80000000u);
}

}  // namespace
}  // namespace sextant
