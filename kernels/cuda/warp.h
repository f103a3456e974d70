// Reductions over a warp and a block, each in one fixed order.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/shared_memory.h"

namespace sextant::kernels::cuda {

inline constexpr unsigned kFullWarp = 0xffffffffu;

// The sum over the lanes, the same bits in each: a butterfly.
__device__ __forceinline__ float warp_sum(float x) {
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(kFullWarp, x, distance);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int distance = 16; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, distance));
  return x;
}

// The sum over a one-dimensional block of whole warps, at most 32; every thread calls it and gets it.
__device__ __forceinline__ float block_sum(float x) {
  SEXTANT_SHARED(float, of_warp, [32]);
  x = warp_sum(x);
  __syncthreads();  // of_warp may still be read by the call before
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? of_warp[threadIdx.x % 32] : 0.0f);
}

}  // namespace sextant::kernels::cuda
