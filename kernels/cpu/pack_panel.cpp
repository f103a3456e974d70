// Making panels and reading rows back out of them (panel.h). Neutral code: bytes are moved, not computed with.
#include <cstring>

#include "kernels/panel.h"

namespace sextant::kernels::cpu {
namespace {

template <typename Element>
void pack_plain(const uint8_t* const rows[kPanelRows], int64_t cols, uint8_t* panel) {
  const int64_t padded_cols = num_panel_blocks(cols) * kPanelBlock;
  for (int r = 0; r < kPanelRows; ++r) {
    for (int64_t k = 0; k < padded_cols; ++k) {
      Element e = 0;
      if (rows[r] != nullptr && k < cols) std::memcpy(&e, rows[r] + k * sizeof(Element), sizeof(Element));
      std::memcpy(panel + (k * kPanelRows + r) * sizeof(Element), &e, sizeof(Element));
    }
  }
}

// Copies the quants of 16 rows, four bytes at a time. Blocks in the file: kHeader bytes of d, or of d and m, then kQuants bytes.
template <int kHeader, int kQuants>
void pack_quants(const uint8_t* const rows[kPanelRows], int64_t cols, uint8_t* panel) {
  constexpr int64_t kFileBytes = kHeader + kQuants, kBlockBytes = kFileBytes * kPanelRows;
  for (int r = 0; r < kPanelRows; ++r) {
    if (rows[r] == nullptr) continue;
    const uint8_t* in = rows[r];
    uint8_t* out = panel;
    for (int64_t b = 0; b < cols / kPanelBlock; ++b, in += kFileBytes, out += kBlockBytes) {
      for (int i = 0; i < kQuants; i += 4) std::memcpy(out + i * kPanelRows + 4 * r, in + kHeader + i, 4);
      for (int h = 0; h < kHeader; h += 2) std::memcpy(out + kQuants * kPanelRows + h * kPanelRows + 2 * r, in + h, 2);
    }
  }
}

float f32_of_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

float f32_of_f16(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  const uint32_t sign = (h & 0x8000u) << 16, magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) return f32_of_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  const float value = f32_of_bits(magnitude << 13) * 0x1p112f;
  return sign ? -value : value;
}

}  // namespace

void pack_panel(PanelType type, const uint8_t* const rows[kPanelRows], int64_t cols, uint8_t* panel) {
  bool short_panel = false;
  for (int r = 0; r < kPanelRows; ++r) short_panel |= rows[r] == nullptr;
  if (short_panel) std::memset(panel, 0, static_cast<size_t>(panel_bytes(type, cols)));
  switch (type) {
    case PanelType::kF32: return pack_plain<uint32_t>(rows, cols, panel);
    case PanelType::kF16:
    case PanelType::kBF16: return pack_plain<uint16_t>(rows, cols, panel);
    case PanelType::kQ8_0: return pack_quants<2, 32>(rows, cols, panel);
    case PanelType::kQ4_0: return pack_quants<2, 16>(rows, cols, panel);
    case PanelType::kQ4_1: return pack_quants<4, 16>(rows, cols, panel);
  }
}

void unpack_row(PanelType type, const uint8_t* panel, int row, int64_t cols, float* out) {
  const int64_t block_bytes = panel_block_bytes(type);
  for (int64_t k = 0; k < cols; ++k) {
    const uint8_t* block = panel + k / kPanelBlock * block_bytes;
    const int column = static_cast<int>(k % kPanelBlock);
    switch (type) {
      case PanelType::kF32: std::memcpy(out + k, block + (column * kPanelRows + row) * 4, 4); break;
      case PanelType::kF16: out[k] = f32_of_f16(block + (column * kPanelRows + row) * 2); break;
      case PanelType::kBF16: {
        uint16_t h;
        std::memcpy(&h, block + (column * kPanelRows + row) * 2, 2);
        out[k] = f32_of_bits(uint32_t{h} << 16);
        break;
      }
      case PanelType::kQ8_0: {
        const int8_t q = static_cast<int8_t>(block[column / 4 * 64 + row * 4 + column % 4]);
        out[k] = f32_of_f16(block + 512 + 2 * row) * q;
        break;
      }
      case PanelType::kQ4_0:
      case PanelType::kQ4_1: {
        const int byte = block[column % 16 / 4 * 64 + row * 4 + column % 4];
        const int q = column < 16 ? byte & 15 : byte >> 4;
        const float d = f32_of_f16(block + 256 + 2 * row);
        if (type == PanelType::kQ4_0) {
          out[k] = d * static_cast<float>(q - 8);
        } else {
          out[k] = d * static_cast<float>(q) + f32_of_f16(block + 288 + 2 * row);
        }
        break;
      }
    }
  }
}

}  // namespace sextant::kernels::cpu
