// Element operations on rows.
//
//   add:       residual[t, i] += x[t, i]
//   add_bias:  x[t, i] = round(x[t, i] + bias[i])
//   round:     out[t, i] = round(residual[t, i])
//   softcap:   logits[t, i] = cap tanh(logits[t, i] / cap)
//
// residual and logits [T, N] fp32, x and out [T, N] of `type`, bias [N] fp32; row strides in elements, at least `cols`; nothing overlaps.
// rows * cols < 2^31. Pointers are aligned to their element. Accesses are 128 bits wide where pointers and row strides
// are multiples of 16 bytes and `cols` a multiple of 16 bytes' elements (8 of 16 bits, 4 of fp32), else one element
// each.
// One thread does one access of x; a block 256 of them, over rows and columns alike, so that short rows waste no
// threads.
// Bytes: add reads x and reads and writes residual once, add_bias and softcap read and write x once, round reads and writes once; a
// few operations per element: bound by memory.
// Determinism: an element depends on its own operands alone: one fp32 sum, one rounding to the type; softcap: the device library's
// tanh, within 2 units in the last place, a quotient and a product.
#pragma once

#include <cstdint>

#include "kernels/cuda/types.h"

namespace sextant::kernels::cuda {

struct AddArgs {
  float* residual;
  int64_t residual_stride;
  const void* x;
  int64_t x_stride;
  int32_t rows;
  int32_t cols;
  ElementType type;  // of x
};
int add(const AddArgs& args, Stream stream);

struct AddBiasArgs {
  void* x;
  int64_t x_stride;
  const float* bias;
  int32_t rows;
  int32_t cols;
  ElementType type;  // of x
};
int add_bias(const AddBiasArgs& args, Stream stream);

struct RoundArgs {
  const float* residual;
  int64_t residual_stride;
  void* out;
  int64_t out_stride;
  int32_t rows;
  int32_t cols;
  ElementType type;  // of out
};
int round(const RoundArgs& args, Stream stream);

struct SoftcapArgs {
  float* logits;
  int64_t stride;
  int32_t rows;
  int32_t cols;
  float cap;  // above 0
};
int softcap(const SoftcapArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
