// The gate of a feed-forward layer: out[t, i] = f(gate_up[t, i]) * gate_up[t, cols + i].
//
//   silu:      f(g) = g / (1 + exp(-g))
//   gelu_tanh: f(g) = g / 2 (1 + tanh(z)), z = sqrt(2 / pi) (g + 0.044715 g^3), computed as g / (1 + exp(-2 z))
//   gelu_erf:  f(g) = g / 2 erfc(-g / sqrt 2)
//
// gate_up [T, 2 cols], out [T, cols], both of `type`; row strides in elements; they do not overlap. rows * cols < 2^31.
// Pointers are aligned to their element. Accesses are 128 bits wide where pointers, strides and cols are multiples of
// 16 bytes, else one element each.
// One thread does one access; a block 256 of them, over rows and columns alike.
// Bytes: gate_up read once, out written once; about 20 operations per element: bound by memory.
// Numbers: fp32 throughout, one rounding to the type. fp32 output: within 8 units in the last place of each factor for
// |g| <= 80. 16-bit output uses the hardware's exp2 and division (relative error below 2^-19), which the rounding to
// the type hides; f(g) below 2^-126 |g| in magnitude may become 0.
// Determinism: an element depends on its own operands alone.
// Source: Shazeer, GLU Variants Improve Transformer, 2020; Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
#pragma once

#include <cstdint>

#include "kernels/cuda/types.h"

namespace sextant::kernels::cuda {

enum class Activation : uint8_t { kSilu, kGeluTanh, kGeluErf };

struct ActivationMulArgs {
  const void* gate_up;
  int64_t gate_up_stride;
  void* out;
  int64_t out_stride;
  int32_t rows;
  int32_t cols;  // of out
  ElementType type;
  Activation activation;
};
int activation_mul(const ActivationMulArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
