// WeightType: how the numbers of a stored tensor are encoded, for every encoding that a GGUF or safetensors file can
// name. Knowing a type's name and size says nothing about whether a backend computes with it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace sextant {

// clang-format off
enum class WeightType : uint8_t {
  // Plain elements.
  kF64, kF32, kF16, kBF16, kF8E4M3, kF8E5M2,
  kI64, kI32, kI16, kI8, kU64, kU32, kU16, kU8, kBool,
  // Blocks of ggml; each row is a whole number of blocks.
  kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ8_1,
  kQ2K, kQ3K, kQ4K, kQ5K, kQ6K, kQ8K,
  kIQ1S, kIQ1M, kIQ2XXS, kIQ2XS, kIQ2S, kIQ3XXS, kIQ3S, kIQ4NL, kIQ4XS,
  kTQ1_0, kTQ2_0, kMXFP4, kNVFP4, kQ1_0, kQ2_0,
};
// clang-format on
inline constexpr int kNumWeightTypes = static_cast<int>(WeightType::kQ2_0) + 1;

// `bytes` hold `elements` consecutive elements of a row.
struct BlockGeometry {
  uint32_t elements;
  uint32_t bytes;
};

BlockGeometry block_geometry(WeightType type);

// "F32", "BF16", "Q4_1", "Q6_K", "F8_E4M3", ...
std::string_view weight_type_name(WeightType type);
std::optional<WeightType> parse_weight_type(std::string_view name);

// The encoding with this number in GGUF files; nothing for numbers never given or withdrawn.
std::optional<WeightType> weight_type_of_ggml_id(uint32_t id);

inline bool is_block_quantized(WeightType type) { return block_geometry(type).elements > 1; }

// Bytes of `rows` rows of `cols` elements; nothing when cols is not a whole number of blocks or the product overflows.
std::optional<uint64_t> encoded_bytes(WeightType type, uint64_t rows, uint64_t cols);

}  // namespace sextant
