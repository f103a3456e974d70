// Gathers rows: out[r, i] = x[row_indices[r], i].
//
// x [T, N], out [R, N] of one element size (2 or 4 bytes), row strides in elements; row_indices [R] int32 in device
// memory, each inside x; equal indices are allowed. Nothing overlaps. rows * cols < 2^31. Accesses are 128 bits wide
// where pointers, strides and cols are multiples of 16 bytes, else one element each.
// One thread moves one access; a block 256 of them.
// Bytes: each gathered row read and written once; bound by memory.
// Determinism: bits are copied.
#pragma once

#include <cstdint>

#include "kernels/cuda/types.h"

namespace sextant::kernels::cuda {

struct GatherRowsArgs {
  const void* x;
  int64_t x_stride;
  const int32_t* row_indices;
  void* out;
  int64_t out_stride;
  int32_t rows;  // of out
  int32_t cols;
  ElementType type;
};
int gather_rows(const GatherRowsArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
