// F32x16 as four vectors of four lanes, in the compiler's own vector extension: any CPU. fma() is a multiply and an add.
// Included by simd.h only; meanings as in simd_avx512.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

// Unrolled, because a vector whose part is chosen at run time lives in memory.
#define SEXTANT_QUARTERS _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i)

typedef float F32x4 __attribute__((vector_size(16)));
typedef int32_t I32x4 __attribute__((vector_size(16)));
typedef uint32_t U32x4 __attribute__((vector_size(16)));

struct F32x16 {
  F32x4 q[4];
};
struct U32x16 {
  U32x4 q[4];
};
struct Mask16 {
  I32x4 q[4];  // all ones or zero
};

SEXTANT_INLINE F32x4 all(float x) { return F32x4{x, x, x, x}; }
SEXTANT_INLINE I32x4 choose(I32x4 m, I32x4 x, I32x4 y) { return (x & m) | (y & ~m); }
SEXTANT_INLINE F32x4 choose(I32x4 m, F32x4 x, F32x4 y) { return (F32x4)choose(m, (I32x4)x, (I32x4)y); }

SEXTANT_INLINE F32x16 zero() { return {}; }
SEXTANT_INLINE F32x16 broadcast(float x) { return {{all(x), all(x), all(x), all(x)}}; }
SEXTANT_INLINE F32x16 load(const float* p) {
  F32x16 out;
  SEXTANT_QUARTERS __builtin_memcpy(&out.q[i], p + 4 * i, 16);
  return out;
}
SEXTANT_INLINE void store(float* p, F32x16 x) { SEXTANT_QUARTERS __builtin_memcpy(p + 4 * i, &x.q[i], 16); }
SEXTANT_INLINE F32x16 load_n(const float* p, int n) {
  float lane[16] = {};
  for (int i = 0; i < n; ++i) lane[i] = p[i];
  return load(lane);
}
SEXTANT_INLINE void store_n(float* p, F32x16 x, int n) {
  float lane[16];
  store(lane, x);
  for (int i = 0; i < n; ++i) p[i] = lane[i];
}

#define SEXTANT_BINARY(name, expression)           \
  SEXTANT_INLINE F32x16 name(F32x16 x, F32x16 y) { \
    F32x16 out;                                    \
    SEXTANT_QUARTERS {                             \
      const F32x4 a = x.q[i], b = y.q[i];          \
      out.q[i] = expression;                       \
    }                                              \
    return out;                                    \
  }
SEXTANT_BINARY(add, a + b)
SEXTANT_BINARY(sub, a - b)
SEXTANT_BINARY(mul, a* b)
SEXTANT_BINARY(div, a / b)
SEXTANT_BINARY(max, choose(a > b, a, b))
SEXTANT_BINARY(min, choose(a < b, a, b))
SEXTANT_BINARY(copy_sign, (F32x4)(((I32x4)a & 0x7fffffff) | ((I32x4)b & INT32_MIN)))
#undef SEXTANT_BINARY
SEXTANT_INLINE F32x16 fma(F32x16 x, F32x16 y, F32x16 z) {
  F32x16 out;
  SEXTANT_QUARTERS out.q[i] = x.q[i] * y.q[i] + z.q[i];
  return out;
}
SEXTANT_INLINE F32x16 abs(F32x16 x) { return copy_sign(x, zero()); }
SEXTANT_INLINE F32x16 negate(F32x16 x) {
  F32x16 out;
  SEXTANT_QUARTERS out.q[i] = -x.q[i];
  return out;
}

SEXTANT_INLINE Mask16 less(F32x16 x, F32x16 y) {
  Mask16 out;
  SEXTANT_QUARTERS out.q[i] = x.q[i] < y.q[i];
  return out;
}
SEXTANT_INLINE Mask16 lanes(int begin, int end) {
  Mask16 out;
  SEXTANT_QUARTERS {
    const I32x4 lane = I32x4{0, 1, 2, 3} + 4 * i;
    out.q[i] = (lane >= begin) & (lane < end);
  }
  return out;
}
SEXTANT_INLINE F32x16 select(Mask16 m, F32x16 x, F32x16 y) {
  F32x16 out;
  SEXTANT_QUARTERS out.q[i] = choose(m.q[i], x.q[i], y.q[i]);
  return out;
}

SEXTANT_INLINE float reduce_add(F32x16 x) {
  const F32x4 q = (x.q[0] + x.q[2]) + (x.q[1] + x.q[3]);
  return (q[0] + q[2]) + (q[1] + q[3]);
}
SEXTANT_INLINE float reduce_max(F32x16 x) {
  const F32x4 h0 = choose(x.q[0] > x.q[2], x.q[0], x.q[2]), h1 = choose(x.q[1] > x.q[3], x.q[1], x.q[3]);
  const F32x4 q = choose(h0 > h1, h0, h1);
  const float a = q[0] > q[2] ? q[0] : q[2], b = q[1] > q[3] ? q[1] : q[3];
  return a > b ? a : b;
}

SEXTANT_INLINE F32x16 round_scaled(F32x16 x, F32x16 scale, F32x16* pow2) {
  const F32x4 magic = all(12582912.0f);
  F32x16 out;
  SEXTANT_QUARTERS {
    const F32x4 sum = x.q[i] * scale.q[i] + magic;
    pow2->q[i] = (F32x4)(((U32x4)sum << 23) + 0x3f800000u);
    out.q[i] = sum - magic;
  }
  return out;
}

SEXTANT_INLINE F32x4 widen_f16(U32x4 h) {
  const U32x4 magnitude = (h & 0x7fffu) << 13;
  F32x4 value = (F32x4)magnitude * all(0x1p112f);  // moves the exponent's bias from 15 to 127, subnormals included
  const I32x4 special = (I32x4)(magnitude >= 0x0f800000u);  // infinity and NaN keep an exponent of all ones
  value = choose(special, (F32x4)(magnitude | 0x7f800000u), value);
  return (F32x4)((U32x4)value | ((h & 0x8000u) << 16));
}
SEXTANT_INLINE U32x16 load_u16(const void* p) {
  typedef uint16_t U16x4 __attribute__((vector_size(8)));
  U32x16 out;
  SEXTANT_QUARTERS {
    U16x4 half;
    __builtin_memcpy(&half, static_cast<const uint8_t*>(p) + 8 * i, 8);
    out.q[i] = __builtin_convertvector(half, U32x4);
  }
  return out;
}
SEXTANT_INLINE F32x16 load_f16(const void* p) {
  const U32x16 h = load_u16(p);
  F32x16 out;
  SEXTANT_QUARTERS out.q[i] = widen_f16(h.q[i]);
  return out;
}
SEXTANT_INLINE F32x16 load_int8(const int8_t* p) {
  F32x16 out;
  for (int i = 0; i < 16; ++i) out.q[i / 4][i % 4] = p[i];
  return out;
}
SEXTANT_INLINE F32x16 load_bf16(const void* p) {
  const U32x16 h = load_u16(p);
  F32x16 out;
  SEXTANT_QUARTERS out.q[i] = (F32x4)(h.q[i] << 16);
  return out;
}
SEXTANT_INLINE void store_bf16(uint16_t* p, F32x16 x) {
  SEXTANT_QUARTERS {
    const U32x4 bits = (U32x4)x.q[i];
    const U32x4 rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    const U32x4 out = (U32x4)choose(x.q[i] != x.q[i], (I32x4)(bits | 0x400000u), (I32x4)rounded) >> 16;
    for (int j = 0; j < 4; ++j) p[4 * i + j] = static_cast<uint16_t>(out[j]);
  }
}

SEXTANT_INLINE void load_bf16_pairs(const uint16_t* p, F32x16* even, F32x16* odd) {
  SEXTANT_QUARTERS {
    U32x4 pairs;
    __builtin_memcpy(&pairs, p + 8 * i, 16);
    even->q[i] = (F32x4)(pairs << 16);
    odd->q[i] = (F32x4)(pairs & 0xffff0000u);
  }
}

SEXTANT_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
