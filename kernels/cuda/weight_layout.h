// The layout in which CUDA kernels read a weight matrix [N, K]; made once at load by pack_weight.h. No CUDA header.
//
// kBFloat16, kFloat16   row-major [N, K], K a multiple of 8: what cuBLASLt and the GEMV both read, in the type of the activations.
//              Files of another plain type round once.
// kQ8_0, kQ4_0, kQ4_1   the file's bits (kernels/panel.h), K a multiple of 32, in two planes:
//   quants  [ceil(N / 32)][K / 32] tiles of 32 rows x 32 columns, 1024 bytes (kQ8_0) or 512
//   scales  [ceil(N / 32)][K / 32][group 8][4] of fp16 d (64 bytes), kQ4_1: of fp16 pairs d, m (128 bytes)
// kF8Tiles     e4m3 as the file has it, K a multiple of 32, in the same tiles of 1024 bytes, and
//   scales  [ceil(N / 32)][ceil(K / 128)][group 8][4] of fp32 (128 bytes for four tiles): one per row and 128 columns, where
//           the file has one per tensor, per row or per block of 128 x 128. w = e4m3 * scale.
// kF8Rows      e4m3 row-major [N, K], K a multiple of 16, and scales [N] of fp32: what cuBLASLt's OUTER_VEC_32F and SCALAR_32F (all
//              equal then) and the GEMV read.
// kF8Blocks    e4m3 row-major [N, K], K a multiple of 16, and scales [ceil(N / 128)][ceil(K / 128) rounded up to 4] of fp32, one
//              for each 128 x 128: cuBLASLt's BLK128x128_32F.
// Both planes of tiles are one stream for whoever goes along K. Rows past N are zero: quants that mean 0, d = m = 0.
//
// A tile is what one warp reads with 128-bit loads, lane l = 4 group + member (as in mma.m16n8k16) holding of rows
// group + 8 j, j = 0..3, the columns 8 member .. 8 member + 7:
//   4 bits  uint32 [lane 32][j 4]: column 8 member + 2 p at bits 4 p .. 4 p + 3, column 8 member + 2 p + 1 at bits 16 + 4 p ..
//           (p = 0..3): a shift and a mask give the two halves of a register of an mma fragment. Values 0..15 as in the file.
//   8 bits  uint32 [half 2][lane 32][j 4]: columns 8 member + 4 half + {0, 1, 2, 3} at bytes 0, 2, 1, 3; value q + 128,
//           or e4m3.
// scales: entry [group][j] belongs to row group + 8 j.
#pragma once

#include <cstdint>

namespace sextant::kernels::cuda {

enum class WeightFormat : uint8_t { kBFloat16, kFloat16, kQ8_0, kQ4_0, kQ4_1, kF8Tiles, kF8Rows, kF8Blocks };

inline constexpr int kTileRows = 32;
inline constexpr int kTileCols = 32;

constexpr bool is_plain(WeightFormat format) {
  return format == WeightFormat::kBFloat16 || format == WeightFormat::kFloat16;
}
constexpr bool is_f8_row_major(WeightFormat format) {
  return format == WeightFormat::kF8Rows || format == WeightFormat::kF8Blocks;
}
constexpr bool is_tiled(WeightFormat format) { return !is_plain(format) && !is_f8_row_major(format); }
// K is a multiple of this.
constexpr int64_t column_multiple(WeightFormat format) {
  return is_tiled(format) ? kTileCols : is_f8_row_major(format) ? 16 : 8;
}
// kF8Blocks: scales from one row of blocks to the next.
constexpr int64_t block_scale_stride(int64_t cols) { return ((cols + 127) / 128 + 3) / 4 * 4; }
constexpr int64_t quant_tile_bytes(WeightFormat format) {
  return format == WeightFormat::kQ8_0 || format == WeightFormat::kF8Tiles ? 1024 : 512;
}
// Tiles along K that share one entry of scales, and its bytes.
constexpr int64_t tiles_per_scale(WeightFormat format) { return format == WeightFormat::kF8Tiles ? 4 : 1; }
constexpr int64_t scale_tile_bytes(WeightFormat format) {
  return format == WeightFormat::kQ4_1 || format == WeightFormat::kF8Tiles ? 128 : 64;
}
// Entries of scales in a row of tiles.
constexpr int64_t scales_per_row_tile(WeightFormat format, int64_t cols) {
  return (cols / kTileCols + tiles_per_scale(format) - 1) / tiles_per_scale(format);
}
constexpr int64_t num_row_tiles(int64_t rows) { return (rows + kTileRows - 1) / kTileRows; }

// Bytes of the two planes; a plain format has no scales.
constexpr int64_t weight_bytes(WeightFormat format, int64_t rows, int64_t cols) {
  return is_tiled(format) ? num_row_tiles(rows) * (cols / kTileCols) * quant_tile_bytes(format)
                          : rows * cols * (is_f8_row_major(format) ? 1 : 2);
}
constexpr int64_t scale_bytes(WeightFormat format, int64_t rows, int64_t cols) {
  if (format == WeightFormat::kF8Rows) return rows * 4;
  if (format == WeightFormat::kF8Blocks) return (rows + 127) / 128 * block_scale_stride(cols) * 4;
  return is_tiled(format) ? num_row_tiles(rows) * scales_per_row_tile(format, cols) * scale_tile_bytes(format) : 0;
}

}  // namespace sextant::kernels::cuda
