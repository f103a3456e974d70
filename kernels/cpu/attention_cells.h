// The inner loops of attention.cpp for each type of cache. Included by it only.
#pragma once

#include "kernels/attention.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/simd_math.h"

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

constexpr float kLog2e = 0x1.715476p0f;
constexpr int kChunk = 8;  // elements of q between two address computations; head_dim is a multiple

// How queries, keys, weights and values meet, for a type of cache. All have
//   Weight                     what exp(s - m) is kept as
//   kPair                      slots that stand side by side
//   kWeightStep                scores that add_weights takes at once
//   pack_query                 a row of q into its place of [head_dim / chunk][rows][chunk]
//   add_scores<kRows, kTiles>  sums of kRows rows with the 16 keys of each of kTiles tiles
//   add_weights                stores 2^(score log2 e + offset) and adds it to 16 sums
//   add_values<kRows, kVecs>   o[r][16 v ...] += sum over `count` slots from `place` on of p[r][.] * values, in order
struct Fp32Cells {
  using Element = float;
  static constexpr KvType kType = KvType::kFp32;
  using Weight = float;
  static constexpr int kPair = 1, kWeightStep = kKvTile;

  SEXTANT_INLINE void pack_query(const float* q, int32_t head_dim, int32_t rows, int32_t row, float* out) {
    for (int32_t d = 0; d < head_dim; d += kChunk)
      __builtin_memcpy(out + d * rows + row * kChunk, q + d, kChunk * sizeof(float));
  }
  template <int kRows, int kTiles>
  SEXTANT_INLINE void add_scores(const float* q, const float* const* keys, int32_t head_dim, F32x16 (*sum)[kRows]) {
    for (int32_t d = 0; d < head_dim; d += kChunk) {
#pragma GCC unroll 16
      for (int i = 0; i < kChunk; ++i) {
        F32x16 k[kTiles];
#pragma GCC unroll 4
        for (int n = 0; n < kTiles; ++n) k[n] = load(keys[n] + (d + i) * kKvTile);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const F32x16 same = broadcast(q[r * kChunk + i]);
#pragma GCC unroll 4
          for (int n = 0; n < kTiles; ++n) sum[n][r] = fma(k[n], same, sum[n][r]);
        }
      }
      q += kRows * kChunk;
    }
  }
  SEXTANT_INLINE F32x16 add_weights(const float* scores, F32x16 offset, float* to, F32x16 sum) {
    const F32x16 p = exp2_of_negative(fma(load(scores), broadcast(kLog2e), offset));
    store(to, p);
    return add(sum, p);
  }
  template <int kRows, int kVectors>
  SEXTANT_INLINE void add_values(const float* values, int64_t value_dim, const float* p, int32_t, int32_t count,
                                 F32x16 (*sum)[kVectors]) {
    for (int32_t j = 0; j < count; ++j) {
      F32x16 value[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) value[v] = load(values + j * value_dim + v * 16);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const F32x16 weight = broadcast(p[r * kAttentionSplit + j]);
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) sum[r][v] = fma(weight, value[v], sum[r][v]);
      }
    }
  }
};

#if SEXTANT_ISA_LEVEL == 3
struct Bf16Cells {
  using Element = uint16_t;
  static constexpr KvType kType = KvType::kBf16;
  using Weight = uint16_t;
  static constexpr int kPair = 2, kWeightStep = 2 * kKvTile;

  SEXTANT_INLINE __m512bh pairs(__m512i bits) { return (__m512bh)bits; }
  SEXTANT_INLINE __m512i repeat(const void* pair) {
    int32_t bits;
    __builtin_memcpy(&bits, pair, 4);
    return _mm512_set1_epi32(bits);
  }

  // [rows][head_dim / 2] pairs of bf16: rows as they are, so that none is taken apart.
  SEXTANT_INLINE void pack_query(const float* q, int32_t head_dim, int32_t, int32_t row, float* out) {
    float* to = out + int64_t{row} * (head_dim / 2);
    for (int32_t d = 0; d < head_dim; d += 8)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + d / 2), (__m128i)_mm256_cvtneps_pbh(_mm256_loadu_ps(q + d)));
  }
  template <int kRows, int kTiles>
  SEXTANT_INLINE void add_scores(const float* q, const uint16_t* const* keys, int32_t head_dim, F32x16 (*sum)[kRows]) {
    const int64_t stride = head_dim / 2;
    for (int32_t d = 0; d < head_dim; d += 8) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        __m512bh k[kTiles];
#pragma GCC unroll 4
        for (int n = 0; n < kTiles; ++n) k[n] = pairs(_mm512_loadu_si512(keys[n] + (d + 2 * i) * kKvTile));
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const __m512bh same = pairs(repeat(q + r * stride + i));
#pragma GCC unroll 4
          for (int n = 0; n < kTiles; ++n) sum[n][r].v = _mm512_dpbf16_ps(sum[n][r].v, k[n], same);
        }
      }
      q += 4;
    }
  }
  // 2^x for x <= 0 (or what rounding made of 0) within 2^-18 of itself: 0 for -inf, NaN stays NaN. A polynomial of degree 4 on what is
  // above the integer below.
  SEXTANT_INLINE __m512 exp2_to_round(__m512 x) {
    const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(0x1.bb7cd4p-7f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.aa13f0p-5f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ee798ap-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62d166p-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.00002cp0f));
    return _mm512_scalef_ps(p, x);
  }
  SEXTANT_INLINE F32x16 add_weights(const float* scores, F32x16 offset, uint16_t* to, F32x16 sum) {
    const __m512 log2e = _mm512_set1_ps(kLog2e);
    const __m512 low = exp2_to_round(_mm512_fmadd_ps(_mm512_loadu_ps(scores), log2e, offset.v));
    const __m512 high = exp2_to_round(_mm512_fmadd_ps(_mm512_loadu_ps(scores + kKvTile), log2e, offset.v));
    const __m512bh rounded = _mm512_cvtne2ps_pbh(high, low);
    _mm512_storeu_si512(to, (__m512i)rounded);
    return {_mm512_dpbf16_ps(sum.v, rounded, pairs(_mm512_set1_epi32(0x3f803f80)))};  // times pairs of 1.0
  }
  // kKept: the halves of each pair that count.
  template <int kRows, int kVectors, uint32_t kKept>
  SEXTANT_INLINE void add_pair(const uint16_t* values, const uint16_t* p, F32x16 (*sum)[kVectors]) {
    const __m512i kept = _mm512_set1_epi32(static_cast<int>(kKept));
    __m512i value[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      value[v] = _mm512_loadu_si512(values + v * 32);
      if (kKept != 0xffffffffu) value[v] = _mm512_and_si512(value[v], kept);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      __m512i weight = repeat(p + r * kAttentionSplit);
      if (kKept != 0xffffffffu) weight = _mm512_and_si512(weight, kept);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[r][v].v = _mm512_dpbf16_ps(sum[r][v].v, pairs(value[v]), pairs(weight));
    }
  }
  template <int kRows, int kVectors>
  SEXTANT_INLINE void add_values(const uint16_t* values, int64_t value_dim, const uint16_t* p, int32_t place,
                                 int32_t count, F32x16 (*sum)[kVectors]) {
    int32_t j = 0;
    if (place % 2 != 0) {
      add_pair<kRows, kVectors, 0xffff0000u>(values, p - 1, sum);
      values += 2 * value_dim;
      j = 1;
    }
    for (; j + 2 <= count; j += 2, values += 2 * value_dim) add_pair<kRows, kVectors, 0xffffffffu>(values, p + j, sum);
    if (j < count) add_pair<kRows, kVectors, 0xffffu>(values, p + j, sum);
  }
};
#else
struct Bf16Cells {
  using Element = uint16_t;
  static constexpr KvType kType = KvType::kBf16;
  using Weight = float;
  static constexpr int kPair = 2, kWeightStep = kKvTile;

  SEXTANT_INLINE void pack_query(const float* q, int32_t head_dim, int32_t rows, int32_t row, float* out) {
    Fp32Cells::pack_query(q, head_dim, rows, row, out);
  }
  template <int kRows, int kTiles>
  SEXTANT_INLINE void add_scores(const float* q, const uint16_t* const* keys, int32_t head_dim, F32x16 (*sum)[kRows]) {
    for (int32_t d = 0; d < head_dim; d += kChunk) {
#pragma GCC unroll 16
      for (int i = 0; i < kChunk; i += 2) {
        F32x16 k[2][kTiles];
#pragma GCC unroll 4
        for (int n = 0; n < kTiles; ++n) load_bf16_pairs(keys[n] + (d + i) * kKvTile, &k[0][n], &k[1][n]);
#pragma GCC unroll 2
        for (int e = 0; e < 2; ++e) {
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) {
            const F32x16 same = broadcast(q[r * kChunk + i + e]);
#pragma GCC unroll 4
            for (int n = 0; n < kTiles; ++n) sum[n][r] = fma(k[e][n], same, sum[n][r]);
          }
        }
      }
      q += kRows * kChunk;
    }
  }
  SEXTANT_INLINE F32x16 add_weights(const float* scores, F32x16 offset, float* to, F32x16 sum) {
    return Fp32Cells::add_weights(scores, offset, to, sum);
  }
  template <int kRows, int kVectors, bool kEven, bool kOdd>
  SEXTANT_INLINE void add_pair(const uint16_t* values, const float* p, F32x16 (*sum)[kVectors]) {
    F32x16 value[2][kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) load_bf16_pairs(values + v * 32, &value[0][v], &value[1][v]);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      if (kEven) {
        const F32x16 weight = broadcast(p[r * kAttentionSplit]);
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) sum[r][v] = fma(weight, value[0][v], sum[r][v]);
      }
      if (kOdd) {
        const F32x16 weight = broadcast(p[r * kAttentionSplit + 1]);
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) sum[r][v] = fma(weight, value[1][v], sum[r][v]);
      }
    }
  }
  template <int kRows, int kVectors>
  SEXTANT_INLINE void add_values(const uint16_t* values, int64_t value_dim, const float* p, int32_t place,
                                 int32_t count, F32x16 (*sum)[kVectors]) {
    int32_t j = 0;
    if (place % 2 != 0) {
      add_pair<kRows, kVectors, false, true>(values, p - 1, sum);
      values += 2 * value_dim;
      j = 1;
    }
    for (; j + 2 <= count; j += 2, values += 2 * value_dim) add_pair<kRows, kVectors, true, true>(values, p + j, sum);
    if (j < count) add_pair<kRows, kVectors, true, false>(values, p + j, sum);
  }
};
#endif

// Integers and their scales; attention.cpp turns the integers of a split into bf16 cells, which is exact.
struct Int8Cells : Bf16Cells {
  static constexpr KvType kType = KvType::kInt8;

  // n: a multiple of 32.
  SEXTANT_INLINE void widen(const int8_t* from, int64_t n, uint16_t* to) {
    for (int64_t i = 0; i < n; i += 32) {
#if SEXTANT_ISA_LEVEL == 3
      const __m512bh both = _mm512_cvtne2ps_pbh(load_int8(from + i + 16).v, load_int8(from + i).v);
      _mm512_storeu_si512(to + i, (__m512i)both);
#else
      store_bf16(to + i, load_int8(from + i));
      store_bf16(to + i + 16, load_int8(from + i + 16));
#endif
    }
  }
#if SEXTANT_ISA_LEVEL == 3
  SEXTANT_INLINE F32x16 add_weights(const float* scores, const float* value_scales, F32x16 offset, uint16_t* to,
                                    F32x16 sum) {
    const F32x16 log2e = broadcast(kLog2e);
    const F32x16 low = {exp2_to_round(fma(load(scores), log2e, offset).v)};
    const F32x16 high = {exp2_to_round(fma(load(scores + kKvTile), log2e, offset).v)};
    const __m512 low_weight = mul(low, load(value_scales)).v, high_weight = mul(high, load(value_scales + kKvTile)).v;
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high_weight, low_weight));
    return add(add(sum, low), high);
  }
#else
  SEXTANT_INLINE F32x16 add_weights(const float* scores, const float* value_scales, F32x16 offset, float* to,
                                    F32x16 sum) {
    const F32x16 p = exp2_of_negative(fma(load(scores), broadcast(kLog2e), offset));
    store(to, mul(p, load(value_scales)));
    return add(sum, p);
  }
#endif
};

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
