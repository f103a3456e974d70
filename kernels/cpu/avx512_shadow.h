// The AVX-512 instructions that this folder uses in plain C++, under the names of <immintrin.h>: the op tests compile the sources of
// avx512, avx512_bf16 and amx against this where the CPU at hand lacks them. Numbers are those of the instructions, bit for bit;
// the speed is nobody's.
// Included by simd_avx512.h behind <immintrin.h>, with SEXTANT_AVX512_SHADOW. Needs avx2, fma, f16c.
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2; VDPBF16PS there for its roundings.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {
namespace shadow {

typedef int8_t I8 __attribute__((vector_size(64)));
typedef uint8_t U8 __attribute__((vector_size(64)));
typedef int16_t I16 __attribute__((vector_size(64)));
typedef uint16_t U16 __attribute__((vector_size(64)));
typedef int32_t I32 __attribute__((vector_size(64)));
typedef uint32_t U32 __attribute__((vector_size(64)));
typedef int64_t I64 __attribute__((vector_size(64)));

// Calls, so that unrolled loops of them compile in seconds. Vectors go by reference: by value they would need registers that the target lacks.
#define SEXTANT_SHADOW static __attribute__((noinline, unused))
using F = const __m512&;
using I = const __m512i&;

template <typename To, typename Body>
SEXTANT_INLINE To each(int count, Body&& body) {
  To out{};
  for (int i = 0; i < count; ++i) out[i] = body(i);
  return out;
}
template <typename From>
SEXTANT_INLINE From read(const void* p) {
  From out;
  __builtin_memcpy(&out, p, sizeof(out));
  return out;
}
template <typename T>
SEXTANT_INLINE T clamp(T x, T low, T high) {
  return x < low ? low : x > high ? high : x;
}

// --- memory, constants, casts ----------------------------------------------------------------------------------------
SEXTANT_SHADOW __m512 set1_ps(float x) {
  return each<__m512>(16, [&](int) { return x; });
}
SEXTANT_SHADOW __m512i set1_epi32(int32_t x) {
  return (__m512i)each<I32>(16, [&](int) { return x; });
}
SEXTANT_SHADOW __m512i set1_epi8(int x) {
  return (__m512i)each<I8>(64, [&](int) { return static_cast<int8_t>(x); });
}
template <typename... Lanes>
SEXTANT_SHADOW __m512i set_epi16(Lanes... lanes) {  // the last lane first
  const int all[] = {lanes...};
  return (__m512i)each<I16>(32, [&](int i) { return static_cast<int16_t>(all[31 - i]); });
}
SEXTANT_SHADOW __m512 loadu_ps(const void* p) { return read<__m512>(p); }
SEXTANT_SHADOW __m512i loadu_si512(const void* p) { return read<__m512i>(p); }
SEXTANT_SHADOW void storeu_ps(void* p, F a) { __builtin_memcpy(p, &a, 64); }
SEXTANT_SHADOW void storeu_si512(void* p, I a) { __builtin_memcpy(p, &a, 64); }
SEXTANT_SHADOW __m512 maskz_loadu_ps(__mmask16 m, const float* p) {
  return each<__m512>(16, [&](int i) { return (m >> i & 1) != 0 ? p[i] : 0.0f; });
}
SEXTANT_SHADOW __m512i maskz_loadu_epi32(__mmask16 m, const void* p) {
  const auto* bytes = static_cast<const uint8_t*>(p);
  return (__m512i)each<I32>(16, [&](int i) { return (m >> i & 1) != 0 ? read<int32_t>(bytes + 4 * i) : 0; });
}
SEXTANT_SHADOW void mask_storeu_words(void* p, __mmask16 m, const U32& a) {
  for (int i = 0; i < 16; ++i) {
    const uint32_t word = a[i];
    if ((m >> i & 1) != 0) __builtin_memcpy(static_cast<uint8_t*>(p) + 4 * i, &word, 4);
  }
}
SEXTANT_SHADOW void mask_storeu_ps(void* p, __mmask16 m, F a) { mask_storeu_words(p, m, (U32)a); }
SEXTANT_SHADOW void mask_storeu_epi32(void* p, __mmask16 m, I a) { mask_storeu_words(p, m, (U32)a); }
SEXTANT_SHADOW __m512i castps_si512(F a) { return (__m512i)a; }
SEXTANT_SHADOW __m512 castsi512_ps(I a) { return (__m512)a; }
SEXTANT_SHADOW __m256 extractf32x8_ps(F a, int which) {
  return read<__m256>(reinterpret_cast<const uint8_t*>(&a) + 32 * which);
}
SEXTANT_SHADOW __m256 castps512_ps256(F a) { return extractf32x8_ps(a, 0); }
SEXTANT_SHADOW __m128i extracti32x4_epi32(I a, int which) {
  return read<__m128i>(reinterpret_cast<const uint8_t*>(&a) + 16 * which);
}

// --- fp32 ------------------------------------------------------------------------------------------------------------
SEXTANT_SHADOW __m512 add_ps(F a, F b) { return a + b; }
SEXTANT_SHADOW __m512 sub_ps(F a, F b) { return a - b; }
SEXTANT_SHADOW __m512 mul_ps(F a, F b) { return a * b; }
SEXTANT_SHADOW __m512 div_ps(F a, F b) { return a / b; }
SEXTANT_SHADOW __m512 maskz_div_ps(__mmask16 m, F a, F b) {
  return each<__m512>(16, [&](int i) { return (m >> i & 1) != 0 ? a[i] / b[i] : 0.0f; });
}
SEXTANT_SHADOW __m512 fmadd_ps(F a, F b, F c) {
  return each<__m512>(16, [&](int i) { return __builtin_fmaf(a[i], b[i], c[i]); });
}
SEXTANT_SHADOW __m512 max_ps(F a, F b) {
  return each<__m512>(16, [&](int i) { return a[i] > b[i] ? a[i] : b[i]; });
}
SEXTANT_SHADOW __m512 min_ps(F a, F b) {
  return each<__m512>(16, [&](int i) { return a[i] < b[i] ? a[i] : b[i]; });
}
SEXTANT_SHADOW __m512 and_ps(F a, F b) { return (__m512)((I64)a & (I64)b); }
SEXTANT_SHADOW __m512 andnot_ps(F a, F b) { return (__m512)(~(I64)a & (I64)b); }
SEXTANT_SHADOW __m512 or_ps(F a, F b) { return (__m512)((I64)a | (I64)b); }
SEXTANT_SHADOW __m512 xor_ps(F a, F b) { return (__m512)((I64)a ^ (I64)b); }
SEXTANT_SHADOW __m512 abs_ps(F a) { return (__m512)((U32)a & 0x7fffffffu); }
SEXTANT_SHADOW __mmask16 cmp_ps_mask(F a, F b, int how) {
  int mask = 0;
  for (int i = 0; i < 16; ++i) {
    const bool is = how == _CMP_LT_OQ   ? a[i] < b[i]
                    : how == _CMP_GE_OQ ? a[i] >= b[i]
                                        : __builtin_isunordered(a[i], b[i]);  // _CMP_UNORD_Q
    mask |= (is ? 1 : 0) << i;
  }
  return static_cast<__mmask16>(mask);
}
SEXTANT_SHADOW __m512 mask_blend_ps(__mmask16 m, F a, F b) {
  return each<__m512>(16, [&](int i) { return (m >> i & 1) != 0 ? b[i] : a[i]; });
}
// x less the integer below it; with _MM_FROUND_TO_NEG_INF alone. 0 for infinities.
SEXTANT_SHADOW __m512 reduce_ps(F a, int) {
  return each<__m512>(16, [&](int i) { return __builtin_isinf(a[i]) ? 0.0f : a[i] - __builtin_floorf(a[i]); });
}
// a 2^floor(b), rounded once.
SEXTANT_SHADOW __m512 scalef_ps(F a, F b) {
  return each<__m512>(16, [&](int i) {
    const float power = __builtin_floorf(b[i]);
    if (power != power) return power;
    const double size = __builtin_ldexp(static_cast<double>(a[i]), static_cast<int>(clamp(power, -1000.0f, 1000.0f)));
    return static_cast<float>(size);
  });
}

// --- integers --------------------------------------------------------------------------------------------------------
SEXTANT_SHADOW __m512i and_si512(I a, I b) { return (__m512i)((I64)a & (I64)b); }
SEXTANT_SHADOW __m512i or_si512(I a, I b) { return (__m512i)((I64)a | (I64)b); }
SEXTANT_SHADOW __m512i xor_si512(I a, I b) { return (__m512i)((I64)a ^ (I64)b); }
SEXTANT_SHADOW __m512i add_epi32(I a, I b) { return (__m512i)((U32)a + (U32)b); }
SEXTANT_SHADOW __m512i sub_epi32(I a, I b) { return (__m512i)((U32)a - (U32)b); }
SEXTANT_SHADOW __m512i sub_epi8(I a, I b) { return (__m512i)((U8)a - (U8)b); }
SEXTANT_SHADOW __m512i mullo_epi32(I a, I b) { return (__m512i)((U32)a * (U32)b); }
SEXTANT_SHADOW __m512i max_epu32(I a, I b) {
  const U32 x = (U32)a, y = (U32)b;
  return (__m512i)each<U32>(16, [&](int i) { return x[i] > y[i] ? x[i] : y[i]; });
}
SEXTANT_SHADOW __m512i slli_epi32(I a, int n) { return (__m512i)((U32)a << n); }
SEXTANT_SHADOW __m512i srli_epi32(I a, int n) { return (__m512i)((U32)a >> n); }
SEXTANT_SHADOW __m512i slli_epi16(I a, int n) { return (__m512i)((U16)a << n); }
SEXTANT_SHADOW __m512i srli_epi16(I a, int n) { return (__m512i)((U16)a >> n); }
SEXTANT_SHADOW __m512i mask_blend_epi32(__mmask16 m, I a, I b) {
  const U32 x = (U32)a, y = (U32)b;
  return (__m512i)each<U32>(16, [&](int i) { return (m >> i & 1) != 0 ? y[i] : x[i]; });
}
SEXTANT_SHADOW uint32_t reduce_max_epu32(I a) {
  uint32_t largest = 0;
  for (int i = 0; i < 16; ++i) largest = ((U32)a)[i] > largest ? ((U32)a)[i] : largest;
  return largest;
}
SEXTANT_SHADOW int32_t reduce_add_epi32(I a) {
  uint32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += ((U32)a)[i];
  return static_cast<int32_t>(sum);
}
// Four products of an unsigned byte of a and a signed one of b, added to 32 bits.
SEXTANT_SHADOW __m512i dpbusd_epi32(I sum, I a, I b) {
  const U8 x = (U8)a;
  const I8 y = (I8)b;
  U32 out = (U32)sum;
  for (int i = 0; i < 64; ++i) out[i / 4] += static_cast<uint32_t>(int{x[i]} * int{y[i]});
  return (__m512i)out;
}

// --- conversions -----------------------------------------------------------------------------------------------------
// Round to nearest even; what no int32 holds is the least one.
SEXTANT_INLINE int32_t int_of(float x) {
  if (!(x >= -0x1p31f && x < 0x1p31f)) return INT32_MIN;
  return static_cast<int32_t>(__builtin_rintf(x));
}
SEXTANT_SHADOW __m512i cvtps_epi32(F a) {
  return (__m512i)each<I32>(16, [&](int i) { return int_of(a[i]); });
}
SEXTANT_SHADOW __m512i maskz_cvtps_epi32(__mmask16 m, F a) {
  return (__m512i)each<I32>(16, [&](int i) { return (m >> i & 1) != 0 ? int_of(a[i]) : 0; });
}
SEXTANT_SHADOW __m512 cvtepi32_ps(I a) { return __builtin_convertvector((I32)a, __m512); }
SEXTANT_SHADOW __m512i cvtepi8_epi32(const __m128i& a) {
  return (__m512i)each<I32>(16, [&](int i) { return read<int8_t>(reinterpret_cast<const uint8_t*>(&a) + i); });
}
SEXTANT_SHADOW __m512i cvtepu8_epi32(const __m128i& a) {
  return (__m512i)each<I32>(16, [&](int i) { return read<uint8_t>(reinterpret_cast<const uint8_t*>(&a) + i); });
}
SEXTANT_SHADOW __m512i cvtepu16_epi32(const __m256i& a) {
  return (__m512i)each<I32>(16, [&](int i) { return read<uint16_t>(reinterpret_cast<const uint8_t*>(&a) + 2 * i); });
}
SEXTANT_SHADOW __m256i cvtepi32_epi16(I a) {
  uint16_t out[16];
  for (int i = 0; i < 16; ++i) out[i] = static_cast<uint16_t>(((U32)a)[i]);
  return read<__m256i>(out);
}
SEXTANT_SHADOW __m128i cvtsepi32_epi8(I a) {
  int8_t out[16];
  for (int i = 0; i < 16; ++i) out[i] = static_cast<int8_t>(clamp<int32_t>(((I32)a)[i], -128, 127));
  return read<__m128i>(out);
}
SEXTANT_SHADOW __m512 cvtph_ps(const __m256i& a) {
  float out[16];
  for (int h = 0; h < 2; ++h) {
    const auto eight = read<__m128i>(reinterpret_cast<const uint8_t*>(&a) + 16 * h);
    _mm256_storeu_ps(out + 8 * h, _mm256_cvtph_ps(eight));
  }
  return read<__m512>(out);
}

// --- moves of lanes, most within each quarter of 128 bits ------------------------------------------------------------
SEXTANT_SHADOW __m512i packs_epi32(I a, I b) {
  const I32 x = (I32)a, y = (I32)b;
  return (__m512i)each<I16>(32, [&](int i) {
    const int lane = i / 8 * 4 + i % 4;
    return static_cast<int16_t>(clamp<int32_t>(i % 8 < 4 ? x[lane] : y[lane], -32768, 32767));
  });
}
SEXTANT_SHADOW __m512i packs_epi16(I a, I b) {
  const I16 x = (I16)a, y = (I16)b;
  return (__m512i)each<I8>(64, [&](int i) {
    const int lane = i / 16 * 8 + i % 8;
    return static_cast<int8_t>(clamp<int>(i % 16 < 8 ? x[lane] : y[lane], -128, 127));
  });
}
SEXTANT_SHADOW __m512i unpack_epi32(I a, I b, int first) {
  const U32 x = (U32)a, y = (U32)b;
  return (__m512i)each<U32>(16, [&](int i) {
    const int lane = i / 4 * 4 + first + i % 4 / 2;
    return i % 2 == 0 ? x[lane] : y[lane];
  });
}
SEXTANT_SHADOW __m512i unpacklo_epi32(I a, I b) { return unpack_epi32(a, b, 0); }
SEXTANT_SHADOW __m512i unpackhi_epi32(I a, I b) { return unpack_epi32(a, b, 2); }
SEXTANT_SHADOW __m512i unpack_epi64(I a, I b, int which) {
  const I64 x = (I64)a, y = (I64)b;
  return (__m512i)each<I64>(8, [&](int i) { return i % 2 == 0 ? x[i + which] : y[i - 1 + which]; });
}
SEXTANT_SHADOW __m512i unpacklo_epi64(I a, I b) { return unpack_epi64(a, b, 0); }
SEXTANT_SHADOW __m512i unpackhi_epi64(I a, I b) { return unpack_epi64(a, b, 1); }
SEXTANT_SHADOW __m512i shuffle_epi32(I a, int order) {
  const U32 x = (U32)a;
  return (__m512i)each<U32>(16, [&](int i) { return x[i / 4 * 4 + (order >> (i % 4 * 2) & 3)]; });
}
SEXTANT_SHADOW __m512i shuffle_i32x4(I a, I b, int order) {
  const I64 x = (I64)a, y = (I64)b;
  return (__m512i)each<I64>(8, [&](int i) {
    const int lane = (order >> (i / 2 * 2) & 3) * 2 + i % 2;
    return i < 4 ? x[lane] : y[lane];
  });
}
SEXTANT_SHADOW __m512i permutexvar_epi16(I order, I a) {
  const U16 x = (U16)a, from = (U16)order;
  return (__m512i)each<U16>(32, [&](int i) { return x[from[i] & 31]; });
}

// --- bf16: numbers below 2^-126 count as 0, going in and coming out -----------------------------------------------------
SEXTANT_INLINE float flushed(float x) { return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0.0f, x) : x; }
SEXTANT_INLINE uint16_t bf16_of(float given) {
  const float x = flushed(given);
  const auto bits = __builtin_bit_cast(uint32_t, x);
  if (x != x) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
SEXTANT_INLINE float of_bf16(uint32_t bits) { return flushed(__builtin_bit_cast(float, bits << 16)); }
SEXTANT_SHADOW __m256i cvtneps_pbh(F a) {
  uint16_t out[16];
  for (int i = 0; i < 16; ++i) out[i] = bf16_of(a[i]);
  return read<__m256i>(out);
}
SEXTANT_SHADOW __m128i cvtneps_pbh(const __m256& a) {
  uint16_t out[8];
  for (int i = 0; i < 8; ++i) out[i] = bf16_of(a[i]);
  return read<__m128i>(out);
}
SEXTANT_SHADOW __m512bh cvtne2ps_pbh(F high, F low) {
  return (__m512bh)each<U16>(32, [&](int i) { return bf16_of(i < 16 ? low[i] : high[i - 16]); });
}
template <typename Pairs>
SEXTANT_SHADOW __m512 dpbf16_ps(F sum, const Pairs& a, const Pairs& b) {
  const U32 x = (U32)a, y = (U32)b;
  return each<__m512>(16, [&](int i) {
    const float odd = flushed(__builtin_fmaf(of_bf16(x[i] >> 16), of_bf16(y[i] >> 16), flushed(sum[i])));
    return flushed(__builtin_fmaf(of_bf16(x[i] & 0xffffu), of_bf16(y[i] & 0xffffu), odd));
  });
}

}  // namespace shadow
}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA

// clang-format off
#undef _mm256_cvtneps_pbh
#undef _mm512_abs_ps
#undef _mm512_add_epi32
#undef _mm512_add_ps
#undef _mm512_and_ps
#undef _mm512_and_si512
#undef _mm512_andnot_ps
#undef _mm512_castps512_ps256
#undef _mm512_castps_si512
#undef _mm512_castsi512_ps
#undef _mm512_cmp_ps_mask
#undef _mm512_cvtepi32_epi16
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtepi8_epi32
#undef _mm512_cvtepu16_epi32
#undef _mm512_cvtepu8_epi32
#undef _mm512_cvtne2ps_pbh
#undef _mm512_cvtneps_pbh
#undef _mm512_cvtph_ps
#undef _mm512_cvtps_epi32
#undef _mm512_cvtsepi32_epi8
#undef _mm512_div_ps
#undef _mm512_dpbf16_ps
#undef _mm512_dpbusd_epi32
#undef _mm512_extractf32x8_ps
#undef _mm512_extracti32x4_epi32
#undef _mm512_fmadd_ps
#undef _mm512_load_si512
#undef _mm512_loadu_ps
#undef _mm512_loadu_si512
#undef _mm512_mask_blend_epi32
#undef _mm512_mask_blend_ps
#undef _mm512_mask_storeu_epi32
#undef _mm512_mask_storeu_ps
#undef _mm512_maskz_cvtps_epi32
#undef _mm512_maskz_div_ps
#undef _mm512_maskz_loadu_epi32
#undef _mm512_maskz_loadu_ps
#undef _mm512_max_epu32
#undef _mm512_max_ps
#undef _mm512_min_ps
#undef _mm512_mul_ps
#undef _mm512_mullo_epi32
#undef _mm512_or_ps
#undef _mm512_or_si512
#undef _mm512_packs_epi16
#undef _mm512_packs_epi32
#undef _mm512_permutexvar_epi16
#undef _mm512_reduce_add_epi32
#undef _mm512_reduce_max_epu32
#undef _mm512_reduce_ps
#undef _mm512_scalef_ps
#undef _mm512_set1_epi32
#undef _mm512_set1_epi8
#undef _mm512_set1_ps
#undef _mm512_set_epi16
#undef _mm512_setzero_ps
#undef _mm512_setzero_si512
#undef _mm512_shuffle_epi32
#undef _mm512_shuffle_i32x4
#undef _mm512_slli_epi16
#undef _mm512_slli_epi32
#undef _mm512_srli_epi16
#undef _mm512_srli_epi32
#undef _mm512_store_si512
#undef _mm512_storeu_ps
#undef _mm512_storeu_si512
#undef _mm512_sub_epi32
#undef _mm512_sub_epi8
#undef _mm512_sub_ps
#undef _mm512_unpackhi_epi32
#undef _mm512_unpackhi_epi64
#undef _mm512_unpacklo_epi32
#undef _mm512_unpacklo_epi64
#undef _mm512_xor_ps
#undef _mm512_xor_si512
#define _mm512_abs_ps(...) shadow::abs_ps(__VA_ARGS__)
#define _mm512_add_epi32(...) shadow::add_epi32(__VA_ARGS__)
#define _mm512_add_ps(...) shadow::add_ps(__VA_ARGS__)
#define _mm512_and_ps(...) shadow::and_ps(__VA_ARGS__)
#define _mm512_and_si512(...) shadow::and_si512(__VA_ARGS__)
#define _mm512_andnot_ps(...) shadow::andnot_ps(__VA_ARGS__)
#define _mm512_castps512_ps256(...) shadow::castps512_ps256(__VA_ARGS__)
#define _mm512_castps_si512(...) shadow::castps_si512(__VA_ARGS__)
#define _mm512_castsi512_ps(...) shadow::castsi512_ps(__VA_ARGS__)
#define _mm512_cmp_ps_mask(...) shadow::cmp_ps_mask(__VA_ARGS__)
#define _mm512_cvtepi32_epi16(...) shadow::cvtepi32_epi16(__VA_ARGS__)
#define _mm512_cvtepi32_ps(...) shadow::cvtepi32_ps(__VA_ARGS__)
#define _mm512_cvtepi8_epi32(...) shadow::cvtepi8_epi32(__VA_ARGS__)
#define _mm512_cvtepu16_epi32(...) shadow::cvtepu16_epi32(__VA_ARGS__)
#define _mm512_cvtepu8_epi32(...) shadow::cvtepu8_epi32(__VA_ARGS__)
#define _mm512_cvtne2ps_pbh(...) shadow::cvtne2ps_pbh(__VA_ARGS__)
#define _mm512_cvtneps_pbh(...) shadow::cvtneps_pbh(__VA_ARGS__)
#define _mm512_cvtph_ps(...) shadow::cvtph_ps(__VA_ARGS__)
#define _mm512_cvtps_epi32(...) shadow::cvtps_epi32(__VA_ARGS__)
#define _mm512_cvtsepi32_epi8(...) shadow::cvtsepi32_epi8(__VA_ARGS__)
#define _mm512_div_ps(...) shadow::div_ps(__VA_ARGS__)
#define _mm512_dpbf16_ps(...) shadow::dpbf16_ps(__VA_ARGS__)
#define _mm512_dpbusd_epi32(...) shadow::dpbusd_epi32(__VA_ARGS__)
#define _mm512_extractf32x8_ps(...) shadow::extractf32x8_ps(__VA_ARGS__)
#define _mm512_extracti32x4_epi32(...) shadow::extracti32x4_epi32(__VA_ARGS__)
#define _mm512_fmadd_ps(...) shadow::fmadd_ps(__VA_ARGS__)
#define _mm512_load_si512(...) shadow::loadu_si512(__VA_ARGS__)
#define _mm512_loadu_ps(...) shadow::loadu_ps(__VA_ARGS__)
#define _mm512_loadu_si512(...) shadow::loadu_si512(__VA_ARGS__)
#define _mm512_mask_blend_epi32(...) shadow::mask_blend_epi32(__VA_ARGS__)
#define _mm512_mask_blend_ps(...) shadow::mask_blend_ps(__VA_ARGS__)
#define _mm512_mask_storeu_epi32(...) shadow::mask_storeu_epi32(__VA_ARGS__)
#define _mm512_mask_storeu_ps(...) shadow::mask_storeu_ps(__VA_ARGS__)
#define _mm512_maskz_cvtps_epi32(...) shadow::maskz_cvtps_epi32(__VA_ARGS__)
#define _mm512_maskz_div_ps(...) shadow::maskz_div_ps(__VA_ARGS__)
#define _mm512_maskz_loadu_epi32(...) shadow::maskz_loadu_epi32(__VA_ARGS__)
#define _mm512_maskz_loadu_ps(...) shadow::maskz_loadu_ps(__VA_ARGS__)
#define _mm512_max_epu32(...) shadow::max_epu32(__VA_ARGS__)
#define _mm512_max_ps(...) shadow::max_ps(__VA_ARGS__)
#define _mm512_min_ps(...) shadow::min_ps(__VA_ARGS__)
#define _mm512_mul_ps(...) shadow::mul_ps(__VA_ARGS__)
#define _mm512_mullo_epi32(...) shadow::mullo_epi32(__VA_ARGS__)
#define _mm512_or_ps(...) shadow::or_ps(__VA_ARGS__)
#define _mm512_or_si512(...) shadow::or_si512(__VA_ARGS__)
#define _mm512_packs_epi16(...) shadow::packs_epi16(__VA_ARGS__)
#define _mm512_packs_epi32(...) shadow::packs_epi32(__VA_ARGS__)
#define _mm512_permutexvar_epi16(...) shadow::permutexvar_epi16(__VA_ARGS__)
#define _mm512_reduce_add_epi32(...) shadow::reduce_add_epi32(__VA_ARGS__)
#define _mm512_reduce_max_epu32(...) shadow::reduce_max_epu32(__VA_ARGS__)
#define _mm512_reduce_ps(...) shadow::reduce_ps(__VA_ARGS__)
#define _mm512_scalef_ps(...) shadow::scalef_ps(__VA_ARGS__)
#define _mm512_set1_epi32(...) shadow::set1_epi32(__VA_ARGS__)
#define _mm512_set1_epi8(...) shadow::set1_epi8(__VA_ARGS__)
#define _mm512_set1_ps(...) shadow::set1_ps(__VA_ARGS__)
#define _mm512_set_epi16(...) shadow::set_epi16(__VA_ARGS__)
#define _mm512_setzero_ps() shadow::set1_ps(0.0f)
#define _mm512_setzero_si512() shadow::set1_epi32(0)
#define _mm512_shuffle_epi32(...) shadow::shuffle_epi32(__VA_ARGS__)
#define _mm512_shuffle_i32x4(...) shadow::shuffle_i32x4(__VA_ARGS__)
#define _mm512_slli_epi16(...) shadow::slli_epi16(__VA_ARGS__)
#define _mm512_slli_epi32(...) shadow::slli_epi32(__VA_ARGS__)
#define _mm512_srli_epi16(...) shadow::srli_epi16(__VA_ARGS__)
#define _mm512_srli_epi32(...) shadow::srli_epi32(__VA_ARGS__)
#define _mm512_store_si512(...) shadow::storeu_si512(__VA_ARGS__)
#define _mm512_storeu_ps(...) shadow::storeu_ps(__VA_ARGS__)
#define _mm512_storeu_si512(...) shadow::storeu_si512(__VA_ARGS__)
#define _mm512_sub_epi32(...) shadow::sub_epi32(__VA_ARGS__)
#define _mm512_sub_epi8(...) shadow::sub_epi8(__VA_ARGS__)
#define _mm512_sub_ps(...) shadow::sub_ps(__VA_ARGS__)
#define _mm512_unpackhi_epi32(...) shadow::unpackhi_epi32(__VA_ARGS__)
#define _mm512_unpackhi_epi64(...) shadow::unpackhi_epi64(__VA_ARGS__)
#define _mm512_unpacklo_epi32(...) shadow::unpacklo_epi32(__VA_ARGS__)
#define _mm512_unpacklo_epi64(...) shadow::unpacklo_epi64(__VA_ARGS__)
#define _mm512_xor_ps(...) shadow::xor_ps(__VA_ARGS__)
#define _mm512_xor_si512(...) shadow::xor_si512(__VA_ARGS__)
#define _mm256_cvtneps_pbh(...) shadow::cvtneps_pbh(__VA_ARGS__)
// clang-format on
