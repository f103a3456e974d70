// add, add_bias, gates, softcap (elementwise.h). Compiled once per instruction set.
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

// g / (1 + exp(-2 z)); 2 z = g (a + b g^2).
SEXTANT_INLINE F32x16 gelu_tanh(F32x16 g) {
  constexpr float kA = 1.5957691216057308f, kB = 0.07135481627159628f;
  const F32x16 twice_z = mul(g, fma(mul(g, g), broadcast(kB), broadcast(kA)));
  return div(g, add(broadcast(1.0f), exp_lanes(negate(twice_z))));
}

// x[t, i] = gate(y[t, i]) * y[t, cols + i]
template <typename Gate>
SEXTANT_INLINE void gate_rows(const ElementwiseArgs& args, Gate gate) {
  for (int64_t t = 0; t < args.rows; ++t) {
    float* out = args.x + t * args.x_stride;
    const float* gates = args.y + t * args.y_stride;
    const float* up = gates + args.cols;
    int64_t i = 0;
    for (; i + 16 <= args.cols; i += 16) store(out + i, mul(gate(load(gates + i)), load(up + i)));
    if (const int n = static_cast<int>(args.cols - i); n > 0) {
      store_n(out + i, mul(gate(load_n(gates + i, n)), load_n(up + i, n)), n);
    }
  }
}

}  // namespace

void add(const ElementwiseArgs& args) {
  for (int64_t t = 0; t < args.rows; ++t) add_row(args.x + t * args.x_stride, args.y + t * args.y_stride, args.cols);
}

void add_bias(const ElementwiseArgs& args) {
  for (int64_t t = 0; t < args.rows; ++t) add_row(args.x + t * args.x_stride, args.y, args.cols);
}

void silu_mul(const ElementwiseArgs& args) {
  gate_rows(args, [](F32x16 g) { return silu(g); });
}

void gelu_tanh_mul(const ElementwiseArgs& args) {
  gate_rows(args, [](F32x16 g) { return gelu_tanh(g); });
}

void softcap(const SoftcapArgs& args) {
  const F32x16 cap = broadcast(args.cap);
  for (int64_t t = 0; t < args.rows; ++t) {
    float* x = args.x + t * args.x_stride;
    int64_t i = 0;
    for (; i + 16 <= args.cols; i += 16) store(x + i, mul(tanh_lanes(div(load(x + i), cap)), cap));
    if (const int n = static_cast<int>(args.cols - i); n > 0)
      store_n(x + i, mul(tanh_lanes(div(load_n(x + i, n), cap)), cap), n);
  }
}

}  // namespace sextant::kernels::cpu::SEXTANT_ISA
