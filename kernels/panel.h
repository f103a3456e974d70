// Panels: the layout in which the CPU paths read a weight matrix, made once at load from rows as a file holds them.
//
// A matrix [N, K] becomes ceil(N / 16) panels of 16 output rows, one after another, so that the 16 lanes of a vector are
// 16 output rows and a matrix is one sequential stream. Rows past N and columns past K are zero. A panel is
// ceil(K / 32) blocks; block kb holds columns 32 kb .. 32 kb + 31 of its rows:
//   kF32         [32][16] fp32           column-major: 16 rows of column k side by side
//   kF16, kBF16  [32][16] 16-bit
//   kQ8_0        [8][16][4] int8 (four columns of a row side by side, as integer dot products take them), then d [16] fp16
//   kQ4_0        [4][16][4] bytes, then d [16] fp16: byte c of group j holds column 4 j + c in its low nibble and column
//                16 + 4 j + c in its high one, 0..15 as in the file
//   kQ4_1        the same, then d [16] fp16, m [16] fp16
// kQ4K, kQ5K and kQ6K have superblocks of 256 columns: eight such blocks without d, and behind them what they share.
//   kQ4K        block: nibbles as kQ4_0, s [16] uint8, n [16] uint8; behind eight of them d [16] fp16, m [16] fp16
//   kQ5K        the same with fifth bits [16][4] bytes before s: bit g of byte c belongs to column 4 g + c
//   kQ6K        block: nibbles as kQ4_0, upper bits [2][16][4] bytes (bits 2 g and 2 g + 1 of byte c of half h belong to
//                column 16 h + 4 g + c), s [2][16] int8 (of columns 0..15, of columns 16..31); behind eight of them d [16] fp16
// Bytes: those of the file's encoding, rounded up to whole panels and blocks; kQ4K and kQ5K 2.8 and 2.3% more, whose s and n
// have 6 bits each in a file.
//
// The file's encodings (GGUF): values along a row. kQ8_0: per 32 columns fp16 d, 32 int8 q; value d q. kQ4_0: fp16 d,
// 16 bytes whose low nibbles are columns 0..15 and whose high nibbles are columns 16..31; value d (q - 8). kQ4_1: fp16 d,
// fp16 m, 16 bytes likewise; value d q + m. K is a multiple of 32 for these three, of 256 for the next:
// kQ4K, kQ5K: fp16 d, fp16 -m, 12 bytes with s and n of eight blocks, (kQ5K: 32 bytes of fifth bits,) 128 bytes of nibbles;
// value d s q + m n. kQ6K: 128 bytes of nibbles, 64 of upper bits, 16 int8 s, fp16 d; value d s (q - 32), s one of 16 columns.
// Source: ggml's block_q8_0, block_q4_0, block_q4_1, block_q4_K, block_q5_K, block_q6_K.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sextant::kernels {

enum class PanelType : uint8_t { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1, kQ4K, kQ5K, kQ6K };
inline constexpr int kNumPanelTypes = 9;
inline constexpr int kPanelRows = 16;
inline constexpr int kPanelBlock = 32;        // columns
inline constexpr int kPanelSuperblock = 256;  // columns

constexpr bool is_plain(PanelType type) { return type <= PanelType::kBF16; }
constexpr bool has_superblocks(PanelType type) { return type >= PanelType::kQ4K; }
// K is a multiple of this.
constexpr int64_t column_multiple(PanelType type) {
  return is_plain(type) ? 1 : has_superblocks(type) ? kPanelSuperblock : kPanelBlock;
}

// From one block of 32 columns to the next, without what a superblock's share.
constexpr int64_t panel_block_stride(PanelType type) {
  switch (type) {
    case PanelType::kF32: return 2048;
    case PanelType::kF16:
    case PanelType::kBF16: return 1024;
    case PanelType::kQ8_0: return 544;
    case PanelType::kQ4_0: return 288;
    case PanelType::kQ4_1: return 320;
    case PanelType::kQ4K: return 288;
    case PanelType::kQ5K: return 352;
    case PanelType::kQ6K: return 416;
  }
  return 0;
}
// What the blocks of a superblock share, behind them.
constexpr int64_t panel_shared_bytes(PanelType type) {
  return !has_superblocks(type) ? 0 : type == PanelType::kQ6K ? 32 : 64;
}
constexpr int64_t panel_superblock_bytes(PanelType type) {
  return kPanelSuperblock / kPanelBlock * panel_block_stride(type) + panel_shared_bytes(type);
}
constexpr int64_t num_panels(int64_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }
constexpr int64_t num_panel_blocks(int64_t cols) { return (cols + kPanelBlock - 1) / kPanelBlock; }
constexpr int64_t panel_bytes(PanelType type, int64_t cols) {
  return has_superblocks(type) ? cols / kPanelSuperblock * panel_superblock_bytes(type)
                               : num_panel_blocks(cols) * panel_block_stride(type);
}
// Bytes of one row of `cols` columns, a multiple of column_multiple(type), in the file's encoding.
constexpr int64_t file_row_bytes(PanelType type, int64_t cols) {
  switch (type) {
    case PanelType::kF32: return cols * 4;
    case PanelType::kF16:
    case PanelType::kBF16: return cols * 2;
    case PanelType::kQ8_0: return cols / kPanelBlock * 34;
    case PanelType::kQ4_0: return cols / kPanelBlock * 18;
    case PanelType::kQ4_1: return cols / kPanelBlock * 20;
    case PanelType::kQ4K: return cols / kPanelSuperblock * 144;
    case PanelType::kQ5K: return cols / kPanelSuperblock * 176;
    case PanelType::kQ6K: return cols / kPanelSuperblock * 210;
  }
  return 0;
}

namespace cpu {

// Fills one panel of panel_bytes(type, cols) at `panel` from 16 rows in the file's encoding; rows[i] == nullptr is a row of
// zeros. Rows need no alignment; nothing overlaps. Reads and writes about panel_bytes each. The same on every
// instruction set.
void pack_panel(PanelType type, const uint8_t* const rows[kPanelRows], int64_t cols, uint8_t* panel);

// out[0..cols) = row `row` (0..15) of a panel as fp32: the very numbers of the file's encoding, d q and d q + m each
// rounded once (with superblocks d s q and d s q + m n). For embedding look-ups: reads panel_bytes / 16 scattered over panel_bytes.
void unpack_row(PanelType type, const uint8_t* panel, int row, int64_t cols, float* out);

}  // namespace cpu
}  // namespace sextant::kernels
