// The recipe of matmul.h for fp32, fp16 and bf16 weights: fp32 fused multiply-adds. Included by matmul.cpp only.
#pragma once

#include "kernels/cpu/matmul_tile.h"

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

constexpr int kChunk = 8;  // columns between two looks at the weights' address

struct PlainInput {
  static constexpr MatmulInputKind kKind = MatmulInputKind::kPlain;

  // Brings in one block of a token at its place of a tile: [4][tile][8].
  SEXTANT_INLINE void put(F32x16 low, F32x16 high, uint8_t* block, int tile, int place) {
    float lane[kPanelBlock];
    store(lane, low);
    store(lane + 16, high);
    for (int i = 0; i < 4; ++i) __builtin_memcpy(block + (i * tile + place) * kChunk * 4, lane + i * kChunk, 32);
  }
  template <int kTile>
  SEXTANT_INLINE bool put_rows(const F32x16 (*)[2], uint8_t*) {
    return false;
  }
};

// Column kColumn of a chunk of 16 rows' weights.
template <PanelType kType>
constexpr int64_t kElementBytes = kType == PanelType::kF32 ? 4 : 2;
template <PanelType kType>
SEXTANT_INLINE F32x16 load_column(const uint8_t* at) {
  if constexpr (kType == PanelType::kF32) return load(reinterpret_cast<const float*>(at));
  if constexpr (kType == PanelType::kF16) return load_f16(at);
  if constexpr (kType == PanelType::kBF16) return load_bf16(at);
}

// kPanels at a time; a short group repeats its last panel, whose results are dropped.
template <PanelType kType, int kPanels, int kTokens>
void run_plain_tile(const TileJob& job) {
  constexpr int64_t kBlockBytes = panel_block_stride(kType), kColumnBytes = 16 * kElementBytes<kType>;
  const int64_t blocks = num_panel_blocks(job.args->cols);
  for (int64_t group = job.begin; group < job.end; group += kPanels) {
    const uint8_t* w[kPanels];
    for (int r = 0; r < kPanels; ++r) {
      const int64_t panel = group + r < job.end ? group + r : job.end - 1;
      w[r] = job.args->panels + panel * blocks * kBlockBytes;
    }
    F32x16 total[kPanels][kTokens];
    for (int r = 0; r < kPanels; ++r) {
      for (int t = 0; t < kTokens; ++t) total[r][t] = zero();
    }
    const float* x = reinterpret_cast<const float*>(job.input);
    for (int64_t b = 0; b < blocks; ++b) {
      F32x16 sum[kPanels][kTokens];
#pragma GCC unroll 16
      for (int r = 0; r < kPanels; ++r) {
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) sum[r][t] = zero();
      }
      for (int i = 0; i < kPanelBlock / kChunk; ++i) {
#pragma GCC unroll 8
        for (int column = 0; column < kChunk; ++column) {
          F32x16 lane[kPanels];
#pragma GCC unroll 16
          for (int r = 0; r < kPanels; ++r) lane[r] = load_column<kType>(w[r] + column * kColumnBytes);
#pragma GCC unroll 16
          for (int t = 0; t < kTokens; ++t) {
            const F32x16 xk = broadcast(x[t * kChunk + column]);
#pragma GCC unroll 16
            for (int r = 0; r < kPanels; ++r) sum[r][t] = fma(lane[r], xk, sum[r][t]);
          }
        }
        for (int r = 0; r < kPanels; ++r) w[r] += kChunk * kColumnBytes;
        x += kTokens * kChunk;
      }
#pragma GCC unroll 16
      for (int r = 0; r < kPanels; ++r) {
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) total[r][t] = add(total[r][t], sum[r][t]);
      }
    }
    for (int r = 0; r < kPanels && group + r < job.end; ++r) {
      for (int t = 0; t < job.num_tokens; ++t) store_outputs(job, group + r, t, total[r][t]);
    }
  }
}

// Sized so that sums, weights and a broadcast fit the registers.
#if SEXTANT_ISA_LEVEL >= 2 && SEXTANT_ISA_LEVEL < 10
constexpr TileShape kPlainTiles[] = {{1, 4}, {2, 4}, {4, 4}, {8, 2}, {12, 2}};
#elif SEXTANT_ISA_LEVEL == 1 || SEXTANT_ISA_LEVEL >= 10
constexpr TileShape kPlainTiles[] = {{1, 2}, {2, 2}, {4, 1}, {6, 1}};
#else
constexpr TileShape kPlainTiles[] = {{1, 1}, {2, 1}};
#endif

template <PanelType kType>
struct PlainTiles {
  static constexpr int kNumTiles = sizeof(kPlainTiles) / sizeof(kPlainTiles[0]);
  static constexpr int tokens(int index) { return kPlainTiles[index].tokens; }
  template <int kIndex>
  SEXTANT_INLINE void run(const TileJob& job) {
    run_plain_tile<kType, kPlainTiles[kIndex].panels, kPlainTiles[kIndex].tokens>(job);
  }
};

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
