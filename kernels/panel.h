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
// Bytes: those of the file's encoding, rounded up to whole panels and blocks.
//
// The file's encodings (GGUF): values along a row. kQ8_0: per 32 columns fp16 d, 32 int8 q; value d q. kQ4_0: fp16 d,
// 16 bytes whose low nibbles are columns 0..15 and whose high nibbles are columns 16..31; value d (q - 8). kQ4_1: fp16 d,
// fp16 m, 16 bytes likewise; value d q + m. K is a multiple of 32 for these three.
// Source: ggml's block_q8_0, block_q4_0, block_q4_1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sextant::kernels {

enum class PanelType : uint8_t { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1 };
inline constexpr int kNumPanelTypes = 6;
inline constexpr int kPanelRows = 16;
inline constexpr int kPanelBlock = 32;  // columns

constexpr int64_t panel_block_bytes(PanelType type) {
  switch (type) {
    case PanelType::kF32: return 2048;
    case PanelType::kF16:
    case PanelType::kBF16: return 1024;
    case PanelType::kQ8_0: return 544;
    case PanelType::kQ4_0: return 288;
    case PanelType::kQ4_1: return 320;
  }
  return 0;
}
constexpr int64_t num_panels(int64_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }
constexpr int64_t num_panel_blocks(int64_t cols) { return (cols + kPanelBlock - 1) / kPanelBlock; }
constexpr int64_t panel_bytes(PanelType type, int64_t cols) { return num_panel_blocks(cols) * panel_block_bytes(type); }
// Bytes of one row of `cols` columns in the file's encoding; cols is a multiple of 32 for block-quantised types.
constexpr int64_t file_row_bytes(PanelType type, int64_t cols) {
  switch (type) {
    case PanelType::kF32: return cols * 4;
    case PanelType::kF16:
    case PanelType::kBF16: return cols * 2;
    case PanelType::kQ8_0: return cols / kPanelBlock * 34;
    case PanelType::kQ4_0: return cols / kPanelBlock * 18;
    case PanelType::kQ4_1: return cols / kPanelBlock * 20;
  }
  return 0;
}

namespace cpu {

// Fills one panel of panel_bytes(type, cols) at `panel` from 16 rows in the file's encoding; rows[i] == nullptr is a row of
// zeros. Rows need no alignment; nothing overlaps. Reads and writes about panel_bytes each. The same on every
// instruction set.
void pack_panel(PanelType type, const uint8_t* const rows[kPanelRows], int64_t cols, uint8_t* panel);

// out[0..cols) = row `row` (0..15) of a panel as fp32: the very numbers of the file's encoding, d q and d q + m each
// rounded once. For embedding look-ups: reads panel_bytes / 16 scattered over panel_bytes.
void unpack_row(PanelType type, const uint8_t* panel, int row, int64_t cols, float* out);

}  // namespace cpu
}  // namespace sextant::kernels
