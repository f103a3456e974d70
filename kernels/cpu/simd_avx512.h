// F32x16 as one zmm register. Needs avx512f, bw, vl, dq. Included by simd.h only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#if defined(SEXTANT_AVX512_SHADOW)
#include "kernels/cpu/avx512_shadow.h"
#endif

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

struct F32x16 {
  __m512 v;
};
struct Mask16 {
  __mmask16 m;
};

SEXTANT_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }

SEXTANT_INLINE F32x16 zero() { return {_mm512_setzero_ps()}; }
SEXTANT_INLINE F32x16 broadcast(float x) { return {_mm512_set1_ps(x)}; }
SEXTANT_INLINE F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
SEXTANT_INLINE void store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }
// The first n lanes (0 <= n <= 16); the others read as 0 and are not written.
SEXTANT_INLINE F32x16 load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
SEXTANT_INLINE void store_n(float* p, F32x16 a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }

SEXTANT_INLINE F32x16 add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
SEXTANT_INLINE F32x16 sub(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
SEXTANT_INLINE F32x16 mul(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
SEXTANT_INLINE F32x16 div(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
// a * b + c; rounded once where the instruction set has it.
SEXTANT_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// The second operand when either is NaN.
SEXTANT_INLINE F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
SEXTANT_INLINE F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
SEXTANT_INLINE F32x16 abs(F32x16 a) { return {_mm512_abs_ps(a.v)}; }
SEXTANT_INLINE F32x16 negate(F32x16 a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
// |a| with the sign of b.
SEXTANT_INLINE F32x16 copy_sign(F32x16 a, F32x16 b) {
  const __m512 sign = _mm512_set1_ps(-0.0f);
  return {_mm512_or_ps(_mm512_andnot_ps(sign, a.v), _mm512_and_ps(sign, b.v))};
}

SEXTANT_INLINE Mask16 less(F32x16 a, F32x16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
// Lanes begin <= lane < end.
SEXTANT_INLINE Mask16 lanes(int begin, int end) {
  return {static_cast<__mmask16>(first_lanes(end) & ~first_lanes(begin))};
}
SEXTANT_INLINE F32x16 select(Mask16 m, F32x16 a, F32x16 b) { return {_mm512_mask_blend_ps(m.m, b.v, a.v)}; }

// Both add and compare lanes i with i+8, then i+4, i+2, i+1.
SEXTANT_INLINE float reduce_add(F32x16 a) {
  __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
SEXTANT_INLINE float reduce_max(F32x16 a) {
  __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

// round(a * scale) to the nearest integer for |a * scale| < 2^21, as a float, and 2 to that power (for -126..127).
SEXTANT_INLINE F32x16 round_scaled(F32x16 a, F32x16 scale, F32x16* pow2) {
  const __m512 magic = _mm512_set1_ps(12582912.0f);  // 1.5 * 2^23: the sum's low mantissa bits are the integer
  const __m512 sum = _mm512_fmadd_ps(a.v, scale.v, magic);
  const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(sum), 23);
  pow2->v = _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(0x3f800000)));
  return {_mm512_sub_ps(sum, magic)};
}

SEXTANT_INLINE F32x16 load_f16(const void* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
SEXTANT_INLINE F32x16 load_int8(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
SEXTANT_INLINE F32x16 load_bf16(const void* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
// Round to nearest even; NaN becomes a quiet NaN.
SEXTANT_INLINE void store_bf16(uint16_t* p, F32x16 a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i out = _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(out));
}

// Even and odd elements of 32.
SEXTANT_INLINE void load_bf16_pairs(const uint16_t* p, F32x16* even, F32x16* odd) {
  const __m512i pairs = _mm512_loadu_si512(p);
  even->v = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  odd->v = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

SEXTANT_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
