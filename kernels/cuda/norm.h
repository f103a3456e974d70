// RMS normalisation on the device; formula and source in kernels/norm.h.
//
// residual [T, H] fp32; x, out [T, H] of `type`, row strides in elements; weight [H] fp32. Pointers and strides in
// bytes are multiples of 16; H a multiple of 8, at most 65536. add_rms_norm: residual += x first unless x is null; out
// may be x. One block per row.
// Bytes: residual twice, x and out once each; bound by memory.
// Determinism: a row depends on itself alone: partial sums per thread in steps of the block, then block_sum's tree.
#pragma once

#include <cstdint>

#include "kernels/cuda/types.h"

namespace sextant::kernels::cuda {

struct AddRmsNormArgs {
  float* residual;
  int64_t residual_stride;
  const void* x;
  int64_t x_stride;
  const float* weight;
  float eps;
  void* out;
  int64_t out_stride;
  int32_t rows;
  int32_t cols;
  ElementType type;  // of x and out
};
int add_rms_norm(const AddRmsNormArgs& args, Stream stream);

// out[r] = rms_norm(residual[g] + x[g]), g = row_indices[r], or r when row_indices is null; the residual is only read,
// so that a row may be wanted twice: the final norm of the rows whose logits are wanted. x may be null. row_indices
// [rows] int32 in device memory. out overlaps nothing.
// One block per row of out; bytes: each of its rows of residual and x once (the second read comes from the cache), out
// once.
struct RmsNormRowsArgs {
  const float* residual;
  int64_t residual_stride;
  const void* x;
  int64_t x_stride;
  const int32_t* row_indices;
  const float* weight;
  float eps;
  void* out;
  int64_t out_stride;
  int32_t rows;  // of out
  int32_t cols;
  ElementType type;  // of x and out
};
int rms_norm_rows(const RmsNormRowsArgs& args, Stream stream);

// x[t, h * D + i] = rms_norm over i of the same, times weight[i]: the num_heads heads of D elements at the begin of each row, in place
// (QK-norm). x [T, >= num_heads * D] of `type`, weight [D] fp32; alignments as above, D a multiple of 8, at most 65536. One warp per
// head: 32 * 16 bytes in each step, read twice (the second time from the cache), written once; bound by memory.
// Determinism: a head depends on itself alone: partial sums per lane in steps of the warp, then warp_sum's butterfly.
struct RmsNormHeadsArgs {
  void* x;
  int64_t x_stride;
  const float* weight;
  float eps;
  int32_t rows;
  int32_t num_heads;
  int32_t head_dim;
  ElementType type;
};
int rms_norm_heads(const RmsNormHeadsArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
