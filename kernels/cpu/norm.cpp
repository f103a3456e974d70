// RMS normalisation (norm.h). Compiled once per instruction set.
#include "kernels/norm.h"

#include "kernels/cpu/isa_entries.h"
#include "kernels/cpu/simd.h"

SEXTANT_DECLARE_ISA_ENTRIES(SEXTANT_ISA)

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

constexpr int64_t kStep = 64;

// Four chains of sixteen lanes: enough in flight to hide the latency of fma, and one order on every row.
struct SquareSum {
  F32x16 part[4] = {zero(), zero(), zero(), zero()};

  float total() const { return reduce_add(add(add(part[0], part[1]), add(part[2], part[3]))); }
};

SEXTANT_INLINE int lanes_left(int64_t n) { return n >= 16 ? 16 : n > 0 ? static_cast<int>(n) : 0; }

SEXTANT_INLINE float inverse_rms(float square_sum, int64_t cols, float eps) {
  return 1.0f / __builtin_sqrtf(square_sum / static_cast<float>(cols) + eps);
}

SEXTANT_INLINE void scale_row(const float* x, float scale, const float* weight, float* out, int64_t cols) {
  const F32x16 s = broadcast(scale);
  int64_t i = 0;
  for (; i + 16 <= cols; i += 16) store(out + i, mul(mul(load(x + i), s), load(weight + i)));
  if (const int n = lanes_left(cols - i); n > 0) {
    store_n(out + i, mul(mul(load_n(x + i, n), s), load_n(weight + i, n)), n);
  }
}

}  // namespace

void rms_norm(const RmsNormArgs& args) {
  for (int64_t t = 0; t < args.rows; ++t) {
    const float* x = args.x + t * args.x_stride;
    SquareSum sum;
    int64_t i = 0;
    for (; i + kStep <= args.cols; i += kStep) {
      for (int j = 0; j < 4; ++j) {
        const F32x16 v = load(x + i + 16 * j);
        sum.part[j] = fma(v, v, sum.part[j]);
      }
    }
    for (int j = 0; j < 4 && i + 16 * j < args.cols; ++j) {
      const F32x16 v = load_n(x + i + 16 * j, lanes_left(args.cols - i - 16 * j));
      sum.part[j] = fma(v, v, sum.part[j]);
    }
    const float scale = inverse_rms(sum.total(), args.cols, args.eps);
    scale_row(x, scale, args.weight, args.out + t * args.out_stride, args.cols);
  }
}

void add_rms_norm(const RmsNormArgs& args) {
  for (int64_t t = 0; t < args.rows; ++t) {
    const float* x = args.x + t * args.x_stride;
    float* residual = args.residual + t * args.residual_stride;
    SquareSum sum;
    int64_t i = 0;
    for (; i + kStep <= args.cols; i += kStep) {
      for (int j = 0; j < 4; ++j) {
        const F32x16 v = add(load(residual + i + 16 * j), load(x + i + 16 * j));
        store(residual + i + 16 * j, v);
        sum.part[j] = fma(v, v, sum.part[j]);
      }
    }
    for (int j = 0; j < 4 && i + 16 * j < args.cols; ++j) {
      const int n = lanes_left(args.cols - i - 16 * j);
      const F32x16 v = add(load_n(residual + i + 16 * j, n), load_n(x + i + 16 * j, n));
      store_n(residual + i + 16 * j, v, n);
      sum.part[j] = fma(v, v, sum.part[j]);
    }
    const float scale = inverse_rms(sum.total(), args.cols, args.eps);
    scale_row(residual, scale, args.weight, args.out + t * args.out_stride, args.cols);
  }
}

}  // namespace sextant::kernels::cpu::SEXTANT_ISA
