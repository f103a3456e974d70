#include "engine/base/weight_type.h"

#include <gtest/gtest.h>
#include <set>

#include "engine/base/dtype.h"

namespace sextant {
namespace {

TEST(WeightType, NamesAreUniqueAndParseBack) {
  std::set<std::string_view> names;
  for (int i = 0; i < kNumWeightTypes; ++i) {
    const auto type = static_cast<WeightType>(i);
    EXPECT_TRUE(names.insert(weight_type_name(type)).second) << weight_type_name(type);
    EXPECT_EQ(parse_weight_type(weight_type_name(type)), type);
    EXPECT_GT(block_geometry(type).elements, 0u);
    EXPECT_GT(block_geometry(type).bytes, 0u);
  }
  EXPECT_FALSE(parse_weight_type("Q4_2"));
}

// Bits per weight as the formats are described: scales and minima of a block, then the quants.
TEST(WeightType, BlockSizesFollowFromTheirParts) {
  constexpr uint32_t kHalf = 2;
  EXPECT_EQ(block_geometry(WeightType::kQ4_0).bytes, kHalf + 32 / 2);
  EXPECT_EQ(block_geometry(WeightType::kQ4_1).bytes, 2 * kHalf + 32 / 2);
  EXPECT_EQ(block_geometry(WeightType::kQ5_0).bytes, kHalf + 32 / 8 + 32 / 2);
  EXPECT_EQ(block_geometry(WeightType::kQ5_1).bytes, 2 * kHalf + 32 / 8 + 32 / 2);
  EXPECT_EQ(block_geometry(WeightType::kQ8_0).bytes, kHalf + 32);
  EXPECT_EQ(block_geometry(WeightType::kQ2K).bytes, 256 / 16 + 256 / 4 + 2 * kHalf);
  EXPECT_EQ(block_geometry(WeightType::kQ3K).bytes, 256 / 8 + 256 / 4 + 12 + kHalf);
  EXPECT_EQ(block_geometry(WeightType::kQ4K).bytes, 2 * kHalf + 12 + 256 / 2);
  EXPECT_EQ(block_geometry(WeightType::kQ5K).bytes, 2 * kHalf + 12 + 256 / 8 + 256 / 2);
  EXPECT_EQ(block_geometry(WeightType::kQ6K).bytes, 256 / 2 + 256 / 4 + 256 / 16 + kHalf);
  EXPECT_EQ(block_geometry(WeightType::kQ8K).bytes, 4u + 256 + 256 / 16 * 2);
  EXPECT_EQ(block_geometry(WeightType::kMXFP4).bytes, 1u + 32 / 2);
}

TEST(WeightType, GgmlIds) {
  EXPECT_EQ(weight_type_of_ggml_id(0), WeightType::kF32);
  EXPECT_EQ(weight_type_of_ggml_id(1), WeightType::kF16);
  EXPECT_EQ(weight_type_of_ggml_id(2), WeightType::kQ4_0);
  EXPECT_EQ(weight_type_of_ggml_id(3), WeightType::kQ4_1);
  EXPECT_EQ(weight_type_of_ggml_id(8), WeightType::kQ8_0);
  EXPECT_EQ(weight_type_of_ggml_id(30), WeightType::kBF16);
  for (uint32_t withdrawn : {4u, 5u, 31u, 32u, 33u, 36u, 37u, 38u, 43u, UINT32_MAX}) {
    EXPECT_FALSE(weight_type_of_ggml_id(withdrawn)) << withdrawn;
  }
  std::set<WeightType> seen;
  for (uint32_t id = 0; id < 64; ++id) {
    if (const auto type = weight_type_of_ggml_id(id)) {
      EXPECT_TRUE(seen.insert(*type).second);
    }
  }
  EXPECT_EQ(seen.size(), 35u);
}

TEST(WeightType, EncodedBytesChecksBlocksAndOverflow) {
  EXPECT_EQ(encoded_bytes(WeightType::kQ4_1, 3, 64), 120u);
  EXPECT_EQ(encoded_bytes(WeightType::kBF16, 3, 7), 42u);
  EXPECT_EQ(encoded_bytes(WeightType::kF32, 0, 7), 0u);
  EXPECT_FALSE(encoded_bytes(WeightType::kQ4_1, 1, 33));
  EXPECT_FALSE(encoded_bytes(WeightType::kF32, 1, uint64_t{1} << 62));
  EXPECT_FALSE(encoded_bytes(WeightType::kF32, uint64_t{1} << 40, uint64_t{1} << 40));
}

TEST(DType, NamesSizesAndParsing) {
  for (DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kFloat8E4M3, DType::kFloat8E5M2,
                      DType::kInt64, DType::kInt32, DType::kInt8, DType::kUint8}) {
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
  }
  EXPECT_EQ(dtype_size(DType::kFloat32), 4u);
  EXPECT_EQ(dtype_size(DType::kBFloat16), 2u);
  EXPECT_EQ(dtype_size(DType::kInt64), 8u);
  EXPECT_EQ(dtype_size(DType::kFloat8E5M2), 1u);
  EXPECT_EQ(parse_dtype("half"), DType::kFloat16);
  EXPECT_EQ(parse_dtype("fp8"), DType::kFloat8E4M3);
  EXPECT_FALSE(parse_dtype("auto"));
  EXPECT_FALSE(parse_dtype(""));
}

}  // namespace
}  // namespace sextant
