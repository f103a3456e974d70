// The int8 recipe of matmul.h over the dot products of one instruction set. Included by matmul.cpp only.
#pragma once

#include "kernels/cpu/matmul_tile.h"
#if SEXTANT_ISA_LEVEL >= 10
#include "kernels/cpu/int8_neon.h"
#elif SEXTANT_ISA_LEVEL == 4
#include "kernels/cpu/int8_amx.h"
#elif SEXTANT_ISA_LEVEL >= 2
#include "kernels/cpu/int8_avx512.h"
#elif SEXTANT_ISA_LEVEL == 1
#include "kernels/cpu/int8_avx2.h"
#else
#include "kernels/cpu/int8_generic.h"
#endif

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

// Parts of a block of an input tile, in bytes.
constexpr int64_t int8_block_bytes(int64_t tile) { return tile * matmul_input_block_bytes(MatmulInputKind::kInt8); }

// Where instructions take whole tiles of tokens, q of such a tile stands as [tile][32] instead of [8][tile][4].
#if SEXTANT_ISA_LEVEL != 4
constexpr bool takes_tiles(int) { return false; }
template <int kTokens>
SEXTANT_INLINE void begin_tiles() {}
template <int kTokens>
SEXTANT_INLINE void end_tiles() {}
#endif

struct Int8Input {
  static constexpr MatmulInputKind kKind = MatmulInputKind::kInt8;

  // Brings in one block of a token at its place of a tile.
  SEXTANT_INLINE void put(F32x16 low, F32x16 high, uint8_t* block, int tile, int place) {
    int8_t q[kPanelBlock];
    float e;
    int32_t sum;
    quantize_block(low, high, q, &e, &sum);
    if (takes_tiles(tile)) {
      __builtin_memcpy(block + place * kPanelBlock, q, kPanelBlock);
    } else {
      for (int g = 0; g < 8; ++g) __builtin_memcpy(block + (g * tile + place) * 4, q + 4 * g, 4);
    }
    const float scaled = e * static_cast<float>(sum);
    __builtin_memcpy(block + (8 * tile + place) * 4, &e, 4);
    __builtin_memcpy(block + (9 * tile + place) * 4, &scaled, 4);
    __builtin_memcpy(block + (10 * tile + place) * 4, &sum, 4);
  }
  // Brings in one block of kTile tokens at once; false: not done, put() them one by one.
  template <int kTile>
  SEXTANT_INLINE bool put_rows(const F32x16 (*half)[2], uint8_t* block) {
#if SEXTANT_ISA_LEVEL >= 2 && SEXTANT_ISA_LEVEL < 10
    if constexpr (kTile % 4 == 0 && !takes_tiles(kTile)) return quantize_rows<kTile>(half, block);
#endif
    (void)half;
    (void)block;
    return false;
  }
};

template <PanelType kType>
constexpr bool kHasMinimum = kType == PanelType::kQ4_1 || kType == PanelType::kQ4K || kType == PanelType::kQ5K;
constexpr int64_t kBlocksOfSuperblock = kPanelSuperblock / kPanelBlock;

// What the superblock's blocks share, seen from its block b.
template <PanelType kType>
SEXTANT_INLINE const uint8_t* shared_part(const uint8_t* block, int64_t b) {
  return block + (kBlocksOfSuperblock - b % kBlocksOfSuperblock) * panel_block_stride(kType);
}
// d_b and m_b of matmul.h for the rows of a part of block b of a panel.
template <PanelType kType, int kPart>
SEXTANT_INLINE Lanes block_scale(const uint8_t* block, int64_t b) {
  if constexpr (!has_superblocks(kType)) return load_f16_lanes<kPart>(block + (kType == PanelType::kQ8_0 ? 512 : 256));
  const Lanes d = load_f16_lanes<kPart>(shared_part<kType>(block, b));
  if constexpr (kType == PanelType::kQ6K) return d;
  return mul(d, load_u8_lanes<kPart>(block + (kType == PanelType::kQ5K ? 320 : 256)));
}
template <PanelType kType, int kPart>
SEXTANT_INLINE Lanes block_minimum(const uint8_t* block, int64_t b) {
  if constexpr (kType == PanelType::kQ4_1) return load_f16_lanes<kPart>(block + 288);
  const Lanes m = load_f16_lanes<kPart>(shared_part<kType>(block, b) + 32);
  return mul(m, load_u8_lanes<kPart>(block + (kType == PanelType::kQ5K ? 336 : 272)));
}

// Panels [panel, panel + kPanels) against the tile; of a panel's 16 rows as many at a time as one register has lanes (Lanes,
// kInt8Parts).
template <PanelType kType, int kPanels, int kTokens>
__attribute__((always_inline)) inline void run_int8_panels(const TileJob& job, int64_t panel) {
  const int64_t blocks = num_panel_blocks(job.args->cols), panel_stride = panel_bytes(kType, job.args->cols);
  float lane[kPanels][kTokens][kPanelRows];
  unroll<kInt8Parts>([&](auto part) __attribute__((always_inline)) {
    constexpr int kPart = decltype(part)::value;
    const uint8_t* block = job.args->panels + panel * panel_stride;
    const uint8_t* x = job.input;
    Lanes total[kPanels][kTokens];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) total[p][t] = same_lanes(0);
    }
    for (int64_t b = 0; b < blocks; ++b) {
      // e, X and S of the tile's tokens stand behind their quants; the input is made of 4-byte words.
      const float* scales = reinterpret_cast<const float*>(x + 32 * kTokens);
      const int32_t* sums = reinterpret_cast<const int32_t*>(scales + 2 * kTokens);
      Lanes dot[kPanels][kTokens];
#if SEXTANT_ISA_LEVEL == 4
      if constexpr (takes_tiles(kTokens)) {
        block_dots_by_tiles<kType, kPanels, kTokens>(block, panel_stride, x, dot);
      } else {
        block_dots<kType, kPanels, kTokens, kPart>(block, panel_stride, x, sums, dot);
      }
#else
      block_dots<kType, kPanels, kTokens, kPart>(block, panel_stride, x, sums, dot);
#endif
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        const Lanes d = block_scale<kType, kPart>(block + p * panel_stride, b);
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) total[p][t] = fma(mul(d, same_lanes(scales[t])), dot[p][t], total[p][t]);
        if constexpr (kHasMinimum<kType>) {
          const Lanes m = block_minimum<kType, kPart>(block + p * panel_stride, b);
#pragma GCC unroll 16
          for (int t = 0; t < kTokens; ++t) total[p][t] = fma(m, same_lanes(scales[kTokens + t]), total[p][t]);
        }
      }
      block += panel_block_stride(kType);
      if (has_superblocks(kType) && b % kBlocksOfSuperblock == kBlocksOfSuperblock - 1)
        block += panel_shared_bytes(kType);
      x += int8_block_bytes(kTokens);
    }
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) store(lane[p][t] + kPart * kPanelRows / kInt8Parts, total[p][t]);
    }
  });
  for (int p = 0; p < kPanels; ++p) {
    for (int t = 0; t < job.num_tokens; ++t) store_outputs(job, panel + p, t, load(lane[p][t]));
  }
}

template <PanelType kType, int kPanels, int kTokens>
void run_int8_tile(const TileJob& job) {
  begin_tiles<kTokens>();
  int64_t panel = job.begin;
  for (; panel + kPanels <= job.end; panel += kPanels) run_int8_panels<kType, kPanels, kTokens>(job, panel);
  for (; panel < job.end; ++panel) run_int8_panels<kType, 1, kTokens>(job, panel);
  end_tiles<kTokens>();
}

template <PanelType kType>
struct Int8Tiles {
  static constexpr int kNumTiles = sizeof(kInt8Tiles) / sizeof(kInt8Tiles[0]);
  static constexpr int tokens(int index) { return kInt8Tiles[index].tokens; }
  template <int kIndex>
  SEXTANT_INLINE void run(const TileJob& job) {
    run_int8_tile<kType, kInt8Tiles[kIndex].panels, kInt8Tiles[kIndex].tokens>(job);
  }
};

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
