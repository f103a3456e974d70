// Sum of parts, residual sum and RMS normalisation on the device; formula, use and source in kernels/reduce_norm.h.
//
// parts[r] [T, H] of `type`, all with row stride part_stride: places of one gathered buffer, or of peers whose memory this device
// may read. Pointers and strides in bytes are multiples of 16; H a multiple of 8, at most 65536. One block per row.
// Overlap (compute capability 9.0): the kernel after may start when all blocks have, and needs the sums, but not for its weights:
// gemv and gemm_weight_only ask for their first ones before they wait for this kernel.
// Determinism: a row depends on itself alone; parts in order, then partial sums of squares per thread in steps of the block, then
// block_sum's tree: the same for every number of rows.
#pragma once

#include <cstdint>

#include "kernels/cuda/types.h"
#include "kernels/reduce_norm.h"

namespace sextant::kernels::cuda {

struct ReduceAddRmsNormArgs {
  const void* parts[kMaxReducedParts];
  int32_t num_parts;
  int64_t part_stride;
  float* residual;
  int64_t residual_stride;
  const float* weight;
  float eps;
  void* out;
  int64_t out_stride;
  int32_t rows;
  int32_t cols;
  ElementType type;  // of parts and out
};
int reduce_add_rms_norm(const ReduceAddRmsNormArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
