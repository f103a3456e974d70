// Device memory of any element type, seen from the host as fp32.
#pragma once

#include <vector>

#include "tests/kernels/cuda/cuda_test_support.h"

namespace sextant::kernels::cuda {

class TypedArray {
 public:
  // Rounds `values` to the type.
  TypedArray(const std::vector<float>& values, ElementType type)
      : type_(type),
        f32_(type == ElementType::kFloat32 ? values : std::vector<float>{}),
        u16_(type == ElementType::kFloat32 ? std::vector<uint16_t>{} : to_16_bit(values, type)) {}

  void* data() { return type_ == ElementType::kFloat32 ? static_cast<void*>(f32_.data()) : u16_.data(); }
  // The address of element i.
  void* at(int64_t i) { return static_cast<char*>(data()) + i * (type_ == ElementType::kFloat32 ? 4 : 2); }
  std::vector<float> download() {
    return type_ == ElementType::kFloat32 ? f32_.download() : from_16_bit(u16_.download(), type_);
  }

 private:
  ElementType type_;
  DeviceArray<float> f32_;
  DeviceArray<uint16_t> u16_;
};

inline std::vector<float> rounded(const std::vector<float>& values, ElementType type) {
  return type == ElementType::kFloat32 ? values : from_16_bit(to_16_bit(values, type), type);
}
// Half of the least subnormal: what a rounding to the type may change absolutely.
inline double subnormal_half(ElementType type) { return type == ElementType::kFloat16 ? 0x1p-25 : 0x1p-134; }

}  // namespace sextant::kernels::cuda
