// The tile instructions of AMX in plain C++, under the names of <immintrin.h>: the op tests compile int8_amx.h against this where no
// such CPU is at hand. It holds a caller to the instructions' rules: what it traps on, the hardware faults on.
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1 chapter 18, volume 2 LDTILECFG, TDPBSSD.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

struct ShadowTile {
  int rows;
  int row_bytes;
  uint8_t data[16][64];
};
struct ShadowTiles {
  bool configured;
  ShadowTile tile[8];
};
__thread ShadowTiles shadow_tiles;

inline void shadow_require(bool holds) {
  if (!holds) __builtin_trap();
}
inline ShadowTile& shadow_tile(int index) {
  shadow_require(shadow_tiles.configured && index >= 0 && index < 8);
  ShadowTile& tile = shadow_tiles.tile[index];
  shadow_require(tile.rows > 0 && tile.row_bytes > 0);
  return tile;
}
inline void shadow_load_config(const void* config) {
  const uint8_t* bytes = static_cast<const uint8_t*>(config);
  shadow_require(bytes[0] == 1 && bytes[1] == 0);  // palette, start row
  for (int i = 2; i < 16; ++i) shadow_require(bytes[i] == 0);
  __builtin_memset(&shadow_tiles, 0, sizeof(shadow_tiles));
  for (int i = 0; i < 8; ++i) {
    uint16_t row_bytes;
    __builtin_memcpy(&row_bytes, bytes + 16 + 2 * i, 2);
    const int rows = bytes[48 + i];
    shadow_require(rows <= 16 && row_bytes <= 64 && (rows == 0) == (row_bytes == 0));
    shadow_tiles.tile[i].rows = rows;
    shadow_tiles.tile[i].row_bytes = row_bytes;
  }
  shadow_tiles.configured = true;
}
inline void shadow_release() { shadow_tiles.configured = false; }
inline void shadow_zero(int index) {
  ShadowTile& tile = shadow_tile(index);
  __builtin_memset(tile.data, 0, sizeof(tile.data));
}
inline void shadow_load(int index, const void* from, int64_t stride) {
  ShadowTile& tile = shadow_tile(index);
  __builtin_memset(tile.data, 0, sizeof(tile.data));
  for (int r = 0; r < tile.rows; ++r) {
    __builtin_memcpy(tile.data[r], static_cast<const uint8_t*>(from) + r * stride, static_cast<size_t>(tile.row_bytes));
  }
}
inline void shadow_store(int index, void* to, int64_t stride) {
  const ShadowTile& tile = shadow_tile(index);
  for (int r = 0; r < tile.rows; ++r) {
    __builtin_memcpy(static_cast<uint8_t*>(to) + r * stride, tile.data[r], static_cast<size_t>(tile.row_bytes));
  }
}
// c[m][n] += the sum over k and i < 4 of a[m][4 k + i] * b[k][4 n + i], signed bytes, in 32 bits that wrap.
inline void shadow_dot_signed(int c, int a, int b) {
  ShadowTile& to = shadow_tile(c);
  const ShadowTile &left = shadow_tile(a), &right = shadow_tile(b);
  shadow_require(c != a && c != b && a != b);
  shadow_require(to.rows == left.rows && to.row_bytes == right.row_bytes && left.row_bytes == 4 * right.rows);
  for (int m = 0; m < to.rows; ++m) {
    for (int n = 0; n < to.row_bytes / 4; ++n) {
      uint32_t sum;
      __builtin_memcpy(&sum, to.data[m] + 4 * n, 4);
      for (int k = 0; k < right.rows; ++k) {
        for (int i = 0; i < 4; ++i) {
          sum += static_cast<uint32_t>(static_cast<int8_t>(left.data[m][4 * k + i]) *
                                       static_cast<int8_t>(right.data[k][4 * n + i]));
        }
      }
      __builtin_memcpy(to.data[m] + 4 * n, &sum, 4);
    }
  }
}

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbssd
#define _tile_loadconfig(config) shadow_load_config(config)
#define _tile_release() shadow_release()
#define _tile_zero(tile) shadow_zero(tile)
#define _tile_loadd(tile, from, stride) shadow_load(tile, from, stride)
#define _tile_stored(tile, to, stride) shadow_store(tile, to, stride)
#define _tile_dpbssd(c, a, b) shadow_dot_signed(c, a, b)
