// How element-wise kernels walk a matrix: one thread per access of kWidth elements, numbered row by row.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"

namespace sextant::kernels::cuda {

inline constexpr int kRowAccessThreads = 256;

// kWidth elements, moved by one access.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Elements {
  T at[kWidth];
};
template <int kWidth, typename T>
__device__ __forceinline__ Elements<T, kWidth> load_elements(const T* p) {
  return *reinterpret_cast<const Elements<T, kWidth>*>(p);
}
template <typename T, int kWidth>
__device__ __forceinline__ void store_elements(T* p, const Elements<T, kWidth>& v) {
  *reinterpret_cast<Elements<T, kWidth>*>(p) = v;
}
// fp32 operands of 16-bit elements come in accesses of at most 128 bits.
template <int kWidth>
__device__ __forceinline__ void load_floats(const float* p, float (&out)[kWidth]) {
  constexpr int kStep = kWidth < 4 ? kWidth : 4;
  SEXTANT_UNROLL
  for (int j = 0; j < kWidth; j += kStep) {
    const Elements<float, kStep> part = load_elements<kStep>(p + j);
    SEXTANT_UNROLL
    for (int k = 0; k < kStep; ++k) out[j + k] = part.at[k];
  }
}
template <int kWidth>
__device__ __forceinline__ void store_floats(float* p, const float (&values)[kWidth]) {
  constexpr int kStep = kWidth < 4 ? kWidth : 4;
  SEXTANT_UNROLL
  for (int j = 0; j < kWidth; j += kStep) {
    Elements<float, kStep> part;
    SEXTANT_UNROLL
    for (int k = 0; k < kStep; ++k) part.at[k] = values[j + k];
    store_elements(p + j, part);
  }
}

struct RowAccess {
  bool valid;
  int32_t row;
  int32_t col;
};
// The access of the calling thread, of rows * (cols / kWidth).
template <int kWidth>
__device__ __forceinline__ RowAccess row_access(int32_t rows, int32_t cols) {
  const uint32_t per_row = static_cast<uint32_t>(cols) / kWidth;
  const uint32_t i = blockIdx.x * kRowAccessThreads + threadIdx.x;
  const uint32_t row = i / per_row;
  return {row < static_cast<uint32_t>(rows), static_cast<int32_t>(row),
          static_cast<int32_t>((i - row * per_row) * kWidth)};
}

// Host side: whether all of these are multiples of 16 bytes.
struct AlignedOperand {
  const void* data;
  int64_t stride_bytes;
};
template <size_t kCount>
bool all_aligned(const AlignedOperand (&operands)[kCount]) {
  for (const AlignedOperand& operand : operands) {
    if (reinterpret_cast<uintptr_t>(operand.data) % 16 != 0 || operand.stride_bytes % 16 != 0) return false;
  }
  return true;
}
inline bool fits_row_access(int64_t rows, int64_t cols) {
  return rows >= 0 && cols > 0 && rows * cols < (int64_t{1} << 31);
}
inline LaunchShape row_access_shape(int64_t rows, int64_t cols, int width) {
  const int64_t accesses = rows * (cols / width);
  return {.grid = dim3(static_cast<unsigned>((accesses + kRowAccessThreads - 1) / kRowAccessThreads)),
          .block = dim3(kRowAccessThreads),
          .overlaps_previous = true};
}
// The kernel's instance of 128-bit accesses where all operands and the columns allow it, else the one of single elements.
template <typename T, typename Args, size_t kCount>
int launch_row_access(void (*wide)(Args), void (*narrow)(Args), const AlignedOperand (&operands)[kCount],
                      const Args& args, cudaStream_t stream) {
  const bool is_wide = args.cols % kPerVector<T> == 0 && all_aligned(operands);
  return launch(row_access_shape(args.rows, args.cols, is_wide ? kPerVector<T> : 1), stream, is_wide ? wide : narrow,
                args);
}

}  // namespace sextant::kernels::cuda
