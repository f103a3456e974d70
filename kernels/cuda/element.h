// Element types of activations on the device, and their conversions: 16-bit types are loaded eight at a time (128 bits).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

// Before a loop whose arrays must stay in registers: its trip count is a constant. And before one that must stay a loop.
#if defined(__CUDACC__)
#define SEXTANT_UNROLL _Pragma("unroll")
#define SEXTANT_ROLLED _Pragma("unroll 1")
#else
#define SEXTANT_UNROLL
#define SEXTANT_ROLLED
#endif

namespace sextant::kernels::cuda {

using bf16 = __nv_bfloat16;
using fp16 = __half;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(fp16 x) { return __half2float(x); }

// Rounds to nearest even.
template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
  return __float2bfloat16(x);
}
template <>
__device__ __forceinline__ fp16 from_float<fp16>(float x) {
  return __float2half(x);
}

// Elements that one 128-bit access moves.
template <typename T>
inline constexpr int kPerVector = 16 / sizeof(T);

template <typename T>
struct alignas(16) Vector {
  T at[16 / sizeof(T)];
};

// p is 16-byte aligned.
template <typename T>
__device__ __forceinline__ Vector<T> load_vector(const T* p) {
  return *reinterpret_cast<const Vector<T>*>(p);
}
template <typename T>
__device__ __forceinline__ void store_vector(T* p, const Vector<T>& v) {
  *reinterpret_cast<Vector<T>*>(p) = v;
}

}  // namespace sextant::kernels::cuda
