// What the norms share: one block per row of the fp32 residual stream, accesses of 128 bits.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"

namespace sextant::kernels::cuda {

inline constexpr int kNormThreads = 256;

// out[i] = residual[i] * scale * weight[i]: each thread the columns that it wrote to `residual` itself, so no barrier.
template <typename T>
__device__ __forceinline__ void store_normed_row(const float* residual, float scale, const float* weight, int cols,
                                                 T* out) {
  constexpr int kWidth = kPerVector<T>;
  for (int i = static_cast<int>(threadIdx.x) * kWidth; i < cols; i += kNormThreads * kWidth) {
    Vector<T> result;
    SEXTANT_UNROLL
    for (int j = 0; j < kWidth; ++j) result.at[j] = from_float<T>(residual[i + j] * scale * weight[i + j]);
    store_vector(out + i, result);
  }
}

// Host side.
inline bool fits_norm(int32_t rows, int32_t cols) { return rows >= 0 && cols > 0 && cols % 8 == 0 && cols <= 65536; }
inline LaunchShape norm_shape(int32_t rows) {
  return {.grid = dim3(static_cast<unsigned>(rows)), .block = dim3(kNormThreads), .overlaps_previous = true};
}

}  // namespace sextant::kernels::cuda
