// F32x16 as four q registers. Needs Advanced SIMD, which every 64-bit Arm CPU has. Little-endian. Included by simd.h only; meanings
// as in simd_avx512.h.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

// Unrolled, because a vector whose part is chosen at run time lives in memory.
#define SEXTANT_QUARTERS _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i)

struct F32x16 {
  float32x4_t q[4];
};
struct Mask16 {
  uint32x4_t q[4];  // all ones or zero
};

SEXTANT_INLINE F32x16 broadcast(float x) {
  const float32x4_t v = vdupq_n_f32(x);
  return {{v, v, v, v}};
}
SEXTANT_INLINE F32x16 zero() { return broadcast(0.0f); }
SEXTANT_INLINE F32x16 load(const float* p) {
  return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}
SEXTANT_INLINE void store(float* p, F32x16 x) { SEXTANT_QUARTERS vst1q_f32(p + 4 * i, x.q[i]); }
SEXTANT_INLINE F32x16 load_n(const float* p, int n) {
  if (n >= 16) return load(p);
  F32x16 out = zero();
  SEXTANT_QUARTERS {
    const int left = n - 4 * i;
    if (left >= 4) {
      out.q[i] = vld1q_f32(p + 4 * i);
    } else {
      if (left > 0) out.q[i] = vld1q_lane_f32(p + 4 * i, out.q[i], 0);
      if (left > 1) out.q[i] = vld1q_lane_f32(p + 4 * i + 1, out.q[i], 1);
      if (left > 2) out.q[i] = vld1q_lane_f32(p + 4 * i + 2, out.q[i], 2);
    }
  }
  return out;
}
SEXTANT_INLINE void store_n(float* p, F32x16 x, int n) {
  if (n >= 16) return store(p, x);
  SEXTANT_QUARTERS {
    const int left = n - 4 * i;
    if (left >= 4) {
      vst1q_f32(p + 4 * i, x.q[i]);
    } else {
      if (left > 0) vst1q_lane_f32(p + 4 * i, x.q[i], 0);
      if (left > 1) vst1q_lane_f32(p + 4 * i + 1, x.q[i], 1);
      if (left > 2) vst1q_lane_f32(p + 4 * i + 2, x.q[i], 2);
    }
  }
}

// fmax and fmin hand on a NaN of either side; these hand on the second operand then.
SEXTANT_INLINE float32x4_t larger(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
SEXTANT_INLINE float32x4_t smaller(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }

#define SEXTANT_BINARY(name, function)                    \
  SEXTANT_INLINE F32x16 name(F32x16 x, F32x16 y) {        \
    F32x16 out;                                           \
    SEXTANT_QUARTERS out.q[i] = function(x.q[i], y.q[i]); \
    return out;                                           \
  }
SEXTANT_BINARY(add, vaddq_f32)
SEXTANT_BINARY(sub, vsubq_f32)
SEXTANT_BINARY(mul, vmulq_f32)
SEXTANT_BINARY(div, vdivq_f32)
SEXTANT_BINARY(max, larger)
SEXTANT_BINARY(min, smaller)
#undef SEXTANT_BINARY
SEXTANT_INLINE F32x16 fma(F32x16 x, F32x16 y, F32x16 z) {
  F32x16 out;
  SEXTANT_QUARTERS out.q[i] = vfmaq_f32(z.q[i], x.q[i], y.q[i]);
  return out;
}
SEXTANT_INLINE F32x16 abs(F32x16 x) {
  F32x16 out;
  SEXTANT_QUARTERS out.q[i] = vabsq_f32(x.q[i]);
  return out;
}
SEXTANT_INLINE F32x16 negate(F32x16 x) {
  F32x16 out;
  SEXTANT_QUARTERS out.q[i] = vnegq_f32(x.q[i]);
  return out;
}
SEXTANT_INLINE F32x16 copy_sign(F32x16 x, F32x16 y) {
  F32x16 out;
  SEXTANT_QUARTERS out.q[i] = vbslq_f32(vdupq_n_u32(0x80000000u), y.q[i], x.q[i]);
  return out;
}

SEXTANT_INLINE Mask16 less(F32x16 x, F32x16 y) {
  Mask16 out;
  SEXTANT_QUARTERS out.q[i] = vcltq_f32(x.q[i], y.q[i]);
  return out;
}
SEXTANT_INLINE Mask16 lanes(int begin, int end) {
  Mask16 out;
  SEXTANT_QUARTERS {
    const int32x4_t lane = vaddq_s32(int32x4_t{0, 1, 2, 3}, vdupq_n_s32(4 * i));
    out.q[i] = vandq_u32(vcgeq_s32(lane, vdupq_n_s32(begin)), vcltq_s32(lane, vdupq_n_s32(end)));
  }
  return out;
}
SEXTANT_INLINE F32x16 select(Mask16 m, F32x16 x, F32x16 y) {
  F32x16 out;
  SEXTANT_QUARTERS out.q[i] = vbslq_f32(m.q[i], x.q[i], y.q[i]);
  return out;
}

SEXTANT_INLINE float reduce_add(F32x16 x) {
  const float32x4_t q = vaddq_f32(vaddq_f32(x.q[0], x.q[2]), vaddq_f32(x.q[1], x.q[3]));
  const float32x2_t d = vadd_f32(vget_low_f32(q), vget_high_f32(q));
  return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}
SEXTANT_INLINE float reduce_max(F32x16 x) {
  const float32x4_t q = larger(larger(x.q[0], x.q[2]), larger(x.q[1], x.q[3]));
  const float32x4_t h = larger(q, vextq_f32(q, q, 2));
  return vgetq_lane_f32(larger(h, vextq_f32(h, h, 1)), 0);
}

SEXTANT_INLINE F32x16 round_scaled(F32x16 x, F32x16 scale, F32x16* pow2) {
  const float32x4_t magic = vdupq_n_f32(12582912.0f);
  F32x16 out;
  SEXTANT_QUARTERS {
    const float32x4_t sum = vfmaq_f32(magic, x.q[i], scale.q[i]);
    const uint32x4_t exponent = vshlq_n_u32(vreinterpretq_u32_f32(sum), 23);
    pow2->q[i] = vreinterpretq_f32_u32(vaddq_u32(exponent, vdupq_n_u32(0x3f800000u)));
    out.q[i] = vsubq_f32(sum, magic);
  }
  return out;
}

// Of 16-bit elements at any address.
SEXTANT_INLINE uint16x8_t load_u16x8(const void* p) {
  return vreinterpretq_u16_u8(vld1q_u8(static_cast<const uint8_t*>(p)));
}
SEXTANT_INLINE F32x16 load_f16(const void* p) {
  F32x16 out;
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const float16x8_t eight = vreinterpretq_f16_u16(load_u16x8(static_cast<const uint8_t*>(p) + 16 * h));
    out.q[2 * h] = vcvt_f32_f16(vget_low_f16(eight));
    out.q[2 * h + 1] = vcvt_high_f32_f16(eight);
  }
  return out;
}
SEXTANT_INLINE F32x16 load_int8(const int8_t* p) {
  F32x16 out;
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const int16x8_t eight = vmovl_s8(vld1_s8(p + 8 * h));
    out.q[2 * h] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(eight)));
    out.q[2 * h + 1] = vcvtq_f32_s32(vmovl_high_s16(eight));
  }
  return out;
}
SEXTANT_INLINE F32x16 load_bf16(const void* p) {
  F32x16 out;
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const uint16x8_t eight = load_u16x8(static_cast<const uint8_t*>(p) + 16 * h);
    out.q[2 * h] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(eight), 16));
    out.q[2 * h + 1] = vreinterpretq_f32_u32(vshll_high_n_u16(eight, 16));
  }
  return out;
}
SEXTANT_INLINE void store_bf16(uint16_t* p, F32x16 x) {
  SEXTANT_QUARTERS {
    const uint32x4_t bits = vreinterpretq_u32_f32(x.q[i]);
    const uint32x4_t lsb = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(lsb, vdupq_n_u32(0x7fff)));
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    vst1_u16(p + 4 * i, vshrn_n_u32(vbslq_u32(vceqq_f32(x.q[i], x.q[i]), rounded, quiet), 16));
  }
}

SEXTANT_INLINE void load_bf16_pairs(const uint16_t* p, F32x16* even, F32x16* odd) {
  SEXTANT_QUARTERS {
    const uint32x4_t pairs = vreinterpretq_u32_u16(vld1q_u16(p + 8 * i));
    even->q[i] = vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16));
    odd->q[i] = vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff0000u)));
  }
}

SEXTANT_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
