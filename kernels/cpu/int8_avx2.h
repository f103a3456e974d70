// Integer dot products of int8 inputs with quantised panels (matmul.h) by pairs of bytes. Included by matmul_int8.h only.
#pragma once

#include "kernels/cpu/matmul_tile.h"

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

constexpr TileShape kInt8Tiles[] = {{1, 1}, {2, 1}, {4, 1}};

constexpr int kInt8Parts = 2;
struct Lanes {
  __m256 v;
};
SEXTANT_INLINE Lanes same_lanes(float x) { return {_mm256_set1_ps(x)}; }
SEXTANT_INLINE Lanes mul(Lanes x, Lanes y) { return {_mm256_mul_ps(x.v, y.v)}; }
SEXTANT_INLINE Lanes fma(Lanes x, Lanes y, Lanes z) { return {_mm256_fmadd_ps(x.v, y.v, z.v)}; }
SEXTANT_INLINE void store(float* p, Lanes x) { _mm256_storeu_ps(p, x.v); }
template <int kPart>
SEXTANT_INLINE Lanes load_f16_lanes(const uint8_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p) + kPart))};
}

template <int kPart>
SEXTANT_INLINE Lanes load_u8_lanes(const uint8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8 * kPart))))};
}

SEXTANT_INLINE __m256i magnitude_bits(__m256 x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

// One block of one row of x, its lanes in column order, to int8; *e and *sum as matmul.h says.
SEXTANT_INLINE void quantize_block(F32x16 low, F32x16 high, int8_t* q, float* e, int32_t* sum) {
  // As integers the magnitudes' bits are in the order of the magnitudes, NaN above all.
  const __m256i m8 = _mm256_max_epi32(_mm256_max_epi32(magnitude_bits(low.a), magnitude_bits(low.b)),
                                      _mm256_max_epi32(magnitude_bits(high.a), magnitude_bits(high.b)));
  __m128i m4 = _mm_max_epi32(_mm256_castsi256_si128(m8), _mm256_extracti128_si256(m8, 1));
  m4 = _mm_max_epi32(m4, _mm_shuffle_epi32(m4, 0x4e));
  m4 = _mm_max_epi32(m4, _mm_shuffle_epi32(m4, 0xb1));
  const float top = _mm_cvtss_f32(_mm_castsi128_ps(m4));
  const __m256 scale = _mm256_set1_ps(top >= 0x1p-100f ? 127.0f / top : 0.0f);
  // What is not finite has no integers: its quants are 0, its e says it.
  const __m256i finite = _mm256_set1_epi32(top < __builtin_inff() ? -1 : 0);
  const auto quants = [&](__m256 x) __attribute__((always_inline)) {
    return _mm256_and_si256(_mm256_cvtps_epi32(_mm256_mul_ps(x, scale)), finite);
  };
  const __m256i a = quants(low.a), b = quants(low.b), c = quants(high.a), d = quants(high.b);
  // Both packs work within halves of 128 bits; the permutation puts the groups of four back into column order.
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm256_permutevar8x32_epi32(packed, order));
  *e = top / 127.0f;
  const __m256i s8 = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
  __m128i s4 = _mm_add_epi32(_mm256_castsi256_si128(s8), _mm256_extracti128_si256(s8, 1));
  s4 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0x4e));
  s4 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0xb1));
  *sum = _mm_cvtsi128_si32(s4);
}

// dot[0][t] = I_b of rows 8 kPart .. 8 kPart + 7 for each of kTokens tokens. x: q [8][kTokens][4]; sums: S [kTokens]. vpmaddubsw adds two products of an unsigned and a signed byte
// in 16 bits, saturating: quants 0..15 allow all eight groups of a block in one 16-bit sum (16 * 15 * 127 < 2^15), signed bytes
// two products (2 * 128 * 127 < 2^15), quants 0..31 and -32..31 four groups (8 * 31 * 127 < 8 * 32 * 127 < 2^15).
template <PanelType kType, int kPanels, int kTokens, int kPart>
__attribute__((always_inline)) inline void block_dots(const uint8_t* block, int64_t, const uint8_t* x,
                                                      const int32_t* sums, Lanes (*dot)[kTokens]) {
  static_assert(kPanels == 1);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i acc[kTokens];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t] = _mm256_setzero_si256();
  const auto input = [&](int group, int t) __attribute__((always_inline)) {
    int32_t four;
    __builtin_memcpy(&four, x + (group * kTokens + t) * 4, 4);
    return _mm256_set1_epi32(four);
  };
  const auto weights = [&](int group) __attribute__((always_inline)) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 64 * group + 32 * kPart));
  };
  if constexpr (kType == PanelType::kQ8_0) {
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) {
      const __m256i w = weights(g), magnitude = _mm256_abs_epi8(w);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(input(g, t), w));
        acc[t] = _mm256_add_epi32(acc[t], _mm256_madd_epi16(pairs, ones));
      }
    }
  } else if constexpr (has_superblocks(kType) && kType != PanelType::kQ4K) {
    // Halves of the block: groups 0..3 in low nibbles, 4..7 in high ones.
    constexpr bool kIsQ6K = kType == PanelType::kQ6K;
    unroll<2>([&](auto half) __attribute__((always_inline)) {
      constexpr int kHalf = decltype(half)::value;
      const __m256i above =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 256 + (kIsQ6K ? 64 * kHalf : 0) + 32 * kPart));
      __m256i sum[kTokens];
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) sum[t] = _mm256_setzero_si256();
      unroll<4>([&](auto g) __attribute__((always_inline)) {
        constexpr int kGroup = decltype(g)::value;
        // The bits that stand above the nibble's, brought to bit 4; what shifts carry between bytes the mask takes away.
        constexpr int kShift = kIsQ6K ? 2 * kGroup - 4 : 4 * kHalf + kGroup - 4;
        const __m256i moved = kShift < 0 ? _mm256_slli_epi16(above, kShift < 0 ? -kShift : 0)
                                         : _mm256_srli_epi16(above, kShift > 0 ? kShift : 0);
        const __m256i pair = weights(kGroup), nibbles = kHalf == 0 ? pair : _mm256_srli_epi16(pair, 4);
        __m256i w = _mm256_or_si256(_mm256_and_si256(nibbles, _mm256_set1_epi8(15)),
                                    _mm256_and_si256(moved, _mm256_set1_epi8(kIsQ6K ? 0x30 : 0x10)));
        if constexpr (kIsQ6K) w = _mm256_sub_epi8(w, _mm256_set1_epi8(32));
        const __m256i magnitude = kIsQ6K ? _mm256_abs_epi8(w) : w;
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
          const __m256i q = input(4 * kHalf + kGroup, t);
          sum[t] = _mm256_add_epi16(sum[t], _mm256_maddubs_epi16(magnitude, kIsQ6K ? _mm256_sign_epi8(q, w) : q));
        }
      });
      __m256i scale = ones;
      if constexpr (kIsQ6K) {
        const auto* s = reinterpret_cast<const __m128i*>(block + 384 + 16 * kHalf + 8 * kPart);
        scale = _mm256_cvtepi8_epi32(_mm_loadl_epi64(s));
        scale = _mm256_blend_epi16(scale, _mm256_slli_epi32(scale, 16), 0xaa);  // of both sums of a row
      }
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) acc[t] = _mm256_add_epi32(acc[t], _mm256_madd_epi16(sum[t], scale));
    });
  } else {
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      const __m256i pair = weights(g), w0 = _mm256_and_si256(pair, low),
                    w1 = _mm256_and_si256(_mm256_srli_epi16(pair, 4), low);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const __m256i sum =
            _mm256_add_epi16(_mm256_maddubs_epi16(w0, input(g, t)), _mm256_maddubs_epi16(w1, input(g + 4, t)));
        acc[t] = _mm256_add_epi16(acc[t], sum);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      acc[t] = _mm256_madd_epi16(acc[t], ones);
      if (kType == PanelType::kQ4_0) acc[t] = _mm256_sub_epi32(acc[t], _mm256_set1_epi32(8 * sums[t]));
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) dot[0][t].v = _mm256_cvtepi32_ps(acc[t]);
}

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
