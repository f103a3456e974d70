// Moves bits; the only arithmetic is the rounding of plain types.
#include "kernels/cuda/pack_weight.h"

#include <bit>
#include <cstring>

namespace sextant::kernels::cuda {
namespace {

void store_u32(uint8_t* to, uint32_t word) { std::memcpy(to, &word, 4); }

// Eight values of four bits, columns in order, to the word of weight_layout.h.
uint32_t word_of_nibbles(const uint8_t values[8]) {
  uint32_t word = 0;
  for (int p = 0; p < 4; ++p) {
    word |= static_cast<uint32_t>(values[2 * p]) << (4 * p) | static_cast<uint32_t>(values[2 * p + 1]) << (16 + 4 * p);
  }
  return word;
}

// `header` bytes of d, or of d and m, stand before the quants of a block.
void pack_q4_row(const uint8_t* in, int64_t num_blocks, int header, int group, int j, uint8_t* quants,
                 uint8_t* scales) {
  for (int64_t b = 0; b < num_blocks; ++b, in += header + 16, quants += 512, scales += 32 * header) {
    uint8_t values[32];
    for (int i = 0; i < 16; ++i) {
      values[i] = in[header + i] & 15u;
      values[16 + i] = in[header + i] >> 4;
    }
    for (int member = 0; member < 4; ++member) {
      store_u32(quants + (4 * group + member) * 16 + j * 4, word_of_nibbles(values + 8 * member));
    }
    std::memcpy(scales + (4 * group + j) * header, in, static_cast<size_t>(header));
  }
}

// Columns in order to the words of weight_layout.h; `flip` is added to the bits.
void pack_byte_words(const uint8_t* q, uint32_t flip, int group, int j, uint8_t* quants) {
  for (int i = 0; i < 8; ++i, q += 4) {
    const uint32_t word = (static_cast<uint32_t>(q[0]) | static_cast<uint32_t>(q[2]) << 8 |
                           static_cast<uint32_t>(q[1]) << 16 | static_cast<uint32_t>(q[3]) << 24) ^
                          flip;
    store_u32(quants + i % 2 * 512 + (4 * group + i / 2) * 16 + j * 4, word);
  }
}

void pack_q8_row(const uint8_t* in, int64_t num_blocks, int group, int j, uint8_t* quants, uint8_t* scales) {
  for (int64_t b = 0; b < num_blocks; ++b, in += 34, quants += 1024, scales += 64) {
    pack_byte_words(in + 2, 0x80808080u, group, j, quants);
    std::memcpy(scales + (4 * group + j) * 2, in, 2);
  }
}

uint16_t round_to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

uint16_t round_to_f16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t half = 0x7c00u;        // from 65520 on, and infinity
  if (magnitude > 0x7f800000u) {  // NaN
    half = 0x7e00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: a sum with 1/2 rounds to the subnormals' unit, 2^-24
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
  } else if (magnitude < 0x47800000u) {  // a carry out of 65504's significand is infinity
    half = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

float f32_of_f16(uint16_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  const float value = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return sign != 0 ? -value : value;
}

}  // namespace

WeightFormat weight_format_of(PanelType type, WeightFormat plain) {
  switch (type) {
    case PanelType::kF32:
    case PanelType::kF16:
    case PanelType::kBF16: return plain;
    case PanelType::kQ8_0: return WeightFormat::kQ8_0;
    case PanelType::kQ4_0: return WeightFormat::kQ4_0;
    case PanelType::kQ4_1: return WeightFormat::kQ4_1;
    case PanelType::kQ4K:
    case PanelType::kQ5K:
    case PanelType::kQ6K: return plain;  // as numbers of 16 bits
  }
  return plain;
}

void pack_row_tile(PanelType type, const uint8_t* const rows[kTileRows], int64_t cols, uint8_t* quants,
                   uint8_t* scales) {
  const int64_t num_blocks = cols / kTileCols;
  const WeightFormat format = weight_format_of(type);
  bool whole = true;
  for (int r = 0; r < kTileRows; ++r) whole = whole && rows[r] != nullptr;
  if (!whole) {
    // d = m = 0 makes every value 0; the quants of zero keep dead rows small in any order of operations.
    const int zero = type == PanelType::kQ8_0 ? 0x80 : type == PanelType::kQ4_0 ? 0x88 : 0;
    std::memset(quants, zero, static_cast<size_t>(num_blocks * quant_tile_bytes(format)));
    std::memset(scales, 0, static_cast<size_t>(num_blocks * scale_tile_bytes(format)));
  }
  for (int r = 0; r < kTileRows; ++r) {
    if (rows[r] == nullptr) continue;
    const int group = r % 8, j = r / 8;
    if (type == PanelType::kQ8_0) {
      pack_q8_row(rows[r], num_blocks, group, j, quants, scales);
    } else {
      pack_q4_row(rows[r], num_blocks, type == PanelType::kQ4_1 ? 4 : 2, group, j, quants, scales);
    }
  }
}

bool pack_f8_row_tile(const F8Row rows[kTileRows], int64_t cols, uint8_t* quants, uint8_t* scales) {
  const int64_t num_blocks = cols / kTileCols, num_entries = scales_per_row_tile(WeightFormat::kF8Tiles, cols);
  bool has_nan = false;
  for (int r = 0; r < kTileRows; ++r) {
    const int group = r % 8, j = r / 8;
    constexpr uint8_t kZeros[kTileCols] = {};
    for (int64_t b = 0; b < num_blocks; ++b) {
      const uint8_t* from = rows[r].data == nullptr ? kZeros : rows[r].data + b * kTileCols;
      for (int k = 0; k < kTileCols; ++k) has_nan = has_nan || (from[k] & 0x7fu) == 0x7fu;
      pack_byte_words(from, 0, group, j, quants + b * quant_tile_bytes(WeightFormat::kF8Tiles));
    }
    for (int64_t i = 0; i < num_entries; ++i) {
      const float scale = rows[r].data == nullptr ? 0 : rows[r].scales[i * 128 / rows[r].block_cols];
      std::memcpy(scales + (i * kTileRows + 4 * group + j) * 4, &scale, 4);
    }
  }
  return !has_nan;
}

bool pack_plain_row(PanelType type, WeightFormat to, const uint8_t* row, int64_t cols, uint16_t* out) {
  const bool to_f16 = to == WeightFormat::kFloat16;
  if (type == (to_f16 ? PanelType::kF16 : PanelType::kBF16)) {
    std::memcpy(out, row, static_cast<size_t>(cols) * 2);
    return true;
  }
  bool overflows = false;
  for (int64_t k = 0; k < cols; ++k) {
    float x;
    if (type == PanelType::kF32) {
      std::memcpy(&x, row + k * 4, 4);
    } else {
      uint16_t half;
      std::memcpy(&half, row + k * 2, 2);
      x = type == PanelType::kF16 ? f32_of_f16(half) : std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
    }
    out[k] = to_f16 ? round_to_f16(x) : round_to_bf16(x);
    const uint16_t infinity = to_f16 ? 0x7c00 : 0x7f80;
    const bool was_infinite = (std::bit_cast<uint32_t>(x) & 0x7fffffffu) == 0x7f800000u;
    overflows = overflows || ((out[k] & 0x7fffu) == infinity && !was_infinite);
  }
  return !overflows;
}

}  // namespace sextant::kernels::cuda
