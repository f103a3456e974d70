// Transcendental functions of the CPU paths, exposed as array functions so that tests can hold them to their bounds.
//
//   exp:   y[i] = e^x[i]. Within 2 units in the last place for -87.33 <= x <= 88.37; exactly 1 at 0; 0 below, +inf above;
//          NaN stays NaN. Cody and Waite reduction by ln 2, then a polynomial of degree 6 (Remez, relative error 3e-9).
//   tanh:  y[i] = tanh(x[i]) within 4 units in the last place. An odd polynomial below 0.625, else 1 - 2 / (e^2|x| + 1).
//
// y may be x. Each lane is independent.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sextant::kernels::cpu {

using MapFunction = void(const float* x, float* y, int64_t n);

}  // namespace sextant::kernels::cpu
