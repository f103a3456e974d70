// IEEE 754 binary16 ("half", fp16) as 16 bits, on the host, where speed matters little. Pure.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace sextant {

inline constexpr float kLargestFloat16 = 65504.0f;

// Exact.
inline float f32_of_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = half >> 10 & 0x1fu, fraction = half & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float size = static_cast<float>(fraction) * 0x1p-24f;
  return sign != 0 ? -size : size;
}

// To nearest, ties to even; infinity from 65520 on; NaN stays NaN.
inline uint16_t f16_of_f32(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return sign | 0x7e00u;
  if (size >= 0x477ff000u) return sign | 0x7c00u;  // 65520, halfway to what would come after 65504
  if (size < 0x38800000u) {                        // 2^-14: subnormal, a multiple of 2^-24
    // fp32 rounds the sum to such a multiple: 0.5 has an ulp of 2^-24. Sums of two numbers round to nearest even.
    const float sum = std::bit_cast<float>(size) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - 0x3f000000u));
  }
  // Half of the last place that stays, less one where that place is even; the exponent's bias from 127 to 15.
  const uint32_t rounded = size + 0xfffu + (size >> 13 & 1u) - (112u << 23);
  return static_cast<uint16_t>(sign | rounded >> 13);
}

}  // namespace sextant
