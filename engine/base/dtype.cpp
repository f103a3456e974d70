#include "engine/base/dtype.h"

#include <array>
#include <utility>

namespace sextant {
namespace {

// The first name of each type is the one dtype_name gives.
constexpr std::array<std::pair<std::string_view, DType>, 18> kNames = {{
    {"float32", DType::kFloat32},
    {"float", DType::kFloat32},
    {"fp32", DType::kFloat32},
    {"float16", DType::kFloat16},
    {"half", DType::kFloat16},
    {"fp16", DType::kFloat16},
    {"bfloat16", DType::kBFloat16},
    {"bf16", DType::kBFloat16},
    {"float8_e4m3", DType::kFloat8E4M3},
    {"float8_e4m3fn", DType::kFloat8E4M3},
    {"fp8_e4m3", DType::kFloat8E4M3},
    {"fp8", DType::kFloat8E4M3},
    {"float8_e5m2", DType::kFloat8E5M2},
    {"fp8_e5m2", DType::kFloat8E5M2},
    {"int64", DType::kInt64},
    {"int32", DType::kInt32},
    {"int8", DType::kInt8},
    {"uint8", DType::kUint8},
}};

}  // namespace

std::string_view dtype_name(DType dtype) {
  for (const auto& [name, type] : kNames) {
    if (type == dtype) return name;
  }
  return "?";
}

std::optional<DType> parse_dtype(std::string_view wanted) {
  for (const auto& [name, type] : kNames) {
    if (name == wanted) return type;
  }
  return std::nullopt;
}

}  // namespace sextant
