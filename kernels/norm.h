// RMS normalisation, with and without the residual sum before it.
//
//   rms_norm:      out[t, i] = x[t, i] * (1 / sqrt(mean over i of x[t, i]^2 + eps)) * weight[i]
//   add_rms_norm:  residual[t, i] += x[t, i]; out = rms_norm(residual)
//
// Heads of a row are normalised as rows of their own (QK-norm: Henry et al., arXiv:2010.04245), one call per row of heads.
//
// x, residual, out [T, H] fp32 with row strides >= H; weight [H] fp32. out may be x (rms_norm) and may be x (add_rms_norm);
// otherwise nothing overlaps. One call does `rows` rows; rows are independent. Reads and writes 4 bytes per element two or
// three times, a few operations each: bound by memory or by the cache.
// Determinism: 64 partial sums of squares in the order of i, added in a fixed tree; a row depends on itself alone.
// Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sextant::kernels {

struct RmsNormArgs {
  float* residual;  // add_rms_norm only
  int64_t residual_stride;
  const float* x;
  int64_t x_stride;
  const float* weight;
  float eps;
  float* out;
  int64_t out_stride;
  int64_t rows;
  int64_t cols;  // H >= 1
};

namespace cpu {
using RmsNormFunction = void(const RmsNormArgs& args);
}  // namespace cpu
}  // namespace sextant::kernels
