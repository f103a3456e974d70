// What device code sees: thread indices, barriers, shared memory, warp collectives, atomics. Names and meanings are CUDA's
// (CUDA C++ Programming Guide, "C++ Language Extensions"). Included through the shadow <cuda_runtime.h> only.
#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/simt/block_run.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  // NOLINTNEXTLINE(google-explicit-constructor): as CUDA's
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define SIMT_VECTOR(type, name, alignment)                          \
  struct alignas(alignment) name##2 {                               \
    type x, y;                                                      \
  };                                                                \
  struct alignas(alignment * 2 > 16 ? 16 : alignment * 2) name##4 { \
    type x, y, z, w;                                                \
  };                                                                \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }  \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
SIMT_VECTOR(float, float, 8)
SIMT_VECTOR(int, int, 8)
SIMT_VECTOR(unsigned, uint, 8)
SIMT_VECTOR(unsigned short, ushort, 4)
#undef SIMT_VECTOR

namespace sextant::simt {

template <typename T>
struct LaneValue {
  T value;
  int source;  // the lane whose value is wanted; -1: its own
  T result;
};

// Each lane names the lane that it reads from; a lane that is not in the mask cannot be read.
template <typename T>
T exchange(const char* name, uint32_t mask, T value, int source) {
  LaneValue<T> mine{value, source, value};
  current_block().collective(name, mask, &mine, [](void* const* lanes, uint32_t in) {
    for (int lane = 0; lane < kWarpSize; ++lane) {
      if ((in >> lane & 1u) == 0) continue;
      auto& to = *static_cast<LaneValue<T>*>(lanes[lane]);
      if (to.source < 0 || to.source == lane) continue;
      if ((in >> to.source & 1u) == 0) current_block().fail("shuffle reads a lane that is not in its mask");
      to.result = static_cast<const LaneValue<T>*>(lanes[to.source])->value;
    }
  });
  return mine.result;
}

// The ballot of the lanes of `mask`.
inline uint32_t vote(const char* name, uint32_t mask, bool predicate) {
  struct Vote {
    bool predicate;
    uint32_t ballot;
  } mine{predicate, 0};
  current_block().collective(name, mask, &mine, [](void* const* lanes, uint32_t in) {
    uint32_t ballot = 0;
    for (int lane = 0; lane < kWarpSize; ++lane) {
      if ((in >> lane & 1u) != 0 && static_cast<Vote*>(lanes[lane])->predicate) ballot |= 1u << lane;
    }
    for (int lane = 0; lane < kWarpSize; ++lane) {
      if ((in >> lane & 1u) != 0) static_cast<Vote*>(lanes[lane])->ballot = ballot;
    }
  });
  return mine.ballot;
}

}  // namespace sextant::simt

namespace sextant::simt {

// A built-in variable as an object, so that structs may have members of the same names.
template <Dim3 (*kRead)(), unsigned Dim3::*kMember>
struct BuiltinComponent {
  // NOLINTNEXTLINE(google-explicit-constructor): CUDA's are plain numbers
  operator unsigned() const { return kRead().*kMember; }
};
template <Dim3 (*kRead)()>
struct BuiltinIndex {
  BuiltinComponent<kRead, &Dim3::x> x;
  BuiltinComponent<kRead, &Dim3::y> y;
  BuiltinComponent<kRead, &Dim3::z> z;
};
inline Dim3 read_thread_idx() { return current_thread().thread_idx; }
inline Dim3 read_block_idx() { return current_block().block_idx(); }
inline Dim3 read_block_dim() { return current_block().launch().block; }
inline Dim3 read_grid_dim() { return current_block().launch().grid; }

}  // namespace sextant::simt

inline constexpr ::sextant::simt::BuiltinIndex<&::sextant::simt::read_thread_idx> threadIdx;
inline constexpr ::sextant::simt::BuiltinIndex<&::sextant::simt::read_block_idx> blockIdx;
inline constexpr ::sextant::simt::BuiltinIndex<&::sextant::simt::read_block_dim> blockDim;
inline constexpr ::sextant::simt::BuiltinIndex<&::sextant::simt::read_grid_dim> gridDim;
#define warpSize 32

#define __syncthreads() ::sextant::simt::current_block().sync_threads(__FILE__, __LINE__)

inline void __syncwarp(unsigned mask = 0xffffffffu) { ::sextant::simt::vote("__syncwarp", mask, false); }
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return ::sextant::simt::vote("__ballot_sync", mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate) {
  return ::sextant::simt::vote("__any_sync", mask, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return ::sextant::simt::vote("__all_sync", mask, predicate != 0) == mask;
}
unsigned __activemask() = delete;  // says nothing that a program may rely on

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = ::sextant::simt::current_thread().lane();
  return ::sextant::simt::exchange("__shfl_sync", mask, value, (lane & ~(width - 1)) + (source & (width - 1)));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  const int lane = ::sextant::simt::current_thread().lane();
  const int source = lane ^ lane_mask;
  return ::sextant::simt::exchange("__shfl_xor_sync", mask, value, source / width <= lane / width ? source : -1);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = ::sextant::simt::current_thread().lane();
  const int place = lane & (width - 1);
  return ::sextant::simt::exchange("__shfl_up_sync", mask, value,
                                   place >= static_cast<int>(delta) ? lane - static_cast<int>(delta) : -1);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = ::sextant::simt::current_thread().lane();
  const int place = lane & (width - 1);
  return ::sextant::simt::exchange("__shfl_down_sync", mask, value,
                                   place + static_cast<int>(delta) < width ? lane + static_cast<int>(delta) : -1);
}

inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() { std::atomic_thread_fence(std::memory_order_seq_cst); }
template <typename T>
T atomicAdd(T* address, T value) {
  return std::atomic_ref<T>(*address).fetch_add(value);
}
template <typename T>
T atomicExch(T* address, T value) {
  return std::atomic_ref<T>(*address).exchange(value);
}
template <typename T>
T atomicCAS(T* address, T compare, T value) {
  std::atomic_ref<T>(*address).compare_exchange_strong(compare, value);
  return compare;
}
template <typename T>
T atomicMax(T* address, T value) {
  std::atomic_ref<T> at(*address);
  T old = at.load();
  while (old < value && !at.compare_exchange_weak(old, value)) {
  }
  return old;
}
template <typename T>
T atomicMin(T* address, T value) {
  std::atomic_ref<T> at(*address);
  T old = at.load();
  while (value < old && !at.compare_exchange_weak(old, value)) {
  }
  return old;
}

template <typename T>
T __ldg(const T* p) {
  return *p;
}
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) {
  unsigned y = 0;
  for (int i = 0; i < 32; ++i) y |= (x >> i & 1u) << (31 - i);
  return y;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline long min(long a, long b) { return a < b ? a : b; }
inline long max(long a, long b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
