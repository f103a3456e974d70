// Embedding look-up on the device: out[t] = factor times row ids[t] of a weight matrix, in fp32.
//
// table: `rows` rows from first_row on, in weight_layout.h's format, planes 16-byte aligned, K a multiple of 8 or 32. ids [T]
// int32. out [T, K] fp32, row stride a multiple of 4 elements, 16-byte aligned; overlaps nothing. A token whose id is outside
// [first_row, first_row + rows) is left alone: a table of several formats is one call for each.
// One block per token, a thread per 8 columns. Bytes: T K (weight + 4); bound by memory and by latency.
// Values are exact: d q has at most 19 significant bits; d q + m, and e4m3 times its fp32 scale, are rounded once, and once more after a factor other than 1. Hence the same on every device.
#pragma once

#include <cstdint>

#include "kernels/cuda/types.h"
#include "kernels/cuda/weight_layout.h"

namespace sextant::kernels::cuda {

struct EmbedArgs {
  WeightFormat format;
  const void* weights;  // or quants
  const void* scales;   // null for plain formats
  int64_t first_row;    // the id of the first row of `weights`
  int64_t rows;
  int64_t cols;
  const int32_t* ids;
  int32_t num_tokens;
  float* out;
  int64_t out_stride;  // elements
  float factor = 1;
};
int embed(const EmbedArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
