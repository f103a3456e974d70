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

void pack_q8_0(const uint8_t* const rows[kPanelRows], int64_t cols, uint8_t* panel) {
  for (int r = 0; r < kPanelRows; ++r) {
    if (rows[r] == nullptr) continue;
    for (int64_t b = 0; b < cols / kPanelBlock; ++b) {
      const uint8_t* in = rows[r] + b * 34;
      uint8_t* out = panel + b * 544;
      for (int k = 0; k < kPanelBlock; ++k) out[k * kPanelRows + r] = in[2 + k];
      std::memcpy(out + 512 + 2 * r, in, 2);
    }
  }
}

// Eight bytes with a nibble each, the first in the lowest byte, to a word with the first in the lowest nibble.
uint32_t gather_nibbles(uint64_t x) {
  x = (x | (x >> 4)) & 0x00ff00ff00ff00ffull;
  x = (x | (x >> 8)) & 0x0000ffff0000ffffull;
  return static_cast<uint32_t>(x | (x >> 16));
}

// kHeader: bytes of d, or of d and m, before the nibbles. kFlip turns q into q - 8 in two's complement.
template <int kHeader, uint32_t kFlip>
void pack_q4(const uint8_t* const rows[kPanelRows], int64_t cols, uint8_t* panel) {
  constexpr int64_t kBlockBytes = 256 + 16 * kHeader;
  for (int r = 0; r < kPanelRows; ++r) {
    if (rows[r] == nullptr) continue;
    for (int64_t b = 0; b < cols / kPanelBlock; ++b) {
      const uint8_t* in = rows[r] + b * (kHeader + 16);
      uint8_t* out = panel + b * kBlockBytes;
      uint64_t halves[2];
      std::memcpy(halves, in + kHeader, 16);
      constexpr uint64_t kLow = 0x0f0f0f0f0f0f0f0full;
      const uint32_t words[4] = {gather_nibbles(halves[0] & kLow), gather_nibbles(halves[1] & kLow),
                                 gather_nibbles((halves[0] >> 4) & kLow), gather_nibbles((halves[1] >> 4) & kLow)};
      for (int i = 0; i < 4; ++i) {
        const uint32_t word = words[i] ^ kFlip;
        std::memcpy(out + i * 64 + r * 4, &word, 4);
      }
      for (int h = 0; h < kHeader; h += 2) std::memcpy(out + 256 + 16 * h + 2 * r, in + h, 2);
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
  std::memset(panel, 0, static_cast<size_t>(panel_bytes(type, cols)));
  switch (type) {
    case PanelType::kF32: return pack_plain<uint32_t>(rows, cols, panel);
    case PanelType::kF16:
    case PanelType::kBF16: return pack_plain<uint16_t>(rows, cols, panel);
    case PanelType::kQ8_0: return pack_q8_0(rows, cols, panel);
    case PanelType::kQ4_0: return pack_q4<2, 0x88888888u>(rows, cols, panel);
    case PanelType::kQ4_1: return pack_q4<4, 0u>(rows, cols, panel);
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
        const int8_t q = static_cast<int8_t>(block[column * kPanelRows + row]);
        out[k] = f32_of_f16(block + 512 + 2 * row) * q;
        break;
      }
      case PanelType::kQ4_0:
      case PanelType::kQ4_1: {
        uint32_t word;
        std::memcpy(&word, block + column / 8 * 64 + row * 4, 4);
        const int q = static_cast<int>(word >> (4 * (column % 8)) & 15u);
        const float d = f32_of_f16(block + 256 + 2 * row);
        if (type == PanelType::kQ4_0) {
          out[k] = d * static_cast<float>((q ^ 8) - 8);
        } else {
          out[k] = d * static_cast<float>(q) + f32_of_f16(block + 288 + 2 * row);
        }
        break;
      }
    }
  }
}

}  // namespace sextant::kernels::cpu
