// What the tests of CUDA kernels share: arrays in device memory, 16-bit numbers, runs under several thread orders.
// The same tests run on a device in the `cuda` preset and under the emulator elsewhere.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/cuda/types.h"
#include "tests/kernels/op_test_support.h"

#if defined(SEXTANT_SIMT)
#include "kernels/simt/runtime.h"
#endif

namespace sextant::kernels::cuda {

// `count` elements of device memory, exactly: what is read or written past them is out of bounds.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), std::max<size_t>(1, count * sizeof(T))), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { upload(values); }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() { return data_; }
  void upload(const std::vector<T>& values) {
    ASSERT_EQ(values.size(), count_);
    EXPECT_EQ(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }
  std::vector<T> download() {
    std::vector<T> values(count_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

inline std::vector<uint16_t> to_16_bit(std::span<const float> values, ElementType type) {
  std::vector<uint16_t> out;
  for (const float x : values) out.push_back(type == ElementType::kBFloat16 ? ref::bf16_of_f32(x) : ref::f16_of_f32(x));
  return out;
}
inline std::vector<float> from_16_bit(std::span<const uint16_t> values, ElementType type) {
  std::vector<float> out;
  for (const uint16_t x : values)
    out.push_back(type == ElementType::kBFloat16 ? ref::f32_of_bf16(x) : ref::f32_of_f16(x));
  return out;
}
// Unit roundoff: what one rounding to the type may change, relatively.
inline double epsilon(ElementType type) {
  switch (type) {
    case ElementType::kFloat32: return 0x1p-24;
    case ElementType::kBFloat16: return 0x1p-8;
    case ElementType::kFloat16: return 0x1p-11;
  }
  return 0;
}

// Runs `body` with thread indices in order and in two random orders; on a device once.
inline void under_thread_orders(uint64_t seed, const std::function<void()>& body) {
#if defined(SEXTANT_SIMT)
  for (const uint64_t order : {uint64_t{0}, seed | 1, (seed ^ 0x5DEECE66D) | 1}) {
    SCOPED_TRACE("thread order " + std::to_string(order));
    simt::set_seed(order);
    body();
  }
  simt::set_seed(0);
#else
  static_cast<void>(seed);
  body();
#endif
}

}  // namespace sextant::kernels::cuda
