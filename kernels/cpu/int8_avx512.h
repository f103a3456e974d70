// Integer dot products of int8 inputs with quantised panels (matmul.h) by VNNI. Needs avx512vnni. Included by matmul_int8.h only.
#pragma once

#include "kernels/cpu/matmul_tile.h"

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

// Sums and totals take twice as many of the 32 registers as panels times tokens; few tokens need a second panel's sums to hide
// the latency of the first's.
constexpr TileShape kInt8Tiles[] = {{1, 1}, {2, 1}, {3, 2}, {4, 2}, {6, 2}, {8, 1}, {12, 1}};

constexpr int kInt8Parts = 1;
using Lanes = F32x16;
SEXTANT_INLINE Lanes same_lanes(float x) { return broadcast(x); }
template <int kPart>
SEXTANT_INLINE Lanes load_f16_lanes(const uint8_t* p) {
  return load_f16(p);
}

template <int kPart>
SEXTANT_INLINE Lanes load_u8_lanes(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
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

// The largest of each of 16 vectors' lanes, as unsigned integers, in their order.
SEXTANT_INLINE __m512i largest_lanes(const __m512i* v) {
  __m512i pairs[8], fours[4], halves[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    pairs[i] =
        _mm512_max_epu32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    fours[i] = _mm512_max_epu32(_mm512_unpacklo_epi64(pairs[2 * i], pairs[2 * i + 1]),
                                _mm512_unpackhi_epi64(pairs[2 * i], pairs[2 * i + 1]));
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    halves[i] = _mm512_max_epu32(_mm512_shuffle_i32x4(fours[2 * i], fours[2 * i + 1], 0x88),
                                 _mm512_shuffle_i32x4(fours[2 * i], fours[2 * i + 1], 0xdd));
  }
  return _mm512_max_epu32(_mm512_shuffle_i32x4(halves[0], halves[1], 0x88),
                          _mm512_shuffle_i32x4(halves[0], halves[1], 0xdd));
}

// One block of kTile rows of x (a multiple of 4, at most 16): the same numbers as quantize_block's, several rows at a time. False
// when a row is not finite: nothing is written then. half: [kTile][2].
template <int kTile>
SEXTANT_INLINE bool quantize_rows(const F32x16 (*half)[2], uint8_t* block) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i larger[16];
#pragma GCC unroll 16
  for (int t = 0; t < 16; ++t) {
    larger[t] = t >= kTile
                    ? _mm512_setzero_si512()
                    : _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(half[t < kTile ? t : 0][0].v), magnitude),
                                       _mm512_and_si512(_mm512_castps_si512(half[t < kTile ? t : 0][1].v), magnitude));
  }
  const __m512 top = _mm512_castsi512_ps(largest_lanes(larger));
  if (_mm512_cmp_ps_mask(top, _mm512_set1_ps(__builtin_inff()), _CMP_LT_OQ) != 0xffff) return false;
  const __mmask16 scaled = _mm512_cmp_ps_mask(top, _mm512_set1_ps(0x1p-100f), _CMP_GE_OQ);
  float scale[16];
  _mm512_storeu_ps(scale, _mm512_maskz_div_ps(scaled, _mm512_set1_ps(127.0f), top));
#pragma GCC unroll 4
  for (int first = 0; first < kTile; first += 4) {
    __m512i pair[2];  // of rows; in 128 bits groups i and 4 + i of both
#pragma GCC unroll 2
    for (int p = 0; p < 2; ++p) {
      __m512i words[2];
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r) {
        const int t = first + 2 * p + r;
        const __m512 same = _mm512_set1_ps(scale[t]);
        words[r] = _mm512_packs_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(half[t][0].v, same)),
                                      _mm512_cvtps_epi32(_mm512_mul_ps(half[t][1].v, same)));
      }
      pair[p] = _mm512_shuffle_epi32(_mm512_packs_epi16(words[0], words[1]), _MM_PERM_DBCA);
    }
    const __m512i low = _mm512_unpacklo_epi64(pair[0], pair[1]), high = _mm512_unpackhi_epi64(pair[0], pair[1]);
    unroll<4>([&](auto i) __attribute__((always_inline)) {
      constexpr int kGroup = decltype(i)::value;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(block + (kGroup * kTile + first) * 4),
                       _mm512_extracti32x4_epi32(low, kGroup));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(block + ((4 + kGroup) * kTile + first) * 4),
                       _mm512_extracti32x4_epi32(high, kGroup));
    });
  }
  const __mmask16 rows = first_lanes(kTile);
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int g = 0; g < 8; ++g) {
    sum = _mm512_dpbusd_epi32(sum, ones, _mm512_maskz_loadu_epi32(rows, block + g * kTile * 4));
  }
  const __m512 e = _mm512_div_ps(top, _mm512_set1_ps(127.0f));
  _mm512_mask_storeu_ps(block + 8 * kTile * 4, rows, e);
  _mm512_mask_storeu_ps(block + 9 * kTile * 4, rows, _mm512_mul_ps(e, _mm512_cvtepi32_ps(sum)));
  _mm512_mask_storeu_epi32(block + 10 * kTile * 4, rows, sum);
  return true;
}

// Columns of group kGroup (4 kGroup .. 4 kGroup + 3) of a block with nibbles, as unsigned bytes: kQ6K's without their offset of 32.
template <PanelType kType, int kGroup>
SEXTANT_INLINE __m512i unsigned_quants(const uint8_t* block) {
  const __m512i pair = _mm512_loadu_si512(block + 64 * (kGroup % 4));
  const __m512i nibbles = _mm512_and_si512(kGroup < 4 ? pair : _mm512_srli_epi16(pair, 4), _mm512_set1_epi8(15));
  if constexpr (kType != PanelType::kQ5K && kType != PanelType::kQ6K) return nibbles;
  // The bits that stand above the nibble's, brought to bit 4; what shifts carry between bytes the mask takes away.
  constexpr bool kIsQ6K = kType == PanelType::kQ6K;
  constexpr int kShift = kIsQ6K ? kGroup % 4 * 2 - 4 : kGroup - 4;
  const __m512i above = _mm512_loadu_si512(block + 256 + (kIsQ6K ? kGroup / 4 * 64 : 0));
  const __m512i moved = kShift < 0 ? _mm512_slli_epi16(above, kShift < 0 ? -kShift : 0)
                                   : _mm512_srli_epi16(above, kShift > 0 ? kShift : 0);
  return _mm512_or_si512(nibbles, _mm512_and_si512(moved, _mm512_set1_epi8(kIsQ6K ? 0x30 : 0x10)));
}
// s of the columns of a half of kQ6K's block.
SEXTANT_INLINE __m512i half_scales(const uint8_t* block, int half) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 384 + 16 * half)));
}

// dot[p][t] = I_b of 16 rows of each of kPanels panels for each of kTokens tokens. x: q [8][kTokens][4]; sums: S [kTokens].
template <PanelType kType, int kPanels, int kTokens, int kPart>
__attribute__((always_inline)) inline void block_dots(const uint8_t* block, int64_t panel_stride, const uint8_t* x,
                                                      const int32_t* sums, Lanes (*dot)[kTokens]) {
  // vpdpbusd multiplies unsigned bytes (weights) with signed ones (x): signed weights get an offset, which S takes back.
  constexpr int kOffset = kType == PanelType::kQ8_0 ? 128 : kType == PanelType::kQ4_0 ? 8 : 0;
  __m512i acc[kPanels][kTokens];
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      acc[p][t] = kOffset == 0 ? _mm512_setzero_si512() : _mm512_set1_epi32(-kOffset * sums[t]);
    }
  }
  const auto add_group = [&](const __m512i* w, int group) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      int32_t four;
      __builtin_memcpy(&four, x + (group * kTokens + t) * 4, 4);
      const __m512i same = _mm512_set1_epi32(four);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) acc[p][t] = _mm512_dpbusd_epi32(acc[p][t], w[p], same);
    }
  };
  if constexpr (kType == PanelType::kQ6K) {
    // The offset of each half takes the sum of x over that half.
    __m512i half[kTokens];
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      half[t] = _mm512_setzero_si512();
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) {
        int32_t four;
        __builtin_memcpy(&four, x + (g * kTokens + t) * 4, 4);
        half[t] = _mm512_dpbusd_epi32(half[t], _mm512_set1_epi8(1), _mm512_set1_epi32(four));
      }
      half[t] = _mm512_slli_epi32(half[t], 5);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) acc[p][t] = _mm512_sub_epi32(_mm512_setzero_si512(), half[t]);
    }
    __m512i first[kPanels][kTokens];
    unroll<8>([&](auto group) __attribute__((always_inline)) {
      constexpr int kGroup = decltype(group)::value;
      __m512i w[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) w[p] = unsigned_quants<kType, kGroup>(block + p * panel_stride);
      add_group(w, kGroup);
      if constexpr (kGroup % 4 == 3) {
#pragma GCC unroll 4
        for (int p = 0; p < kPanels; ++p) {
          const __m512i s = half_scales(block + p * panel_stride, kGroup / 4);
#pragma GCC unroll 16
          for (int t = 0; t < kTokens; ++t) {
            const __m512i scaled = _mm512_mullo_epi32(acc[p][t], s);
            if constexpr (kGroup == 3) {
              first[p][t] = scaled;
              acc[p][t] = _mm512_sub_epi32(half[t], _mm512_set1_epi32(32 * sums[t]));
            } else {
              acc[p][t] = _mm512_add_epi32(first[p][t], scaled);
            }
          }
        }
      }
    });
  } else if constexpr (kType == PanelType::kQ5K) {
    unroll<8>([&](auto group) __attribute__((always_inline)) {
      constexpr int kGroup = decltype(group)::value;
      __m512i w[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) w[p] = unsigned_quants<kType, kGroup>(block + p * panel_stride);
      add_group(w, kGroup);
    });
  } else if constexpr (kType == PanelType::kQ8_0) {
    const __m512i flip = _mm512_set1_epi8(-128);
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) {
      __m512i w[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p)
        w[p] = _mm512_xor_si512(_mm512_loadu_si512(block + p * panel_stride + 64 * g), flip);
      add_group(w, g);
    }
  } else {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      __m512i w[kPanels];
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p)
        w[p] = _mm512_and_si512(_mm512_loadu_si512(block + p * panel_stride + 64 * g), low);
      add_group(w, g);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        w[p] = _mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(block + p * panel_stride + 64 * g), 4), low);
      }
      add_group(w, g + 4);
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) dot[p][t].v = _mm512_cvtepi32_ps(acc[p][t]);
  }
}

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
