// The shadow of <cuda_fp8.h> against the formats' definition: every code, and rounding between neighbours.
#include <cuda_fp8.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace {

// The value of a code by the formats' paper; infinity and NaN as such.
double value_of(unsigned code, __nv_fp8_interpretation_t type) {
  const bool e4m3 = type == __NV_E4M3;
  const int mantissa_bits = e4m3 ? 3 : 2;
  const int bias = e4m3 ? 7 : 15;
  const double sign = (code & 0x80) != 0 ? -1 : 1;
  const int field = static_cast<int>(code & 0x7f) >> mantissa_bits;
  const int mantissa = static_cast<int>(code) & ((1 << mantissa_bits) - 1);
  if (e4m3 && (code & 0x7f) == 0x7f) return std::numeric_limits<double>::quiet_NaN();
  if (!e4m3 && field == 31) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  }
  if (field == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, field - bias - mantissa_bits);
}

class Fp8 : public ::testing::TestWithParam<__nv_fp8_interpretation_t> {
 protected:
  static unsigned largest() { return GetParam() == __NV_E4M3 ? 0x7e : 0x7b; }
};

TEST_P(Fp8, EveryCodeHasItsValueAndComesBack) {
  for (unsigned code = 0; code < 256; ++code) {
    const double value = value_of(code, GetParam());
    const float got = __half2float(__half(__nv_cvt_fp8_to_halfraw(static_cast<unsigned char>(code), GetParam())));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(got)) << code;
      EXPECT_EQ(__nv_cvt_float_to_fp8(got, __NV_SATFINITE, GetParam()), 0x7f);
      continue;
    }
    EXPECT_EQ(got, value) << code;
    EXPECT_EQ(__nv_cvt_float_to_fp8(got, __NV_NOSAT, GetParam()), code);
  }
}

TEST_P(Fp8, RoundsToTheNearestAndTiesToEven) {
  for (unsigned code = 0; code < largest(); ++code) {
    const auto low = static_cast<float>(value_of(code, GetParam()));
    const auto high = static_cast<float>(value_of(code + 1, GetParam()));
    const float middle = (low + high) / 2;
    const unsigned even = code % 2 == 0 ? code : code + 1;
    for (const unsigned sign : {0u, 0x80u}) {
      const auto convert = [&](float x) {
        return unsigned{__nv_cvt_float_to_fp8(sign != 0 ? -x : x, __NV_SATFINITE, GetParam())};
      };
      EXPECT_EQ(convert(middle), sign | even) << code;
      EXPECT_EQ(convert(std::nextafter(middle, 0.0f)), sign | code) << code;
      EXPECT_EQ(convert(std::nextafter(middle, high)), sign | (code + 1)) << code;
    }
  }
}

TEST_P(Fp8, SaturatesOrOverflowsBeyondTheLargest) {
  const unsigned above = GetParam() == __NV_E4M3 ? 0x7f : 0x7c;
  const auto most = static_cast<float>(value_of(largest(), GetParam()));
  const auto second = static_cast<float>(value_of(largest() - 1, GetParam()));
  const float bound = most + (most - second) / 2;  // a tie, whose even neighbour is the largest in e4m3 only
  for (const float x : {bound * 1.01f, 1e30f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, GetParam()), largest());
    EXPECT_EQ(__nv_cvt_float_to_fp8(-x, __NV_SATFINITE, GetParam()), 0x80 | largest());
    EXPECT_EQ(__nv_cvt_float_to_fp8(x, __NV_NOSAT, GetParam()), above);
  }
  EXPECT_EQ(__nv_cvt_float_to_fp8(bound * 0.99f, __NV_NOSAT, GetParam()), largest());
}

INSTANTIATE_TEST_SUITE_P(Types, Fp8, ::testing::Values(__NV_E4M3, __NV_E5M2));

}  // namespace
