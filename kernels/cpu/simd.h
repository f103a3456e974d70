// Sixteen fp32 lanes on every instruction set: the only vector type that the sources compiled once per instruction set use.
// A source compiled with SEXTANT_ISA=<name> and SEXTANT_ISA_LEVEL=<0 generic, 1 avx2, 2 avx512 with VNNI, 3 with BF16 too, 4 with AMX,
// 10 neon, 11 with dot products> gets its lanes from one of the headers below. Everything here has internal linkage: an inline function with external linkage would be merged
// by the linker with the copy of another instruction set (a test refuses weak symbols in these objects), hence no std here.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(SEXTANT_ISA) || !defined(SEXTANT_ISA_LEVEL)
#error "this header is for sources compiled once per instruction set"
#endif

#define SEXTANT_INLINE static inline __attribute__((always_inline, unused))

#if SEXTANT_ISA_LEVEL >= 10
#include "kernels/cpu/simd_neon.h"
#elif SEXTANT_ISA_LEVEL >= 2
#include "kernels/cpu/simd_avx512.h"
#elif SEXTANT_ISA_LEVEL == 1
#include "kernels/cpu/simd_avx2.h"
#else
#include "kernels/cpu/simd_generic.h"
#endif

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

template <int kValue>
struct Int {
  static constexpr int value = kValue;
};

// body(Int<0>{}), ..., body(Int<kCount - 1>{}): a loop whose index is a constant in each turn.
template <int kCount, int kIndex = 0, typename Body>
__attribute__((always_inline)) inline void unroll(Body&& body) {
  if constexpr (kIndex < kCount) {
    body(Int<kIndex>{});
    unroll<kCount, kIndex + 1>(body);
  }
}

// Keys and values are stored as bf16 or fp32.
SEXTANT_INLINE F32x16 load_element16(const float* p) { return load(p); }
SEXTANT_INLINE F32x16 load_element16(const uint16_t* p) { return load_bf16(p); }
SEXTANT_INLINE void store_element16(float* p, F32x16 v) { store(p, v); }
SEXTANT_INLINE void store_element16(uint16_t* p, F32x16 v) { store_bf16(p, v); }

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
