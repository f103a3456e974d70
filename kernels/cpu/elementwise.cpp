// add, add_bias, silu_mul (elementwise.h). Compiled once per instruction set.
#include "kernels/elementwise.h"

#include "kernels/cpu/isa_entries.h"
#include "kernels/cpu/simd_math.h"

SEXTANT_DECLARE_ISA_ENTRIES(SEXTANT_ISA)

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

SEXTANT_INLINE void add_row(float* x, const float* y, int64_t cols) {
  int64_t i = 0;
  for (; i + 16 <= cols; i += 16) store(x + i, add(load(x + i), load(y + i)));
  if (const int n = static_cast<int>(cols - i); n > 0) store_n(x + i, add(load_n(x + i, n), load_n(y + i, n)), n);
}

SEXTANT_INLINE F32x16 silu(F32x16 g) { return div(g, add(broadcast(1.0f), exp_lanes(negate(g)))); }

}  // namespace

void add(const ElementwiseArgs& args) {
  for (int64_t t = 0; t < args.rows; ++t) add_row(args.x + t * args.x_stride, args.y + t * args.y_stride, args.cols);
}

void add_bias(const ElementwiseArgs& args) {
  for (int64_t t = 0; t < args.rows; ++t) add_row(args.x + t * args.x_stride, args.y, args.cols);
}

void silu_mul(const ElementwiseArgs& args) {
  for (int64_t t = 0; t < args.rows; ++t) {
    float* out = args.x + t * args.x_stride;
    const float* gate = args.y + t * args.y_stride;
    const float* up = gate + args.cols;
    int64_t i = 0;
    for (; i + 16 <= args.cols; i += 16) store(out + i, mul(silu(load(gate + i)), load(up + i)));
    if (const int n = static_cast<int>(args.cols - i); n > 0) {
      store_n(out + i, mul(silu(load_n(gate + i, n)), load_n(up + i, n)), n);
    }
  }
}

}  // namespace sextant::kernels::cpu::SEXTANT_ISA
