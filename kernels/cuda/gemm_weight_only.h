// Matrix product of bf16 or fp16 activations with block-quantised weights (W4A16, W8A16) on tensor cores:
// out[t, n] = sum over k of x[t, k] w[n, k].
//
// x [T, K] of x_type, bf16 or fp16, row stride a multiple of 8, 16-byte aligned. w in weight_layout.h's kQ8_0, kQ4_0, kQ4_1 or
// kF8Tiles, planes 16-byte aligned, K a multiple of 32. out [T, N] fp32 or of x's type (fp16: infinity beyond 65504), row stride
// out_stride >= N, aligned to its element; overlaps nothing. Any T, any N
// below 2^31, K <= 2^20. workspace: gemm_weight_only_workspace_bytes (none but for kQ4_1), 16-byte aligned, of no other use
// while the stream runs this. Dynamic shared memory up to 100 KB, opted into at each launch.
//
// The weights are mma.m16n8k16's left side (their rows are M), 8 tokens its right side; quants become numbers of x's type
// in registers, exactly, two or three instructions a pair. One block computes 32 kWarpsN rows x up to 64 tokens; a warp 32 rows x
// all tokens of the block, the kWarpsK warps of the same rows sharing K block by block (few tokens: 1 x 8 warps, so that small N
// fill the device; 64: 4 x 1, or 2 x 2 where 4 x 1 would be fewer than 128 blocks). Weights, scales and x come through a ring
// of 3 or 4 stages of 128 or 256 columns in shared memory by cp.async; weights of the first ones before the kernel waits for
// the one before it. Blocks that run together share weights and at most 512 tokens of x in L2.
// Bytes: weights once per 512 tokens; 2 T K N operations, for few tokens bound by memory, else by tensor cores.
//
// Determinism: an output depends on its row of x, K, the format and the shape of blocks chosen by (N, T): rows of a larger
// batch may be summed in another order than alone.
// Recipe: per block b of 32 columns s_b = the tensor cores' fp32 sum of q x (products exact), acc = acc + d_b s_b, kQ4_1 then
// acc = acc + m_b X_b with X_b = sum of the block's x, made once in fp32 by a kernel of its own; kWarpsK partial sums in order.
// No weight is rounded. Counting 2^-23 for each addition inside mma (they may truncate), with u = 2^-24:
//   |error| <= u sum |x| (|d q| + |m|) (80 + K / 16), before the output is rounded.
#pragma once

#include <cstdint>

#include "kernels/cuda/types.h"
#include "kernels/cuda/weight_layout.h"

namespace sextant::kernels::cuda {

struct GemmWeightOnlyArgs {
  WeightFormat format;
  const void* quants;
  const void* scales;
  int64_t rows;  // N
  int64_t cols;  // K
  const void* x;
  int64_t x_stride;  // elements
  ElementType x_type;
  int32_t num_tokens;
  void* out;
  int64_t out_stride;    // elements
  ElementType out_type;  // x_type or kFloat32
  void* workspace;
};
int gemm_weight_only(const GemmWeightOnlyArgs& args, Stream stream);

// Tokens as blocks cover them, for the sums of x.
constexpr int64_t padded_tokens(int64_t num_tokens) { return (num_tokens + 63) / 64 * 64; }
constexpr int64_t gemm_weight_only_workspace_bytes(WeightFormat format, int64_t num_tokens, int64_t cols) {
  return format == WeightFormat::kQ4_1 ? padded_tokens(num_tokens) * (cols / kTileCols) * 4 : 0;
}

}  // namespace sextant::kernels::cuda
