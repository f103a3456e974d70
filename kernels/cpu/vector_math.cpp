// Array functions over simd_math.h (vector_math.h). Compiled once per instruction set.
#include "kernels/vector_math.h"

#include "kernels/cpu/isa_entries.h"
#include "kernels/cpu/simd_math.h"

SEXTANT_DECLARE_ISA_ENTRIES(SEXTANT_ISA)

namespace sextant::kernels::cpu::SEXTANT_ISA {

void exp(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const int count = n - i < 16 ? static_cast<int>(n - i) : 16;
    store_n(y + i, exp_lanes(load_n(x + i, count)), count);
  }
}

void tanh(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const int count = n - i < 16 ? static_cast<int>(n - i) : 16;
    store_n(y + i, tanh_lanes(load_n(x + i, count)), count);
  }
}

}  // namespace sextant::kernels::cpu::SEXTANT_ISA
