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

// One row of a block of 32 columns in a panel: nibbles as kQ4_0 has them.
void put_nibbles(const uint8_t q[kPanelBlock], uint8_t* block, int row) {
  for (int i = 0; i < 16; ++i) {
    block[i / 4 * 64 + 4 * row + i % 4] = static_cast<uint8_t>((q[i] & 15) | (q[16 + i] & 15) << 4);
  }
}

// The six-bit s and n of block b of a superblock; ggml's layout of twelve bytes: of blocks 0..3 in bytes b and 4 + b, of the others
// in nibbles of byte 4 + b and the two upper bits of those.
void scales_of_block(const uint8_t packed[12], int b, uint8_t* s, uint8_t* n) {
  if (b < 4) {
    *s = packed[b] & 63;
    *n = packed[4 + b] & 63;
  } else {
    *s = static_cast<uint8_t>((packed[4 + b] & 15) | packed[b - 4] >> 6 << 4);
    *n = static_cast<uint8_t>(packed[4 + b] >> 4 | packed[b] >> 6 << 4);
  }
}

// kQ4K, and kQ5K with its fifth bits.
template <PanelType kType>
void pack_scaled_nibbles(const uint8_t* in, int row, uint8_t* superblock) {
  constexpr bool kHasFifthBit = kType == PanelType::kQ5K;
  constexpr int kStride = static_cast<int>(panel_block_stride(kType)), kScales = kHasFifthBit ? 320 : 256;
  const uint8_t *packed = in + 4, *fifth_bits = in + 16, *nibbles = in + (kHasFifthBit ? 48 : 16);
  for (int b = 0; b < 8; ++b) {
    uint8_t* block = superblock + b * kStride;
    uint8_t q[kPanelBlock];
    for (int i = 0; i < kPanelBlock; ++i)
      q[i] = static_cast<uint8_t>(nibbles[b / 2 * kPanelBlock + i] >> (b % 2 * 4) & 15);
    put_nibbles(q, block, row);
    if (kHasFifthBit) {
      for (int c = 0; c < 4; ++c) {
        int bits = 0;
        for (int g = 0; g < 8; ++g) bits |= (fifth_bits[4 * g + c] >> b & 1) << g;
        block[256 + 4 * row + c] = static_cast<uint8_t>(bits);
      }
    }
    scales_of_block(packed, b, block + kScales + row, block + kScales + 16 + row);
  }
  uint8_t* shared = superblock + 8 * kStride;
  std::memcpy(shared + 2 * row, in, 2);
  std::memcpy(shared + 32 + 2 * row, in + 2, 2);
  shared[32 + 2 * row + 1] ^= 0x80;
}

void pack_six_bits(const uint8_t* in, int row, uint8_t* superblock) {
  constexpr int kStride = static_cast<int>(panel_block_stride(PanelType::kQ6K));
  for (int b = 0; b < 8; ++b) {
    // Halves of 128 columns: 64 bytes of nibbles, of whose low ones come blocks 0 and 1, and 32 bytes of upper bits.
    const uint8_t* nibbles = in + b / 4 * 64 + b % 2 * kPanelBlock;
    const uint8_t* upper = in + 128 + b / 4 * kPanelBlock;
    uint8_t* block = superblock + b * kStride;
    uint8_t q[kPanelBlock];
    for (int i = 0; i < kPanelBlock; ++i) {
      q[i] = static_cast<uint8_t>((nibbles[i] >> (b % 4 / 2 * 4) & 15) | (upper[i] >> (b % 4 * 2) & 3) << 4);
    }
    put_nibbles(q, block, row);
    for (int h = 0; h < 2; ++h) {
      for (int c = 0; c < 4; ++c) {
        int bits = 0;
        for (int g = 0; g < 4; ++g) bits |= q[16 * h + 4 * g + c] >> 4 << (2 * g);
        block[256 + 64 * h + 4 * row + c] = static_cast<uint8_t>(bits);
      }
      block[384 + 16 * h + row] = in[192 + 2 * b + h];
    }
  }
  std::memcpy(superblock + 8 * kStride + 2 * row, in + 208, 2);
}

void pack_superblocks(PanelType type, const uint8_t* const rows[kPanelRows], int64_t cols, uint8_t* panel) {
  const int64_t file_bytes = file_row_bytes(type, kPanelSuperblock);
  for (int r = 0; r < kPanelRows; ++r) {
    if (rows[r] == nullptr) continue;
    for (int64_t b = 0; b < cols / kPanelSuperblock; ++b) {
      const uint8_t* in = rows[r] + b * file_bytes;
      uint8_t* superblock = panel + b * panel_superblock_bytes(type);
      switch (type) {
        case PanelType::kQ4K: pack_scaled_nibbles<PanelType::kQ4K>(in, r, superblock); break;
        case PanelType::kQ5K: pack_scaled_nibbles<PanelType::kQ5K>(in, r, superblock); break;
        default: pack_six_bits(in, r, superblock); break;
      }
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

// Column `column` of 32 of a block of superblocks, whose shared part is at `shared`.
float value_in_superblock(PanelType type, const uint8_t* block, const uint8_t* shared, int row, int column) {
  const int byte = block[column % 16 / 4 * 64 + row * 4 + column % 4], c = column % 4, group = column / 4;
  int q = column < 16 ? byte & 15 : byte >> 4;
  const float d = f32_of_f16(shared + 2 * row);
  if (type == PanelType::kQ6K) {
    const int half = column / 16;
    q |= (block[256 + 64 * half + 4 * row + c] >> (group % 4 * 2) & 3) << 4;
    const auto s = static_cast<int8_t>(block[384 + 16 * half + row]);
    return d * static_cast<float>(s * (q - 32));
  }
  int scales = 256;
  if (type == PanelType::kQ5K) {
    q |= (block[256 + 4 * row + c] >> group & 1) << 4;
    scales = 320;
  }
  const int s = block[scales + row], n = block[scales + 16 + row];
  return d * static_cast<float>(s * q) + f32_of_f16(shared + 32 + 2 * row) * static_cast<float>(n);
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
    case PanelType::kQ4K:
    case PanelType::kQ5K:
    case PanelType::kQ6K: return pack_superblocks(type, rows, cols, panel);
  }
}

void unpack_row(PanelType type, const uint8_t* panel, int row, int64_t cols, float* out) {
  const int64_t block_bytes = panel_block_stride(type);
  if (has_superblocks(type)) {
    for (int64_t k = 0; k < cols; ++k) {
      const uint8_t* superblock = panel + k / kPanelSuperblock * panel_superblock_bytes(type);
      const uint8_t* block = superblock + k % kPanelSuperblock / kPanelBlock * block_bytes;
      out[k] = value_in_superblock(type, block, superblock + kPanelSuperblock / kPanelBlock * block_bytes, row,
                                   static_cast<int>(k % kPanelBlock));
    }
    return;
  }
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
      default: break;
    }
  }
}

}  // namespace sextant::kernels::cpu
