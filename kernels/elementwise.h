// Row-wise element operations.
//
//   add:       x[t, i] += y[t, i]
//   add_bias:  x[t, i] += y[i]
//   silu_mul:  x[t, i] = silu(y[t, i]) * y[t, cols + i], silu(g) = g / (1 + exp(-g))
//   gelu_tanh_mul: the same of gelu(g) = g / 2 (1 + tanh(z)), z = sqrt(2 / pi) (g + 0.044715 g^3), as g / (1 + exp(-2 z))
//   softcap:   x[t, i] = cap tanh(x[t, i] / cap), cap > 0
//
// fp32, row strides in elements. x and y do not overlap. One call does `rows` rows of `cols` columns; every element is
// independent of all others and of its place. exp as in vector_math.h: silu within 4 units in the last place for |g| <= 87,
// gelu within 8 + 3 |2 z| of them for |2 z| <= 87; tanh as in vector_math.h.
// Source of gelu: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
// 4 bytes read or written per operand: bound by memory or by the cache.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sextant::kernels {

struct ElementwiseArgs {
  float* x;
  int64_t x_stride;
  const float* y;
  int64_t y_stride;
  int64_t rows;
  int64_t cols;
};

struct SoftcapArgs {
  float* x;
  int64_t x_stride;
  int64_t rows;
  int64_t cols;
  float cap;
};

namespace cpu {
using ElementwiseFunction = void(const ElementwiseArgs& args);
using SoftcapFunction = void(const SoftcapArgs& args);
}  // namespace cpu
}  // namespace sextant::kernels
