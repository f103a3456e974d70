// ggml's superblocks of 256 columns, decoded in fp64 in the order in which the file has them.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/panel.h"

namespace sextant::kernels::ref {

struct Superblock {
  std::array<double, kPanelSuperblock> values;    // d s q + m n
  std::array<double, kPanelSuperblock> minimums;  // m n
};
// type: kQ4K, kQ5K or kQ6K; `block` of file_row_bytes(type, 256).
Superblock dequantize_superblock(PanelType type, const uint8_t* block);

}  // namespace sextant::kernels::ref
