// Integer dot products of int8 inputs with quantised panels (matmul.h) by VNNI. Needs avx512vnni. Included by matmul_int8.h only.
#pragma once

#include "kernels/cpu/matmul_tile.h"

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

// Sums and totals of a tile take twice as many of the 32 registers.
constexpr int kInt8Tiles[] = {1, 2, 3, 4, 6, 8, 12};

constexpr int kInt8Parts = 1;
using Lanes = F32x16;
SEXTANT_INLINE Lanes same_lanes(float x) { return broadcast(x); }
template <int kPart>
SEXTANT_INLINE Lanes load_f16_lanes(const uint8_t* p) {
  return load_f16(p);
}

// One block of one row of x, its lanes in column order, to int8; *e and *sum as matmul.h says.
SEXTANT_INLINE void quantize_block(F32x16 low, F32x16 high, int8_t* q, float* e, int32_t* sum) {
  // As integers the magnitudes' bits are in the order of the magnitudes, NaN above all.
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const __m512i larger = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(low.v), magnitude),
                                          _mm512_and_si512(_mm512_castps_si512(high.v), magnitude));
  const float top = __builtin_bit_cast(float, _mm512_reduce_max_epu32(larger));
  const __m512 scale = _mm512_set1_ps(top >= 0x1p-100f ? 127.0f / top : 0.0f);
  // What is not finite has no integers: its quants are 0, its e says it.
  const __mmask16 finite = top < __builtin_inff() ? 0xffff : 0;
  const __m512i a = _mm512_maskz_cvtps_epi32(finite, _mm512_mul_ps(low.v, scale));
  const __m512i b = _mm512_maskz_cvtps_epi32(finite, _mm512_mul_ps(high.v, scale));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtsepi32_epi8(a));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16), _mm512_cvtsepi32_epi8(b));
  *e = top / 127.0f;
  *sum = _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
}

// dot[t] = I_b of 16 rows for each of kTokens tokens. x: q [8][kTokens][4]; sums: S [kTokens].
template <PanelType kType, int kTokens, int kPart>
__attribute__((always_inline)) inline void block_dots(const uint8_t* block, const uint8_t* x, const int32_t* sums,
                                                      Lanes* dot) {
  // vpdpbusd multiplies unsigned bytes (weights) with signed ones (x): signed weights get an offset, which S takes back.
  constexpr int kOffset = kType == PanelType::kQ8_0 ? 128 : kType == PanelType::kQ4_0 ? 8 : 0;
  __m512i acc[kTokens];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    acc[t] = kOffset == 0 ? _mm512_setzero_si512() : _mm512_set1_epi32(-kOffset * sums[t]);
  }
  const auto add_group = [&](__m512i w, int group) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      int32_t four;
      __builtin_memcpy(&four, x + (group * kTokens + t) * 4, 4);
      acc[t] = _mm512_dpbusd_epi32(acc[t], w, _mm512_set1_epi32(four));
    }
  };
  if constexpr (kType == PanelType::kQ8_0) {
    const __m512i flip = _mm512_set1_epi8(-128);
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) add_group(_mm512_xor_si512(_mm512_loadu_si512(block + 64 * g), flip), g);
  } else {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      const __m512i pair = _mm512_loadu_si512(block + 64 * g);
      add_group(_mm512_and_si512(pair, low), g);
      add_group(_mm512_and_si512(_mm512_srli_epi16(pair, 4), low), g + 4);
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) dot[t].v = _mm512_cvtepi32_ps(acc[t]);
}

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
