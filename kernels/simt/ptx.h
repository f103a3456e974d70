// The emulator's side of kernels/cuda/ptx.h: the same functions with the PTX ISA's fragment layouts, as warp collectives.
// Products of a fragment are summed in fp32 in the order of k on top of c; real tensor cores round in another order.
#pragma once

#include <cstdint>
#include <cstring>

#include <cuda_fp16.h>

#include "kernels/simt/device_code.h"

namespace sextant::kernels::cuda {

namespace simt_ptx {

inline float f32_of_bf16(uint32_t half) { return std::bit_cast<float>(half << 16); }
inline float f32_of_f16(uint32_t half) { return __half2float(__half_raw{static_cast<unsigned short>(half)}); }

// To fp32 by rounding to odd, which no second rounding to 16 bits can spoil.
inline float f32_rounded_to_odd(double x) {
  const auto nearest = static_cast<float>(x);
  if (static_cast<double>(nearest) == x || !std::isfinite(nearest)) return nearest;
  auto bits = std::bit_cast<uint32_t>(nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(x)) --bits;
  return std::bit_cast<float>(bits | 1u);
}
// Rounded once: a b is exact in fp64, and so is the sum as far as its rounding to 16 bits can tell.
inline uint32_t fma_bf16(uint32_t a, uint32_t b, uint32_t c) {
  const float sum = f32_rounded_to_odd(static_cast<double>(f32_of_bf16(a)) * static_cast<double>(f32_of_bf16(b)) +
                                       static_cast<double>(f32_of_bf16(c)));
  if (std::isnan(sum)) return 0x7fffu;
  const auto bits = std::bit_cast<uint32_t>(sum);
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
inline uint32_t fma_f16(uint32_t a, uint32_t b, uint32_t c) {
  return __float2half(f32_rounded_to_odd(static_cast<double>(f32_of_f16(a)) * static_cast<double>(f32_of_f16(b)) +
                                         static_cast<double>(f32_of_f16(c))))
      .bits;
}

struct MmaLane {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type": group = lane / 4, member = lane % 4.
//   a[i]: row group + 8 (i % 2), columns 2 member + 8 (i / 2) + {0, 1}
//   b[i]: column group, rows 2 member + 8 i + {0, 1};  d[i]: row group + 8 (i / 2), column 2 member + i % 2
template <float (*kToFloat)(uint32_t)>
void complete_mma(void* const* lanes, uint32_t) {
  float a[16][16];
  float b[8][16];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& from = *static_cast<const MmaLane*>(lanes[lane]);
    const int group = lane / 4;
    const int member = lane % 4;
    for (int i = 0; i < 4; ++i) {
      for (int h = 0; h < 2; ++h) {
        a[group + 8 * (i % 2)][2 * member + 8 * (i / 2) + h] = kToFloat(from.a[i] >> (16 * h) & 0xffffu);
      }
    }
    for (int i = 0; i < 2; ++i) {
      for (int h = 0; h < 2; ++h) b[group][2 * member + 8 * i + h] = kToFloat(from.b[i] >> (16 * h) & 0xffffu);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    float* d = static_cast<const MmaLane*>(lanes[lane])->d;
    for (int i = 0; i < 4; ++i) {
      const float* row = a[lane / 4 + 8 * (i / 2)];
      const float* column = b[2 * (lane % 4) + i % 2];
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += row[k] * column[k];
      d[i] += sum;
    }
  }
}

struct LdmatrixLane {
  uint32_t* registers;
  const void* row;
};

// Matrix i's row r is at the address of lane 8 i + r; lane l gets of matrix i row l / 4, elements 2 (l % 4) + {0, 1}; with
// .trans column l / 4 instead of the row.
template <int kCount, bool kTransposed>
void complete_ldmatrix(void* const* lanes, uint32_t) {
  for (int i = 0; i < kCount; ++i) {
    uint16_t matrix[8][8];
    for (int r = 0; r < 8; ++r) {
      const void* row = static_cast<const LdmatrixLane*>(lanes[8 * i + r])->row;
      auto& block = ::sextant::simt::current_block();
      if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
        block.fail("ldmatrix: a row is not aligned to 16 bytes", ::sextant::simt::BlockRun::Violation::kAlignment);
      }
      if (!block.is_shared(row, 16)) block.fail("ldmatrix: a row is not in shared memory");
      std::memcpy(matrix[r], row, 16);
    }
    for (int lane = 0; lane < 32; ++lane) {
      const int r = lane / 4;
      const int c = 2 * (lane % 4);
      const uint32_t low = kTransposed ? matrix[c][r] : matrix[r][c];
      const uint32_t high = kTransposed ? matrix[c + 1][r] : matrix[r][c + 1];
      static_cast<const LdmatrixLane*>(lanes[lane])->registers[i] = low | high << 16;
    }
  }
}

template <int kCount, bool kTransposed>
void ldmatrix(uint32_t* registers, const void* row) {
  LdmatrixLane mine{registers, row};
  ::sextant::simt::current_block().collective(kTransposed ? "ldmatrix.trans" : "ldmatrix", 0xffffffffu, &mine,
                                              &complete_ldmatrix<kCount, kTransposed>);
}

}  // namespace simt_ptx

inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  simt_ptx::MmaLane mine{d, a, b};
  ::sextant::simt::current_block().collective("mma.sync.bf16", 0xffffffffu, &mine,
                                              &simt_ptx::complete_mma<&simt_ptx::f32_of_bf16>);
}
inline void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  simt_ptx::MmaLane mine{d, a, b};
  ::sextant::simt::current_block().collective("mma.sync.f16", 0xffffffffu, &mine,
                                              &simt_ptx::complete_mma<&simt_ptx::f32_of_f16>);
}
inline uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d = 0;
  for (int h = 0; h < 32; h += 16) {
    d |= simt_ptx::fma_bf16(a >> h & 0xffffu, b >> h & 0xffffu, c >> h & 0xffffu) << h;
  }
  return d;
}
inline uint32_t fma_f16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d = 0;
  for (int h = 0; h < 32; h += 16) {
    d |= simt_ptx::fma_f16(a >> h & 0xffffu, b >> h & 0xffffu, c >> h & 0xffffu) << h;
  }
  return d;
}
inline void ldmatrix_x4(uint32_t (&registers)[4], const void* row) { simt_ptx::ldmatrix<4, false>(registers, row); }
inline void ldmatrix_x2(uint32_t (&registers)[2], const void* row) { simt_ptx::ldmatrix<2, false>(registers, row); }
inline void ldmatrix_x4_trans(uint32_t (&registers)[4], const void* row) {
  simt_ptx::ldmatrix<4, true>(registers, row);
}
inline void ldmatrix_x2_trans(uint32_t (&registers)[2], const void* row) {
  simt_ptx::ldmatrix<2, true>(registers, row);
}

inline void cp_async_16(void* to_shared, const void* from_global, bool read = true) {
  auto& block = ::sextant::simt::current_block();
  if (reinterpret_cast<uintptr_t>(to_shared) % 16 != 0 || reinterpret_cast<uintptr_t>(from_global) % 16 != 0) {
    block.fail("cp.async: an address is not aligned to 16 bytes", ::sextant::simt::BlockRun::Violation::kAlignment);
  }
  if (!block.is_shared(to_shared, 16)) block.fail("cp.async: the destination is not in shared memory");
  std::memset(to_shared, 0xFF, 16);  // until the wait anything may be there
  ::sextant::simt::current_thread().open_copies.copies.push_back({to_shared, from_global, 16, read ? 16u : 0u});
}
inline void cp_async_commit() {
  auto& thread = ::sextant::simt::current_thread();
  thread.committed_copies.push_back(std::move(thread.open_copies));
  thread.open_copies = {};
  // Under a random order a group may be there before its wait.
  if (::sextant::simt::current_block().flip()) thread.committed_copies.back().arrive();
}
// Waits until at most kPending of the newest groups are still open.
template <int kPending>
inline void cp_async_wait() {
  auto& groups = ::sextant::simt::current_thread().committed_copies;
  if (groups.size() <= kPending) return;
  const auto end = groups.end() - kPending;
  for (auto group = groups.begin(); group != end; ++group) group->arrive();
  groups.erase(groups.begin(), end);
}

// 128-bit loads and stores past the L1 cache.
template <typename T>
inline T load_streaming(const T* p) {
  static_assert(sizeof(T) == 16);
  if (reinterpret_cast<uintptr_t>(p) % 16 != 0) {
    ::sextant::simt::current_block().fail("a 128-bit load is not aligned to 16 bytes",
                                          ::sextant::simt::BlockRun::Violation::kAlignment);
  }
  return *p;
}

inline float exp2_approx(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0.0f : y;
}

// Programmatic dependent launch: no effect on results, but for what a test does there (runtime.h).
inline void grid_dependency_wait() { ::sextant::simt::wait_for_previous_grid(); }
inline void grid_dependency_launch() { ::sextant::simt::launch_next_grid(); }

}  // namespace sextant::kernels::cuda
