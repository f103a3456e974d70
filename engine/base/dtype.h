// DType: the element types that tensors of activations, caches and plain weights are made of. Block-quantised weights
// are WeightType's business (weight_type.h). "auto" is a choice of the caller's, not a DType.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace sextant {

enum class DType : uint8_t {
  kFloat32,
  kFloat16,
  kBFloat16,
  kFloat8E4M3,
  kFloat8E5M2,
  kInt64,
  kInt32,
  kInt8,
  kUint8,
};

// Bytes per element.
constexpr size_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::kInt64: return 8;
    case DType::kFloat32:
    case DType::kInt32: return 4;
    case DType::kFloat16:
    case DType::kBFloat16: return 2;
    case DType::kFloat8E4M3:
    case DType::kFloat8E5M2:
    case DType::kInt8:
    case DType::kUint8: return 1;
  }
  return 0;
}

// Bytes of the scales that a head's key and value of one token have in a KV cache of this type: one fp32 each for int8, which has no
// range of its own.
constexpr size_t kv_scale_bytes(DType dtype) { return dtype == DType::kInt8 ? 2 * sizeof(float) : 0; }

// The name that flags, config.json and parse_dtype use: "float32", "bfloat16", "float8_e4m3", ...
std::string_view dtype_name(DType dtype);

// Also knows the spellings "half", "float", "fp8", "fp8_e4m3", "fp8_e5m2" that flags accept. Nothing for an unknown
// name and for "auto".
std::optional<DType> parse_dtype(std::string_view name);

}  // namespace sextant
