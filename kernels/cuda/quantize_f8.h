// Rows of bf16 or fp16 activations to e4m3 and the scales that make them it: x[t, k] ~ out[t, k] * scale of (t, k).
//
// x [T, K] of x_type, bf16 or fp16, row stride x_stride a multiple of 8, 16-byte aligned. out [T, K] e4m3, packed, 16-byte aligned. K a multiple of 16,
// K <= 2^20, T < 2^31. Nothing overlaps. Where the largest magnitude of those that share a scale is a, the scale is a / 448 (1
// where a = 0), and out = x * (448 / a) rounded to nearest even; both quotients rounded to fp32. Hence every |out| <= 448, and
//   |x - out * scale| <= (2^-4 + 2^-22) |x| + 2^-10 scale   (four bits of significand; half of the least subnormal number).
// A NaN of x becomes one of out; infinity makes its scale infinite.
//   kPerRow      scales[t]                             what cuBLASLt's OUTER_VEC_32F multiplies by
//   kPerBlock    scales[k / 128 * scale_stride + t]    its VEC128_32F
//   kPerTensor   scales[0] of all rows; row_maxima [T] fp32 is overwritten; its SCALAR_32F
// One block a row (kPerTensor: two kernels, a block a row each, the second over row_maxima first); kPerBlock: 16 lanes for 128
// columns. Bytes: 3 T K (kPerRow and kPerTensor read x twice, the second time out of L1 or L2); bound by memory. A row's bits
// depend on that row alone (kPerTensor: on all). Format: OCP 8-bit Floating Point Specification, E4M3.
#pragma once

#include <cstdint>

#include "kernels/cuda/types.h"

namespace sextant::kernels::cuda {

enum class F8Scaling : uint8_t { kPerRow, kPerBlock, kPerTensor };

struct QuantizeF8Args {
  F8Scaling scaling;
  const void* x;
  int64_t x_stride;  // elements
  ElementType x_type;
  int32_t num_tokens;
  int64_t cols;  // K
  void* out;
  float* scales;
  int64_t scale_stride;  // kPerBlock: at least num_tokens
  float* row_maxima;     // kPerTensor
};
int quantize_f8(const QuantizeF8Args& args, Stream stream);

}  // namespace sextant::kernels::cuda
