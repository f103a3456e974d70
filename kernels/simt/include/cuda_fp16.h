// Shadow of <cuda_fp16.h>: storage and conversions, rounding to nearest even.
#pragma once

#include <cuda_runtime.h>

struct __half_raw {
  unsigned short x;
};
struct alignas(2) __half {
  uint16_t bits;
  __half() = default;
  __half(const __half_raw& raw) : bits(raw.x) {}  // NOLINT(google-explicit-constructor): CUDA's converts, too
};
struct alignas(4) __half2 {
  __half x, y;
};

// Not _Float16's conversions: without F16C those are calls of libgcc's, kernels convert a scale for every few weights, and
// clang 14 has no such type.
inline float __half2float(__half h) {
  const uint32_t sign = (h.bits & 0x8000u) << 16, magnitude = h.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112f));
}
inline __half __float2half(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t half = 0x7c00u;        // from 2^16 on
  if (magnitude > 0x7f800000u) {  // NaN
    half = 0x7fffu;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: a sum with 1/2 rounds to the subnormals' unit, 2^-24
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
  } else if (magnitude < 0x47800000u) {
    half = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
  }
  __half h;
  h.bits = static_cast<uint16_t>(sign | half);
  return h;
}
inline __half __float2half_rn(float x) { return __float2half(x); }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half(x), __float2half(y)}; }
inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
inline float2 __half22float2(__half2 v) { return {__half2float(v.x), __half2float(v.y)}; }
