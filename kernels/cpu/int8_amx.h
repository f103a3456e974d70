// Integer dot products of int8 inputs with quantised panels (matmul.h) by AMX tiles, for tiles of tokens that are worth it; few tokens
// stay with VNNI. The sums are integers: the same bits as every other path's. Included by matmul_int8.h only, after int8_avx512.h.
//
// One block of 32 columns is one tile product: C [tokens][16 rows] int32 = A [tokens][32] int8 times B [8][16][4] int8, which is how
// panels of kQ8_0 stand in memory; nibbles are unpacked to that first. The input of such a tile of tokens holds q as
// [tokens][32] instead of [8][tokens][4].
#pragma once

#include "kernels/cpu/int8_avx512.h"
#if defined(SEXTANT_AMX_SHADOW)
#include "kernels/cpu/amx_shadow.h"
#endif

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

constexpr bool takes_tiles(int tokens) { return tokens >= 6; }

// What LDTILECFG reads. Tiles 0, 1: sums; 2: the input; 3, 4: weights of two panels.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, kPanelBlock, 64, 64};
  uint8_t rows[16] = {0, 0, 0, 8, 8};
};
static_assert(sizeof(TileConfig) == 64);

// What GCC 12's tile instructions read it does not know of: stores to that memory must not be left out or done later.
SEXTANT_INLINE void finish_stores(const void* read) { __asm__ volatile("" : : "r"(read) : "memory"); }

// Between the two a thread's tiles are as block_dots wants them.
template <int kTokens>
SEXTANT_INLINE void begin_tiles() {
  if constexpr (takes_tiles(kTokens)) {
    TileConfig config;
    for (int i = 0; i < 3; ++i) config.rows[i] = kTokens;
    finish_stores(&config);
    _tile_loadconfig(&config);
  }
}
template <int kTokens>
SEXTANT_INLINE void end_tiles() {
  if constexpr (takes_tiles(kTokens)) _tile_release();
}

// The weights of a block as int8 [8][16][4]: where they stand, or unpacked into `room`.
template <PanelType kType>
SEXTANT_INLINE const void* signed_weights(const uint8_t* block, uint8_t* room) {
  if constexpr (kType == PanelType::kQ8_0) {
    return block;
  } else if constexpr (kType == PanelType::kQ5K || kType == PanelType::kQ6K) {
    const __m512i offset = _mm512_set1_epi8(kType == PanelType::kQ6K ? 32 : 0);
    unroll<8>([&](auto group) __attribute__((always_inline)) {
      constexpr int kGroup = decltype(group)::value;
      _mm512_storeu_si512(room + 64 * kGroup, _mm512_sub_epi8(unsigned_quants<kType, kGroup>(block), offset));
    });
    finish_stores(room);
    return room;
  } else {
    const __m512i low = _mm512_set1_epi8(15), offset = _mm512_set1_epi8(kType == PanelType::kQ4_0 ? 8 : 0);
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      const __m512i pair = _mm512_loadu_si512(block + 64 * g);
      _mm512_storeu_si512(room + 64 * g, _mm512_sub_epi8(_mm512_and_si512(pair, low), offset));
      _mm512_storeu_si512(room + 64 * (4 + g),
                          _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(pair, 4), low), offset));
    }
    finish_stores(room);
    return room;
  }
}

// kQ6K: the sums of a half are those of its columns with zeros for the others, tile 0 of the first half and tile 1 of the second. The
// input is in tile 2.
template <int kPanels, int kTokens>
SEXTANT_INLINE void halves_by_tiles(const uint8_t* block, int64_t panel_stride, uint8_t* room, Lanes (*dot)[kTokens]) {
  alignas(64) uint8_t half[2][512];
  alignas(64) int32_t sums[2][kTokens][kPanelRows];
#pragma GCC unroll 2
  for (int p = 0; p < kPanels; ++p) {
    const uint8_t* of_panel = block + p * panel_stride;
    signed_weights<PanelType::kQ6K>(of_panel, room);
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) {
      const __m512i w = _mm512_loadu_si512(room + 64 * g), none = _mm512_setzero_si512();
      _mm512_store_si512(half[0] + 64 * g, g < 4 ? w : none);
      _mm512_store_si512(half[1] + 64 * g, g < 4 ? none : w);
    }
    finish_stores(half);
    _tile_zero(0);
    _tile_zero(1);
    _tile_loadd(3, half[0], 64);
    _tile_loadd(4, half[1], 64);
    _tile_dpbssd(0, 2, 3);
    _tile_dpbssd(1, 2, 4);
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    const __m512i s0 = half_scales(of_panel, 0), s1 = half_scales(of_panel, 1);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const __m512i a = _mm512_mullo_epi32(_mm512_load_si512(sums[0][t]), s0),
                    b = _mm512_mullo_epi32(_mm512_load_si512(sums[1][t]), s1);
      dot[p][t].v = _mm512_cvtepi32_ps(_mm512_add_epi32(a, b));
    }
  }
}

// As block_dots of int8_avx512.h, with x: q [kTokens][32].
template <PanelType kType, int kPanels, int kTokens>
SEXTANT_INLINE void block_dots_by_tiles(const uint8_t* block, int64_t panel_stride, const uint8_t* x,
                                        Lanes (*dot)[kTokens]) {
  static_assert(kPanels <= 2);
  alignas(64) uint8_t room[kPanels][512];
  alignas(64) int32_t sums[kPanels][kTokens][kPanelRows];
  _tile_loadd(2, x, kPanelBlock);
  if constexpr (kType == PanelType::kQ6K) {
    halves_by_tiles<kPanels, kTokens>(block, panel_stride, room[0], dot);
    return;
  }
  _tile_zero(0);
  _tile_loadd(3, signed_weights<kType>(block, room[0]), 64);
  _tile_dpbssd(0, 2, 3);
  if constexpr (kPanels == 2) {
    _tile_zero(1);
    _tile_loadd(4, signed_weights<kType>(block + panel_stride, room[kPanels - 1]), 64);
    _tile_dpbssd(1, 2, 4);
    _tile_stored(1, sums[kPanels - 1], 64);
  }
  _tile_stored(0, sums[0], 64);
#pragma GCC unroll 2
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) dot[p][t].v = _mm512_cvtepi32_ps(_mm512_load_si512(sums[p][t]));
  }
}

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
