// Shadow of <cuda_fp8.h>: storage and conversions of e4m3 and e5m2, rounding to nearest even.
// Source: "FP8 Formats for Deep Learning" (arXiv 2209.05433); CUDA Math API, "FP8 Conversion and Data Movement".
#pragma once

#include <cuda_fp16.h>

using __nv_fp8_storage_t = unsigned char;
enum __nv_fp8_interpretation_t { __NV_E4M3, __NV_E5M2 };
enum __nv_saturation_t {
  __NV_NOSAT,      // beyond the largest: NaN (e4m3) or infinity (e5m2)
  __NV_SATFINITE,  // beyond the largest, infinity included: the largest
};

inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(float x, __nv_saturation_t saturation, __nv_fp8_interpretation_t type) {
  const bool e4m3 = type == __NV_E4M3;
  const int mantissa_bits = e4m3 ? 3 : 2;
  const int least_exponent = e4m3 ? -6 : -14;  // of a normal number
  const unsigned largest = e4m3 ? 0x7e : 0x7b;
  const unsigned above_largest = e4m3 ? 0x7f : 0x7c;
  const unsigned sign = std::signbit(x) ? 0x80 : 0;
  if (std::isnan(x)) return 0x7f;
  const unsigned overflow = saturation == __NV_SATFINITE ? largest : above_largest;
  if (std::isinf(x)) return static_cast<__nv_fp8_storage_t>(sign | overflow);
  if (x == 0) return static_cast<__nv_fp8_storage_t>(sign);
  int exponent = std::ilogb(x);
  if (exponent < least_exponent) exponent = least_exponent;
  // In units of the last place: exact, because a power of two scales it; then rounded once.
  const auto units = static_cast<unsigned>(std::nearbyint(std::scalbn(std::fabs(x), mantissa_bits - exponent)));
  // A carry out of the mantissa goes on into the exponent by itself; subnormals have exponent field 0.
  const unsigned field = static_cast<unsigned>(exponent - least_exponent);
  const unsigned bits = (field << mantissa_bits) + units;
  return static_cast<__nv_fp8_storage_t>(sign | (bits > largest ? overflow : bits));
}

inline __half_raw __nv_cvt_fp8_to_halfraw(__nv_fp8_storage_t x, __nv_fp8_interpretation_t type) {
  if (type == __NV_E5M2) {  // the upper half of an fp16
    return {static_cast<unsigned short>((x & 0x7fu) > 0x7cu ? 0x7fff : x << 8)};
  }
  const unsigned sign = x & 0x80u;
  const unsigned field = x >> 3 & 15u;
  const unsigned mantissa = x & 7u;
  if (field == 15 && mantissa == 7) return {0x7fff};
  const float magnitude = field == 0 ? std::scalbn(static_cast<float>(mantissa), -9)
                                     : std::scalbn(static_cast<float>(8 + mantissa), static_cast<int>(field) - 10);
  return {static_cast<unsigned short>(__float2half(magnitude).bits | sign << 8)};  // e4m3 within fp16: exact
}

template <__nv_fp8_interpretation_t kType>
struct SimtFp8 {
  __nv_fp8_storage_t __x;
  SimtFp8() = default;
  explicit SimtFp8(float x) : __x(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, kType)) {}
  explicit operator float() const { return __half2float(__half(__nv_cvt_fp8_to_halfraw(__x, kType))); }
};
using __nv_fp8_e4m3 = SimtFp8<__NV_E4M3>;
using __nv_fp8_e5m2 = SimtFp8<__NV_E5M2>;
