// Rows of ggml's blocks for tests: random bytes with scales of a size that weights have.
#pragma once

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "engine/base/block_values.h"
#include "engine/base/float16.h"

namespace sextant::testing_support {

// The types that backends hold as others.
inline const std::vector<WeightType>& re_encoded_block_types() {
  static const std::vector<WeightType> kTypes = {
      WeightType::kQ5_0, WeightType::kQ5_1, WeightType::kQ2K,   WeightType::kQ3K,   WeightType::kQ4K,
      WeightType::kQ5K,  WeightType::kQ6K,  WeightType::kIQ4NL, WeightType::kIQ4XS, WeightType::kMXFP4};
  return kTypes;
}

// The fp16 numbers of a block: where they stand, and the largest factor that one is multiplied by.
struct BlockScale {
  size_t at;
  float factor;
};
inline std::vector<BlockScale> scales_of_blocks(WeightType type) {
  switch (type) {
    case WeightType::kQ4_0: return {{0, 8}};
    case WeightType::kQ4_1: return {{0, 15}, {2, 1}};
    case WeightType::kQ5_0: return {{0, 16}};
    case WeightType::kQ5_1: return {{0, 31}, {2, 1}};
    case WeightType::kQ8_0: return {{0, 128}};
    case WeightType::kQ2K: return {{80, 45}, {82, 15}};
    case WeightType::kQ3K: return {{108, 128}};
    case WeightType::kQ4K: return {{0, 945}, {2, 63}};
    case WeightType::kQ5K: return {{0, 1953}, {2, 63}};
    case WeightType::kQ6K: return {{208, 4096}};
    case WeightType::kIQ4NL: return {{0, 127}};
    case WeightType::kIQ4XS: return {{0, 4064}};
    default: return {};
  }
}

// `rows` rows of `cols` weights, none beyond about `largest`.
inline std::vector<uint8_t> random_blocks(WeightType type, int64_t rows, int64_t cols, std::mt19937_64& random,
                                          float largest = 2) {
  const BlockGeometry block = block_geometry(type);
  std::vector<uint8_t> bytes(*encoded_bytes(type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols)));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  std::uniform_real_distribution<float> part(-1, 1);
  for (size_t begin = 0; begin < bytes.size(); begin += block.bytes) {
    for (const BlockScale& scale : scales_of_blocks(type)) {
      const uint16_t half = f16_of_f32(part(random) * largest / scale.factor);
      bytes[begin + scale.at] = static_cast<uint8_t>(half);
      bytes[begin + scale.at + 1] = static_cast<uint8_t>(half >> 8);
    }
    // 6 times 2^-10 to 6 times 2^-2.
    if (type == WeightType::kMXFP4) bytes[begin] = static_cast<uint8_t>(117 + random() % 9);
  }
  return bytes;
}

inline std::vector<float> values_of_blocks(WeightType type, const std::vector<uint8_t>& bytes) {
  const BlockGeometry block = block_geometry(type);
  std::vector<float> values(bytes.size() / block.bytes * block.elements);
  decode_row(type, bytes.data(), static_cast<int64_t>(values.size()), values.data());
  return values;
}

}  // namespace sextant::testing_support
