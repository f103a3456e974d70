// Integer dot products of int8 inputs with quantised panels (matmul.h): by sdot where the instruction set has it, else by products
// of bytes summed in 16 bits. Included by matmul_int8.h only.
#pragma once

#include "kernels/cpu/matmul_tile.h"

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

// Rows at a time: so many that their sums and totals of a tile, and what is multiplied, fit the 32 registers.
#if defined(__ARM_FEATURE_DOTPROD)
constexpr int kLaneVectors = 2;  // 8 rows
#else
constexpr int kLaneVectors = 1;  // 4 rows, whose sums in 16 bits take two registers per token
#endif
constexpr int kInt8Parts = 4 / kLaneVectors;
constexpr TileShape kInt8Tiles[] = {{1, 1}, {2, 1}, {3, 1}, {4, 1}, {6, 1}};

struct Lanes {
  float32x4_t q[kLaneVectors];
};
#define SEXTANT_LANE_VECTORS _Pragma("GCC unroll 2") for (int i = 0; i < kLaneVectors; ++i)
SEXTANT_INLINE Lanes same_lanes(float x) {
  Lanes out;
  SEXTANT_LANE_VECTORS out.q[i] = vdupq_n_f32(x);
  return out;
}
SEXTANT_INLINE Lanes mul(Lanes x, Lanes y) {
  Lanes out;
  SEXTANT_LANE_VECTORS out.q[i] = vmulq_f32(x.q[i], y.q[i]);
  return out;
}
SEXTANT_INLINE Lanes fma(Lanes x, Lanes y, Lanes z) {
  Lanes out;
  SEXTANT_LANE_VECTORS out.q[i] = vfmaq_f32(z.q[i], x.q[i], y.q[i]);
  return out;
}
SEXTANT_INLINE void store(float* p, Lanes x) { SEXTANT_LANE_VECTORS vst1q_f32(p + 4 * i, x.q[i]); }
template <int kPart>
SEXTANT_INLINE Lanes load_f16_lanes(const uint8_t* p) {
  Lanes out;
  SEXTANT_LANE_VECTORS {
    const uint8x8_t four = vld1_u8(p + 8 * (kLaneVectors * kPart + i));
    out.q[i] = vcvt_f32_f16(vreinterpret_f16_u8(four));
  }
  return out;
}

template <int kPart>
SEXTANT_INLINE Lanes load_u8_lanes(const uint8_t* p) {
  Lanes out;
  SEXTANT_LANE_VECTORS {
    uint32_t four;
    __builtin_memcpy(&four, p + 4 * (kLaneVectors * kPart + i), 4);
    const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
    out.q[i] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)));
  }
  return out;
}

// One block of one row of x, its lanes in column order, to int8; *e and *sum as matmul.h says.
SEXTANT_INLINE void quantize_block(F32x16 low, F32x16 high, int8_t* q, float* e, int32_t* sum) {
  // As integers the magnitudes' bits are in the order of the magnitudes, NaN above all.
  uint32x4_t largest = vdupq_n_u32(0);
  SEXTANT_QUARTERS {
    largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(low.q[i])));
    largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(high.q[i])));
  }
  const float top = __builtin_bit_cast(float, vmaxvq_u32(largest));
  const float scale = top >= 0x1p-100f ? 127.0f / top : 0.0f;
  // What is not finite has no integers: its quants are 0, its e says it.
  const int32x4_t finite = vdupq_n_s32(top < __builtin_inff() ? -1 : 0);
  const auto quants = [&](float32x4_t a, float32x4_t b) __attribute__((always_inline)) {
    return vcombine_s16(vmovn_s32(vandq_s32(vcvtnq_s32_f32(vmulq_n_f32(a, scale)), finite)),
                        vmovn_s32(vandq_s32(vcvtnq_s32_f32(vmulq_n_f32(b, scale)), finite)));
  };
  const int16x8_t a = quants(low.q[0], low.q[1]), b = quants(low.q[2], low.q[3]), c = quants(high.q[0], high.q[1]),
                  d = quants(high.q[2], high.q[3]);
  vst1q_s8(q, vcombine_s8(vmovn_s16(a), vmovn_s16(b)));
  vst1q_s8(q + 16, vcombine_s8(vmovn_s16(c), vmovn_s16(d)));
  *e = top / 127.0f;
  *sum = vaddlvq_s16(vaddq_s16(vaddq_s16(a, b), vaddq_s16(c, d)));
}

// Columns 4 group .. 4 group + 3 of a token, four times.
template <int kTokens>
SEXTANT_INLINE int8x16_t repeat_input(const uint8_t* x, int group, int t) {
  int32_t four;
  __builtin_memcpy(&four, x + (group * kTokens + t) * 4, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
SEXTANT_INLINE int8x16_t load_weights(const uint8_t* p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }
SEXTANT_INLINE int8x16_t low_nibbles(int8x16_t w) { return vandq_s8(w, vdupq_n_s8(15)); }
SEXTANT_INLINE int8x16_t high_nibbles(int8x16_t w) {
  return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(w), 4));
}

// Columns of group kGroup of a block of kQ5K or kQ6K as signed bytes, of the four rows from `row` on.
template <PanelType kType, int kGroup>
SEXTANT_INLINE int8x16_t wide_quants(const uint8_t* block, int row) {
  constexpr bool kIsQ6K = kType == PanelType::kQ6K;
  constexpr int kShift = kIsQ6K ? kGroup % 4 * 2 - 4 : kGroup - 4;  // to bit 4
  const int8x16_t pair = load_weights(block + 64 * (kGroup % 4) + 4 * row);
  const uint8x16_t nibbles = vreinterpretq_u8_s8(kGroup < 4 ? low_nibbles(pair) : high_nibbles(pair));
  const uint8x16_t above = vld1q_u8(block + 256 + (kIsQ6K ? kGroup / 4 * 64 : 0) + 4 * row);
  const uint8x16_t moved = vshlq_u8(above, vdupq_n_s8(-kShift));
  const uint8x16_t q = vorrq_u8(nibbles, vandq_u8(moved, vdupq_n_u8(kIsQ6K ? 0x30 : 0x10)));
  return vsubq_s8(vreinterpretq_s8_u8(q), vdupq_n_s8(kIsQ6K ? 32 : 0));
}
// s of the columns of a half of kQ6K's block, of the four rows from `row` on.
SEXTANT_INLINE int32x4_t half_scales(const uint8_t* block, int half, int row) {
  const int8_t* s = reinterpret_cast<const int8_t*>(block) + 384 + 16 * half + row;
  return int32x4_t{s[0], s[1], s[2], s[3]};
}

// dot[0][t] = I_b of the part's rows for each of kTokens tokens. x: q [8][kTokens][4]; sums: S [kTokens].
#if defined(__ARM_FEATURE_DOTPROD)
template <PanelType kType, int kPanels, int kTokens, int kPart>
__attribute__((always_inline)) inline void block_dots(const uint8_t* block, int64_t, const uint8_t* x,
                                                      const int32_t* sums, Lanes (*dot)[kTokens]) {
  static_assert(kPanels == 1);
  int32x4_t acc[kTokens][2];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) acc[t][0] = acc[t][1] = vdupq_n_s32(kType == PanelType::kQ4_0 ? -8 * sums[t] : 0);
  const auto add_group = [&](int8x16_t w0, int8x16_t w1, int group) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const int8x16_t same = repeat_input<kTokens>(x, group, t);
      acc[t][0] = vdotq_s32(acc[t][0], w0, same);
      acc[t][1] = vdotq_s32(acc[t][1], w1, same);
    }
  };
  const uint8_t* weights = block + 32 * kPart;
  if constexpr (kType == PanelType::kQ8_0) {
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) add_group(load_weights(weights + 64 * g), load_weights(weights + 64 * g + 16), g);
  } else if constexpr (kType == PanelType::kQ5K || kType == PanelType::kQ6K) {
    int32x4_t first[kTokens][2];
    unroll<8>([&](auto group) __attribute__((always_inline)) {
      constexpr int kGroup = decltype(group)::value;
      add_group(wide_quants<kType, kGroup>(block, 8 * kPart), wide_quants<kType, kGroup>(block, 8 * kPart + 4), kGroup);
      if constexpr (kType == PanelType::kQ6K && kGroup % 4 == 3) {
        const int32x4_t s[2] = {half_scales(block, kGroup / 4, 8 * kPart),
                                half_scales(block, kGroup / 4, 8 * kPart + 4)};
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
          for (int i = 0; i < 2; ++i) {
            if constexpr (kGroup == 3) {
              first[t][i] = vmulq_s32(acc[t][i], s[i]);
              acc[t][i] = vdupq_n_s32(0);
            } else {
              acc[t][i] = vmlaq_s32(first[t][i], acc[t][i], s[i]);
            }
          }
        }
      }
    });
  } else {
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      const int8x16_t w0 = load_weights(weights + 64 * g), w1 = load_weights(weights + 64 * g + 16);
      add_group(low_nibbles(w0), low_nibbles(w1), g);
      add_group(high_nibbles(w0), high_nibbles(w1), g + 4);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t) dot[0][t] = {{vcvtq_f32_s32(acc[t][0]), vcvtq_f32_s32(acc[t][1])}};
}
#else
// Products of two bytes and their sums in 16 bits: quants 0..31 allow all eight groups of a block (8 * 31 * 127 < 2^15), -32..31
// the four of a half, signed bytes two (2 * 128 * 127 < 2^15). A register of four rows becomes two of two rows and four columns each.
template <PanelType kType, int kPanels, int kTokens, int kPart>
__attribute__((always_inline)) inline void block_dots(const uint8_t* block, int64_t, const uint8_t* x,
                                                      const int32_t* sums, Lanes (*dot)[kTokens]) {
  static_assert(kPanels == 1);
  const uint8_t* weights = block + 16 * kPart;
  if constexpr (kType == PanelType::kQ8_0) {
    int32x4_t pair[kTokens][2];  // two sums per row
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) pair[t][0] = pair[t][1] = vdupq_n_s32(0);
#pragma GCC unroll 4
    for (int g = 0; g < 8; g += 2) {
      const int8x16_t w0 = load_weights(weights + 64 * g), w1 = load_weights(weights + 64 * g + 64);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const int8x16_t x0 = repeat_input<kTokens>(x, g, t), x1 = repeat_input<kTokens>(x, g + 1, t);
        const int16x8_t low = vmull_s8(vget_low_s8(w0), vget_low_s8(x0)), high = vmull_high_s8(w0, x0);
        pair[t][0] = vpadalq_s16(pair[t][0], vmlal_s8(low, vget_low_s8(w1), vget_low_s8(x1)));
        pair[t][1] = vpadalq_s16(pair[t][1], vmlal_high_s8(high, w1, x1));
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) dot[0][t].q[0] = vcvtq_f32_s32(vpaddq_s32(pair[t][0], pair[t][1]));
  } else if constexpr (kType == PanelType::kQ5K || kType == PanelType::kQ6K) {
    int16x8_t sum[kTokens][2];
    int32x4_t total[kTokens];
    unroll<8>([&](auto group) __attribute__((always_inline)) {
      constexpr int kGroup = decltype(group)::value;
      const int8x16_t w = wide_quants<kType, kGroup>(block, 4 * kPart);
      const int32x4_t s = kType == PanelType::kQ6K ? half_scales(block, kGroup / 4, 4 * kPart) : vdupq_n_s32(1);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const int8x16_t same = repeat_input<kTokens>(x, kGroup, t);
        if constexpr (kGroup % 4 == 0) sum[t][0] = sum[t][1] = vdupq_n_s16(0);
        sum[t][0] = vmlal_s8(sum[t][0], vget_low_s8(w), vget_low_s8(same));
        sum[t][1] = vmlal_high_s8(sum[t][1], w, same);
        if constexpr (kGroup % 4 == 3) {
          const int32x4_t of_half = vpaddq_s32(vpaddlq_s16(sum[t][0]), vpaddlq_s16(sum[t][1]));
          total[t] = kGroup == 3 ? vmulq_s32(of_half, s) : vmlaq_s32(total[t], of_half, s);
        }
      }
    });
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) dot[0][t].q[0] = vcvtq_f32_s32(total[t]);
  } else {
    int16x8_t sum[kTokens][2];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) sum[t][0] = sum[t][1] = vdupq_n_s16(0);
    const auto add_group = [&](int8x16_t w, int group) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const int8x16_t same = repeat_input<kTokens>(x, group, t);
        sum[t][0] = vmlal_s8(sum[t][0], vget_low_s8(w), vget_low_s8(same));
        sum[t][1] = vmlal_high_s8(sum[t][1], w, same);
      }
    };
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      const int8x16_t w = load_weights(weights + 64 * g);
      add_group(low_nibbles(w), g);
      add_group(high_nibbles(w), g + 4);
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      int32x4_t total = vpaddq_s32(vpaddlq_s16(sum[t][0]), vpaddlq_s16(sum[t][1]));
      if (kType == PanelType::kQ4_0) total = vsubq_s32(total, vdupq_n_s32(8 * sums[t]));
      dot[0][t].q[0] = vcvtq_f32_s32(total);
    }
  }
}
#endif

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
