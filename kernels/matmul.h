// Matrix product of activations with weights in panels (panel.h).
//
//   out[t, n] = sum over k of x[t, k] * w[n, k]
//
// x [T, K] fp32, row stride x_stride >= K; out [T, N] fp32, row stride out_stride >= N. K in 1..2^24, T >= 1, N >= 1; the
// pointers need the alignment of their elements only. Two calls make a product, for at most kMatmulTokensPerPass tokens:
//
//   matmul_input  brings the rows of x into the order in which the weights' type reads them ("input"), block-quantised types as int8
//   matmul        multiplies the input with panels [panel_begin, panel_end)
//
// Calls of matmul_input for disjoint tokens, and of matmul for disjoint panels, may run at the same time. An input serves every
// matrix of as many columns whose type has the same input kind.
//
// Input of `tile` tokens (tiles of matmul_tile(kind) tokens from token 0 on; the last is filled up with zeros), per block of 32 columns:
//   kPlain  x as fp32 [4][tile][8]
//   kInt8   q [8][tile][4] int8 (AMX: [tile][32] from 6 tokens on), then e [tile] fp32, X [tile] fp32, S [tile] int32:
//           e = max |x| / 127, q = round(x * (127 / max |x|)) to nearest even (0 when max |x| < 2^-100), S = sum of q, X = e * S
//           (each operation rounded once). NaN or infinity in a block makes its e, and with it the row's results, not finite.
//   kBf16   for kBF16 weights alone, where the instruction set has products of bf16 pairs (KernelTable::matmul_bf16): x rounded to
//           bf16, to nearest even, [16 pairs][tile][2]; subnormal numbers count as 0
//
// Bytes: the panels once per call, the input once per panel (from a cache: 1.4 bytes per element and token); 2 T K N operations.
// Bound by memory for few tokens (3.2 T operations a byte of kQ4_1), else by the dot products.
//
// Determinism: one recipe per type, whatever T, panel range, place in the batch. Over blocks b in order, from acc = 0:
//   plain types      acc = acc + s_b, s_b = the sum of w x in the order of k, from 0, one fma per column
//   kBF16 of kBf16   over pairs of columns in order, from 0: acc = acc + w x of the odd column, acc = acc + w x of the even one,
//                    products exact, each sum rounded once (vdpbf16ps)
//   kQ8_0, kQ4_0     acc = fma(d_b * e_b, I_b, acc), I_b = the sum of the block's quants times q, exact in int32 and in fp32
//                    (quants of kQ4_0: -8..7)
//   kQ4_1            acc = fma(m_b, X_b, fma(d_b * e_b, I_b, acc)), quants 0..15
//   kQ4K, kQ5K     the same with d_b = d * s_b and m_b = m * n_b, both exact in fp32; quants 0..15 and 0..31
//   kQ6K            as kQ8_0 with d, quants -32..31, I_b = s_b0 I_b0 + s_b1 I_b1 of the sums of columns 0..15 and of 16..31
// I_b is an integer, so block-quantised types give the same bits on every instruction set that has fma (generic: a multiply
// and an add). Error of the sums: plain |error| <= about (32 + K / 32) 2^-24 sum |x w|; int8 about (3 + 2 K / 32) 2^-24 times
// the sum of the magnitudes of the terms, beside that of the quantisation: |x - e q| <= e / 2 (1 + 2^-15).
// Source of the int8 recipe: ggml's products of block-quantised weights with Q8_0 and Q8_1 rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/panel.h"

namespace sextant::kernels {

enum class MatmulInputKind : uint8_t { kPlain, kInt8, kBf16 };
inline constexpr int kNumMatmulInputKinds = 3;

// kBF16 has kBf16 besides, by entries of its own.
constexpr MatmulInputKind matmul_input_kind(PanelType type) {
  return is_plain(type) ? MatmulInputKind::kPlain : MatmulInputKind::kInt8;
}

// Every instruction set's tile divides kMatmulTileMultiple.
inline constexpr int kMatmulTileMultiple = 12;
inline constexpr int kMatmulTokensPerPass = 16 * kMatmulTileMultiple;

constexpr int64_t matmul_input_block_bytes(MatmulInputKind kind) {
  return kind == MatmulInputKind::kInt8 ? 44 : kind == MatmulInputKind::kBf16 ? 64 : 128;
}
// Bytes of the input of num_tokens tokens of `cols` columns.
constexpr int64_t matmul_input_bytes(MatmulInputKind kind, int64_t cols, int64_t num_tokens) {
  return (num_tokens + kMatmulTileMultiple - 1) / kMatmulTileMultiple * kMatmulTileMultiple * num_panel_blocks(cols) *
         matmul_input_block_bytes(kind);
}

struct MatmulInputArgs {
  MatmulInputKind kind;
  const float* x;       // of token 0 of the pass
  int64_t x_stride;     // elements
  int64_t cols;         // K
  int64_t num_tokens;   // of the pass
  int64_t token_begin;  // tokens [token_begin, token_end) are brought in; begin a multiple of kMatmulTileMultiple,
  int64_t token_end;    // end too or num_tokens
  uint8_t* input;       // of the pass, matmul_input_bytes, 64-byte aligned
};

struct MatmulArgs {
  PanelType type;
  const uint8_t* panels;  // of panel 0
  int64_t rows;           // N: outputs in the last panel past it are not written
  int64_t cols;           // K
  int64_t panel_begin;
  int64_t panel_end;
  const uint8_t* input;
  int64_t num_tokens;
  float* out;  // of output row 0
  int64_t out_stride;
};

namespace cpu {
using MatmulInputFunction = void(const MatmulInputArgs& args);
using MatmulFunction = void(const MatmulArgs& args);
}  // namespace cpu
}  // namespace sextant::kernels
