// Integer dot products of int8 inputs with quantised panels (matmul.h), in plain C++. Included by matmul_int8.h only.
#pragma once

#include "kernels/cpu/matmul_tile.h"

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

constexpr TileShape kInt8Tiles[] = {{1, 1}, {2, 1}};

constexpr int kInt8Parts = 1;
using Lanes = F32x16;
SEXTANT_INLINE Lanes same_lanes(float x) { return broadcast(x); }
template <int kPart>
SEXTANT_INLINE Lanes load_f16_lanes(const uint8_t* p) {
  return load_f16(p);
}

template <int kPart>
SEXTANT_INLINE Lanes load_u8_lanes(const uint8_t* p) {
  Lanes out;
  SEXTANT_QUARTERS {
    const I32x4 four = {p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]};
    out.q[i] = __builtin_convertvector(four, F32x4);
  }
  return out;
}

// One block of one row of x, its lanes in column order, to int8; *e and *sum as matmul.h says.
SEXTANT_INLINE void quantize_block(F32x16 low, F32x16 high, int8_t* q, float* e, int32_t* sum) {
  float lane[kPanelBlock];
  store(lane, low);
  store(lane + 16, high);
  // As integers the magnitudes' bits are in the order of the magnitudes, NaN above all.
  uint32_t largest = 0;
  for (int i = 0; i < kPanelBlock; ++i) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, lane[i]) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  const float top = __builtin_bit_cast(float, largest);
  const float scale = top >= 0x1p-100f ? 127.0f / top : 0.0f;
  *sum = 0;
  for (int i = 0; i < kPanelBlock; ++i) {
    const float rounded = lane[i] * scale + 12582912.0f;  // 1.5 * 2^23: the sum's low bits are the integer
    q[i] = static_cast<int8_t>(__builtin_bit_cast(uint32_t, rounded) & 0xffu);
    *sum += q[i];
  }
  *e = top / 127.0f;
}

// Column kColumn of the 32 of 16 rows; kQ6K: times its s.
template <PanelType kType, int kColumn>
SEXTANT_INLINE F32x16 column_of_block(const uint8_t* block) {
  F32x16 out;
  SEXTANT_QUARTERS {
    U32x4 four;  // columns of four rows
    if constexpr (kType == PanelType::kQ8_0) {
      __builtin_memcpy(&four, block + kColumn / 4 * 64 + 16 * i, 16);
      out.q[i] = __builtin_convertvector((I32x4)(four << (24 - kColumn % 4 * 8)) >> 24, F32x4);
    } else {
      __builtin_memcpy(&four, block + kColumn % 16 / 4 * 64 + 16 * i, 16);
      I32x4 quant = (I32x4)((four >> (kColumn % 4 * 8 + kColumn / 16 * 4)) & 15u);
      if constexpr (kType == PanelType::kQ4_0) quant -= 8;
      if constexpr (kType == PanelType::kQ5K) {
        __builtin_memcpy(&four, block + 256 + 16 * i, 16);
        quant |= (I32x4)((four >> (kColumn % 4 * 8 + kColumn / 4)) & 1u) << 4;
      }
      if constexpr (kType == PanelType::kQ6K) {
        __builtin_memcpy(&four, block + 256 + kColumn / 16 * 64 + 16 * i, 16);
        quant |= (I32x4)((four >> (kColumn % 4 * 8 + kColumn / 4 % 4 * 2)) & 3u) << 4;
        const auto* s = reinterpret_cast<const int8_t*>(block + 384 + kColumn / 16 * 16 + 4 * i);
        quant = (quant - 32) * I32x4{s[0], s[1], s[2], s[3]};
      }
      out.q[i] = __builtin_convertvector(quant, F32x4);
    }
  }
  return out;
}

// dot[0][t] = I_b of 16 rows for each of kTokens tokens, in fp32, which holds integers below 2^24. x: q [8][kTokens][4].
template <PanelType kType, int kPanels, int kTokens, int kPart>
SEXTANT_INLINE void block_dots(const uint8_t* block, int64_t, const uint8_t* x, const int32_t*, Lanes (*dot)[kTokens]) {
  static_assert(kPanels == 1);
  for (int t = 0; t < kTokens; ++t) dot[0][t] = zero();
  unroll<kPanelBlock>([&](auto column) {
    constexpr int kColumn = decltype(column)::value;
    const F32x16 w = column_of_block<kType, kColumn>(block);
    for (int t = 0; t < kTokens; ++t) {
      const auto q = static_cast<int8_t>(x[(kColumn / 4 * kTokens + t) * 4 + kColumn % 4]);
      dot[0][t] = fma(w, broadcast(static_cast<float>(q)), dot[0][t]);
    }
  });
}

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
