#include "engine/base/weight_type.h"

#include <array>

namespace sextant {
namespace {

constexpr uint32_t kNoGgmlId = UINT32_MAX;

struct Row {
  WeightType type;
  std::string_view name;
  BlockGeometry block;
  uint32_t ggml_id;
};

// In the order of the enum. Ids 4, 5, 31-33 and 36-38 were withdrawn from the format.
constexpr std::array<Row, kNumWeightTypes> kRows = {{
    {WeightType::kF64, "F64", {1, 8}, 28},
    {WeightType::kF32, "F32", {1, 4}, 0},
    {WeightType::kF16, "F16", {1, 2}, 1},
    {WeightType::kBF16, "BF16", {1, 2}, 30},
    {WeightType::kF8E4M3, "F8_E4M3", {1, 1}, kNoGgmlId},
    {WeightType::kF8E5M2, "F8_E5M2", {1, 1}, kNoGgmlId},
    {WeightType::kI64, "I64", {1, 8}, 27},
    {WeightType::kI32, "I32", {1, 4}, 26},
    {WeightType::kI16, "I16", {1, 2}, 25},
    {WeightType::kI8, "I8", {1, 1}, 24},
    {WeightType::kU64, "U64", {1, 8}, kNoGgmlId},
    {WeightType::kU32, "U32", {1, 4}, kNoGgmlId},
    {WeightType::kU16, "U16", {1, 2}, kNoGgmlId},
    {WeightType::kU8, "U8", {1, 1}, kNoGgmlId},
    {WeightType::kBool, "BOOL", {1, 1}, kNoGgmlId},
    {WeightType::kQ4_0, "Q4_0", {32, 18}, 2},
    {WeightType::kQ4_1, "Q4_1", {32, 20}, 3},
    {WeightType::kQ5_0, "Q5_0", {32, 22}, 6},
    {WeightType::kQ5_1, "Q5_1", {32, 24}, 7},
    {WeightType::kQ8_0, "Q8_0", {32, 34}, 8},
    {WeightType::kQ8_1, "Q8_1", {32, 36}, 9},
    {WeightType::kQ2K, "Q2_K", {256, 84}, 10},
    {WeightType::kQ3K, "Q3_K", {256, 110}, 11},
    {WeightType::kQ4K, "Q4_K", {256, 144}, 12},
    {WeightType::kQ5K, "Q5_K", {256, 176}, 13},
    {WeightType::kQ6K, "Q6_K", {256, 210}, 14},
    {WeightType::kQ8K, "Q8_K", {256, 292}, 15},
    {WeightType::kIQ1S, "IQ1_S", {256, 50}, 19},
    {WeightType::kIQ1M, "IQ1_M", {256, 56}, 29},
    {WeightType::kIQ2XXS, "IQ2_XXS", {256, 66}, 16},
    {WeightType::kIQ2XS, "IQ2_XS", {256, 74}, 17},
    {WeightType::kIQ2S, "IQ2_S", {256, 82}, 22},
    {WeightType::kIQ3XXS, "IQ3_XXS", {256, 98}, 18},
    {WeightType::kIQ3S, "IQ3_S", {256, 110}, 21},
    {WeightType::kIQ4NL, "IQ4_NL", {32, 18}, 20},
    {WeightType::kIQ4XS, "IQ4_XS", {256, 136}, 23},
    {WeightType::kTQ1_0, "TQ1_0", {256, 54}, 34},
    {WeightType::kTQ2_0, "TQ2_0", {256, 66}, 35},
    {WeightType::kMXFP4, "MXFP4", {32, 17}, 39},
    {WeightType::kNVFP4, "NVFP4", {64, 36}, 40},
    {WeightType::kQ1_0, "Q1_0", {128, 18}, 41},
    {WeightType::kQ2_0, "Q2_0", {64, 18}, 42},
}};

constexpr bool rows_match_enum() {
  for (size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<size_t>(kRows[i].type) != i) return false;
  }
  return true;
}
static_assert(rows_match_enum());

}  // namespace

BlockGeometry block_geometry(WeightType type) { return kRows[static_cast<size_t>(type)].block; }

std::string_view weight_type_name(WeightType type) { return kRows[static_cast<size_t>(type)].name; }

std::optional<WeightType> parse_weight_type(std::string_view name) {
  for (const Row& row : kRows) {
    if (row.name == name) return row.type;
  }
  return std::nullopt;
}

std::optional<WeightType> weight_type_of_ggml_id(uint32_t id) {
  for (const Row& row : kRows) {
    if (row.ggml_id == id && id != kNoGgmlId) return row.type;
  }
  return std::nullopt;
}

std::optional<uint64_t> encoded_bytes(WeightType type, uint64_t rows, uint64_t cols) {
  const BlockGeometry block = block_geometry(type);
  if (cols % block.elements != 0) return std::nullopt;
  uint64_t row_bytes = 0;
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(cols / block.elements, uint64_t{block.bytes}, &row_bytes)) return std::nullopt;
  if (__builtin_mul_overflow(rows, row_bytes, &bytes)) return std::nullopt;
  return bytes;
}

}  // namespace sextant
