// Matrix product for few tokens: out[t, n] = sum over k of x[t, k] w[n, k].
//
// x [T, K] of x_type, bf16 or fp16, row stride x_stride a multiple of 8, x 16-byte aligned. w in weight_layout.h's format, planes
// 16-byte aligned; plain formats (of x's type): K a multiple of 8; quantised: of 32. out [T, N] fp32 or of x's type, row stride
// out_stride >= N, aligned to its element. A sum beyond fp16's 65504 becomes infinity there, as IEEE 754 rounds it.
// out overlaps nothing. N in 1..2^31 - 1, K <= 2^20, T in 1..max_gemv_tokens(format).
//
// Bound by memory: reads w once (2 K N bytes, 1.06 for kQ8_0, 0.56 kQ4_0, 0.63 kQ4_1, 1.03
// kF8Tiles), in 128-bit loads past L1; x comes out of
// L1. The first loads of w are under way before the kernel waits for the one before it.
//   plain: a group of 32 lanes (K >= 1024) or 8 computes two rows; 4 warps a block, no shared memory. A thread has 8 loads
//     under way and 56 registers at T = 1: with N = 4096 an SM of 132 holds 15 warps, 62 KB under way; 25 KB cover
//     700 ns at 4.8 TB/s.
//   kF8Rows, kF8Blocks: the same with 16 weights a load, groups of 32 lanes; x stays as it is (W8A16). At most 96 registers, so that
//     5 blocks of 128 threads are resident, 640 threads with 8 loads of 16 bytes each: 80 KB under way. kF8Blocks from T = 3 on holds
//     its sums twice (of the block, and of all): at most 128 registers, 4 blocks, 64 KB. Both are well over the 25 KB above.
//   tiles: a block computes a tile of 32 rows; its warps (one per 8 tiles along K, at most 16) take turns along K. A thread
//     has 48 to 64 bytes under way. About 3.5 instructions a weight at T = 1, near what an SM can issue at the full rate of
//     memory, which is why 3 tokens go to the tensor cores (gemm_weight_only.h).
//
// Determinism: a row's result depends on that row, on K and on the format alone, not on T nor on its place.
// Recipe, fp32. Plain: a lane sums its columns in the order of k, then the lanes of the group in a butterfly. kF8Rows likewise,
// times the scale; kF8Blocks: a lane sums 16 columns in order, acc += scale * sum. Tiles:
// per lane and block, over its 8 columns, s = (sum of (offset + q) x) - (sum of offset x), each in the order of k (offset 384 for
// kQ8_0, 0 for kF8Tiles, else at most 264: the bits of q are put into a mantissa without a conversion); acc += d s, for kQ4_1 then
// acc += m (sum of x); then over 4 lanes, then over warps in order. Hence with u = 2^-24, before the output is rounded,
//   plain       |error| <= u (K / 8 + 13) sum |x w|  (K / 32 + 13 where K >= 1024)
//   kF8Rows, kF8Blocks  |error| <= u (K / 16 + 40) sum |x w|
//   tiles       |error| <= u sum |x| (e |d| + (K / 16 + 28) (|d q| + |m|)), e = 7544 for kQ8_0, 0 for kF8Tiles,
//               else 4544
#pragma once

#include <cstdint>

#include "kernels/cuda/types.h"
#include "kernels/cuda/weight_layout.h"

namespace sextant::kernels::cuda {

constexpr int32_t max_gemv_tokens(WeightFormat format) { return is_tiled(format) ? 2 : 4; }

struct GemvArgs {
  WeightFormat format;
  const void* weights;  // or quants
  const void* scales;   // null for plain formats
  int64_t rows;         // N
  int64_t cols;         // K
  const void* x;
  int64_t x_stride;  // elements
  ElementType x_type;
  int32_t num_tokens;
  void* out;
  int64_t out_stride;    // elements
  ElementType out_type;  // x_type or kFloat32
};
int gemv(const GemvArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
