// Row-wise element operations.
//
//   add:       x[t, i] += y[t, i]
//   add_bias:  x[t, i] += y[i]
//   silu_mul:  x[t, i] = silu(y[t, i]) * y[t, cols + i], silu(g) = g / (1 + exp(-g))
//
// fp32, row strides in elements. x and y do not overlap. One call does `rows` rows of `cols` columns; every element is
// independent of all others and of its place. exp as in vector_math.h: silu within 4 units in the last place for |g| <= 87.
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

namespace cpu {
using ElementwiseFunction = void(const ElementwiseArgs& args);
}  // namespace cpu
}  // namespace sextant::kernels
