// What the prefill and decode kernels share: tensor core fragments of queries, keys, values and weights, copies into
// shared memory, one step of the online softmax. Names of fragments and registers as in ptx.h.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/tensor_core.h"
#include "kernels/cuda/warp.h"

namespace sextant::kernels::cuda {

// Tiles in shared memory: rows of kDim elements and 16 bytes more, so that the rows of an ldmatrix meet all banks.
template <int kDim>
inline constexpr int kTileStride = kDim + 8;

// Two blocks on a multiprocessor of compute capability 8.0: 164 KB, of which each block takes 1 KB beside its own.
constexpr bool fits_twice(size_t shared_bytes) { return 2 * (shared_bytes + 1024) <= 164 * 1024; }

template <typename T>
__device__ __forceinline__ uint32_t pack(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack<bf16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof(bits));
  return bits;
}
template <>
__device__ __forceinline__ uint32_t pack<fp16>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

// The lane's address for fragment a of 16 rows from `tile`'s first, columns [column, column + 16).
template <typename T, int kDim>
__device__ __forceinline__ const T* query_address(const T* tile, int lane) {
  return tile + lane % 16 * kTileStride<kDim> + lane / 16 * 8;
}
// For the b fragments of two times eight keys: key = column of b, k = dimension; registers 0, 1 of the first
// eight, 2, 3 of the second.
template <typename T, int kDim>
__device__ __forceinline__ const T* key_address(const T* tile, int lane) {
  return tile + (lane / 16 * 8 + lane % 8) * kTileStride<kDim> + lane / 8 % 2 * 8;
}
// For the b fragments of 16 values (k) by two times eight dimensions, with ldmatrix_x4_trans.
template <typename T, int kDim>
__device__ __forceinline__ const T* value_address(const T* tile, int lane) {
  return tile + lane % 16 * kTileStride<kDim> + lane / 16 * 8;
}

// first, second += a times the two b fragments that one ldmatrix_x4 gave.
template <typename T>
__device__ __forceinline__ void mma_pair(float (&first)[4], float (&second)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[4]) {
  const uint32_t low[2] = {b[0], b[1]};
  const uint32_t high[2] = {b[2], b[3]};
  mma_m16n8k16<T>(first, a, low);
  mma_m16n8k16<T>(second, a, high);
}

// A warp begins the copy of kRows keys or values from position `first` on, all of one block, to `to`. `from` is the
// first of them, rows of dim elements. Positions outside of `seen` and columns past dim arrive as zeros.
template <typename T, int kDim, int kRows>
__device__ __forceinline__ void copy_rows(T* to, const T* from, int first, VisibleRange seen, int dim, int lane) {
  // 128 bytes of a row are side by side in shared memory, without bank conflicts; 64 where kDim is no multiple of 64.
  constexpr int kWide = kDim % 64 == 0 ? 8 : 4;
  constexpr int kHigh = 32 / kWide;
  const int row = lane / kWide;
  const int column = lane % kWide * 8;
  to += row * kTileStride<kDim> + column;
  const T* lane_from = from + row * dim + column;
  SEXTANT_UNROLL
  for (int i = 0; i < kRows; i += kHigh) {
    const int position = first + row + i;
    const bool inside = position >= seen.low && position < seen.high;
    SEXTANT_UNROLL
    for (int j = 0; j < kDim; j += kWide * 8) {
      const bool read = inside && column + j < dim;
      cp_async_16(to + i * kTileStride<kDim> + j, read ? lane_from + j : from, read);
    }
    lane_from += kHigh * dim;
  }
}

// Scores leave the tensor cores as q.k. Their exponent to base 2 is to_log2 * tanh(before_cap * score), or to_log2 *
// score. Computed by the launcher: a kernel's parameters are operands that cost no register.
struct ScoreScale {
  float before_cap;  // 0: no cap
  float to_log2;
};
inline ScoreScale score_scale(const AttentionArgs& args) {
  constexpr float kLog2E = 1.44269504088896340736f;
  if (args.softcap > 0) return {args.scale / args.softcap, args.softcap * kLog2E};
  return {0.0f, args.scale * kLog2E};
}
// tanh(x) to an absolute error of 2^-21: what is left of the exponential's and the quotient's.
__device__ __forceinline__ float tanh_of(float x) {
  return 1.0f - __fdividef(2.0f, exp2_approx(x * (2 * 1.44269504088896340736f)) + 1.0f);
}

// One step of the online softmax for one row: takes the row's largest score into `largest`, the row's maximum so far
// (of scores before to_log2), and gives the exponent's offset and the factor for what was summed so far.
struct SoftmaxStep {
  float offset;
  float keep;
};
__device__ __forceinline__ SoftmaxStep advance_softmax(float& largest, float of_tile, float to_log2) {
  of_tile = fmaxf(of_tile, __shfl_xor_sync(kFullWarp, of_tile, 1));
  of_tile = fmaxf(of_tile, __shfl_xor_sync(kFullWarp, of_tile, 2));
  const float before = largest;
  largest = fmaxf(before, of_tile);
  // While nothing was seen the sums are zero, and any finite offset keeps exp2(-infinity - offset) at zero.
  const float offset = largest == -INFINITY ? 0.0f : largest * to_log2;
  return {offset, exp2_approx(before * to_log2 - offset)};
}

// Over the four lanes that share a row of a fragment.
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(kFullWarp, x, 1);
  return x + __shfl_xor_sync(kFullWarp, x, 2);
}

}  // namespace sextant::kernels::cuda
