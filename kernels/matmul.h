// Matrix product of fp32 activations with weights in panels (panel.h).
//
//   out[t, n] = sum over k of x[t, k] * w[n, k]
//
// x [T, K] fp32, row stride x_stride >= K. Weights: panels of 16 rows. out [T, N] fp32, row stride out_stride >= N;
// must not overlap x. K in 1..2^24, T >= 1, N >= 1; the pointers need the alignment of their elements only (64 bytes is faster).
//
// One call computes the output rows of panels [panel_begin, panel_end) for all T tokens: calls with disjoint panel ranges
// may run at the same time. It reads its panels once per 48 tokens and T K 4 bytes of x, and does 2 T K N operations:
// bound by memory for few tokens (about 0.3 operations a byte per token for fp32 weights, 3.2 for kQ4_1), else by FMA.
//
// Determinism: one recipe per (instruction set, type), whatever T, panel range or place in the batch. Per block b of 32
// columns s_b = the sum of q x in the order of k, from 0, one fma per column; then over blocks in order
//   plain types      acc = acc + s_b
//   kQ8_0, kQ4_0     acc = fma(d_b, s_b, acc)
//   kQ4_1            acc = fma(m_b, X_b, fma(d_b, s_b, acc)), X_b = the sum of the block's x (lanes i and i + 16, then
//                    i + 8, i + 4, i + 2, i + 1)
// (generic: fma is a multiply and an add). Hence |error| <= about (32 + K / 32 + 3) 2^-24 sum |x w'| where w' is w with d q and
// m counted separately.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/panel.h"

namespace sextant::kernels {

struct MatmulArgs {
  PanelType type;
  const uint8_t* panels;  // of panel 0
  int64_t rows;           // N: outputs in the last panel past it are not written
  int64_t cols;           // K
  int64_t panel_begin;
  int64_t panel_end;
  const float* x;
  int64_t x_stride;  // elements
  int64_t num_tokens;
  float* out;  // of output row 0
  int64_t out_stride;
  float* scratch;  // matmul_scratch_floats(cols), 64-byte aligned, not shared with a call that runs at the same time
};

inline constexpr int kMatmulTokensPerPass = 48;
constexpr int64_t matmul_scratch_floats(int64_t cols) {
  return kMatmulTokensPerPass * num_panel_blocks(cols) * (kPanelBlock + 1) + 64 * kPanelRows;
}

namespace cpu {
using MatmulFunction = void(const MatmulArgs& args);
}  // namespace cpu
}  // namespace sextant::kernels
