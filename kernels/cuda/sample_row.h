// What one block does with one row of logits: walks it, orders its values, turns them into masses, adds them up. Device
// code of sample.cu and logprobs.cu; their contracts say why sums are integers.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "kernels/cuda/element.h"
#include "kernels/cuda/shared_memory.h"
#include "kernels/cuda/warp.h"

namespace sextant::kernels::cuda {

inline constexpr int kRowThreads = 512;
inline constexpr int kRowWarps = kRowThreads / 32;

// kRowWarps, but unknown to the compiler: loops over warps' totals stay loops, as unrolled ones would spill.
__device__ __forceinline__ int num_row_warps() { return static_cast<int>(blockDim.x / 32); }

// The tokens that take part: all of a row, or those of a list of ids.
struct RowView {
  const float* logits;
  const int32_t* ids;  // ascending; null: all
  int32_t size;

  __device__ __forceinline__ int32_t id(int32_t i) const { return ids == nullptr ? i : ids[i]; }
  __device__ __forceinline__ float value(int32_t i) const { return logits[id(i)]; }
  // Warps take runs of whole 512-byte accesses, in order.
  __device__ __forceinline__ int32_t run_length() const {
    return (size + kRowWarps * 128 - 1) / (kRowWarps * 128) * 128;
  }
};

// body(i, value) for each i of the calling warp's run, ascending in each thread. Two 128-bit loads per thread are begun
// together: two blocks per multiprocessor then have 32 KB under way.
template <typename Body>
__device__ __forceinline__ void for_each_of_run(const RowView& row, Body&& body) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x % 32), warp = static_cast<int32_t>(threadIdx.x / 32);
  const int32_t begin = min(warp * row.run_length(), row.size), end = min(begin + row.run_length(), row.size);
  if (row.ids != nullptr) {
    for (int32_t i = begin + lane; i < end; i += 32) body(i, row.logits[row.ids[i]]);
    return;
  }
  const float* x = row.logits;
  const auto past = static_cast<int32_t>(reinterpret_cast<uintptr_t>(x + begin) % 16 / 4);
  const int32_t first = min(begin + (4 - past) % 4, end);
  const int32_t last = first + (end - first) / 4 * 4;
  if (begin + lane < first) body(begin + lane, x[begin + lane]);
  int32_t i = first + lane * 4;
  for (; i + 128 < last; i += 2 * 128) {
    float4 v[2];
    SEXTANT_UNROLL
    for (int k = 0; k < 2; ++k) v[k] = *reinterpret_cast<const float4*>(x + i + k * 128);
    SEXTANT_UNROLL
    for (int k = 0; k < 2; ++k) {
      body(i + k * 128, v[k].x);
      body(i + k * 128 + 1, v[k].y);
      body(i + k * 128 + 2, v[k].z);
      body(i + k * 128 + 3, v[k].w);
    }
  }
  for (; i < last; i += 128) {
    const float4 v = *reinterpret_cast<const float4*>(x + i);
    body(i, v.x);
    body(i + 1, v.y);
    body(i + 2, v.z);
    body(i + 3, v.w);
  }
  if (last + lane < end) body(last + lane, x[last + lane]);
}

// Orders floats as unsigned numbers; NaN as -infinity, -0 as 0.
__device__ __forceinline__ uint32_t order_key(float x) {
  if (!(x > -INFINITY)) x = -INFINITY;
  const uint32_t bits = __float_as_uint(x == 0.0f ? 0.0f : x);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

// e^x for x <= 0 within 2 units in the last place, exactly 1 at 0; 0 below -32, and for NaN. Fused and rounded
// operations only, so that its bits are the same everywhere. Cody and Waite reduction, polynomial as in
// kernels/cpu/simd_math.h.
__device__ __forceinline__ float exp_of_nonpositive(float x) {
  if (!(x >= -32.0f)) return 0.0f;
  const float n = rintf(__fmul_rn(x, 0x1.715476p0f));
  float r = __fmaf_rn(n, -0x1.63p-1f, x);
  r = __fmaf_rn(n, 0x1.bd0106p-13f, r);
  float p = 0x1.6a21a8p-10f;
  p = __fmaf_rn(p, r, 0x1.123b68p-7f);
  p = __fmaf_rn(p, r, 0x1.5558fcp-5f);
  p = __fmaf_rn(p, r, 0x1.555490p-3f);
  p = __fmaf_rn(p, r, 0x1.fffffcp-2f);
  p = __fmaf_rn(__fmul_rn(r, r), p, r);
  return __fmul_rn(__fadd_rn(p, 1.0f), __int_as_float((static_cast<int>(n) + 127) << 23));
}

inline constexpr float kLeastMass = 0x1p-45f;  // 2^18 masses of at most 1 fit into 64 bits
__device__ __forceinline__ uint64_t mass_of(float probability) { return static_cast<uint64_t>(probability * 0x1p45f); }

// Sums, and the largest, over the block; every thread calls and gets them.
__device__ __forceinline__ uint64_t block_sum_u64(uint64_t x) {
  SEXTANT_SHARED(uint64_t, of_warp, [kRowWarps]);
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(kFullWarp, x, distance);
  __syncthreads();  // of_warp may still be read by the call before
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  uint64_t sum = 0;
  for (int w = 0; w < num_row_warps(); ++w) sum += of_warp[w];
  return sum;
}

struct Largest {
  float value;  // -infinity: nothing above it
  int32_t at;   // the first such; 0 where there is none
};
__device__ __forceinline__ Largest block_largest(const RowView& row) {
  SEXTANT_SHARED(uint64_t, of_warp, [kRowWarps]);
  Largest best{-INFINITY, 0};
  for_each_of_run(row, [&](int32_t i, float x) {
    if (x > best.value) best = {x, i};
  });
  // Larger value first, then lower place.
  uint64_t packed = (uint64_t{order_key(best.value)} << 32) | ~static_cast<uint32_t>(best.at);
  for (int distance = 16; distance > 0; distance /= 2) {
    const uint64_t other = __shfl_xor_sync(kFullWarp, packed, distance);
    if (other > packed) packed = other;
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = packed;
  __syncthreads();
  for (int w = 0; w < num_row_warps(); ++w) {
    if (of_warp[w] > packed) packed = of_warp[w];
  }
  const auto key = static_cast<uint32_t>(packed >> 32);
  return {__uint_as_float((key >> 31) != 0 ? key & 0x7fffffffu : ~key),
          static_cast<int32_t>(~static_cast<uint32_t>(packed))};
}

}  // namespace sextant::kernels::cuda
