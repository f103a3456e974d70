// RMS normalisation on the device; formula and source in kernels/norm.h.
//
// residual [T, H] fp32; x, out [T, H] of `type`, row strides in elements; weight [H] fp32. Pointers and strides in bytes are
// multiples of 16; H a multiple of 8, at most 65536. x may be null in rms_norm (the residual is normalised as it is);
// otherwise residual += x first. out may be x.
// One block per row. Bytes: residual twice, x and out once each; bound by memory.
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

}  // namespace sextant::kernels::cuda
