// The tensor cores' product by the type of its operands. Fragments as in ptx.h.
#pragma once

#include "kernels/cuda/element.h"
#include "kernels/cuda/ptx.h"

namespace sextant::kernels::cuda {

// d += a b, fp32 sums of exact products of T.
template <typename T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <>
__device__ __forceinline__ void mma_m16n8k16<bf16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma_m16n8k16_bf16(d, a, b);
}
template <>
__device__ __forceinline__ void mma_m16n8k16<fp16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma_m16n8k16_f16(d, a, b);
}

}  // namespace sextant::kernels::cuda
