// From a file's rows (kernels/panel.h) to the device's layout (weight_layout.h), on the host, at load. Neutral code: no CUDA.
#pragma once

#include <cstdint>

#include "kernels/cuda/weight_layout.h"
#include "kernels/panel.h"

namespace sextant::kernels::cuda {

// The format that a file's type is kept in; `plain`, kBFloat16 or kFloat16, is what plain types become.
WeightFormat weight_format_of(PanelType type, WeightFormat plain = WeightFormat::kBFloat16);

// Packs one row tile of a quantised type: rows[i] is row i of the tile in the file's encoding, any alignment; nullptr is a row
// of zeros. `quants` takes cols / 32 tiles of quant_tile_bytes, `scales` as many of scale_tile_bytes. Nothing overlaps.
// Reads and writes about the matrix once.
void pack_row_tile(PanelType type, const uint8_t* const rows[kTileRows], int64_t cols, uint8_t* quants,
                   uint8_t* scales);

// One row of e4m3 with its scales: that of column k is scales[k / block_cols]; block_cols is a multiple of 128, or at least the
// number of columns.
struct F8Row {
  const uint8_t* data;  // nullptr: a row of zeros
  const float* scales;
  int64_t block_cols;
};
// The same for kF8Tiles; `scales` takes scales_per_row_tile(kF8Tiles, cols) entries. False when a row holds NaN (0x7f, 0xff),
// which the kernels do not know.
[[nodiscard]] bool pack_f8_row_tile(const F8Row rows[kTileRows], int64_t cols, uint8_t* quants, uint8_t* scales);

// out[0..cols) = a row of F32, F16 or BF16 in the plain format `to`, rounded once to nearest even (NaN stays NaN). False when a
// finite number became infinity: fp16 ends at 65504.
[[nodiscard]] bool pack_plain_row(PanelType type, WeightFormat to, const uint8_t* row, int64_t cols, uint16_t* out);

}  // namespace sextant::kernels::cuda
