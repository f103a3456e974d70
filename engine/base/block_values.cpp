// One decoder per kind of block. Numbers are little endian and packed; "nibbles" of 16 bytes are 32 quants: first all low halves,
// then all high ones.
#include "engine/base/block_values.h"

#include <array>
#include <bit>
#include <cstring>

#include "engine/base/check.h"
#include "engine/base/float16.h"

namespace sextant {
namespace {

constexpr int kSmall = 32;   // elements of a small block
constexpr int kLarge = 256;  // of a K block
constexpr int kNibbles = kSmall / 2;

uint16_t u16_at(const uint8_t* at) { return static_cast<uint16_t>(at[0] | at[1] << 8); }
float half_at(const uint8_t* at) { return f32_of_f16(u16_at(at)); }
float int8_at(const uint8_t* at) { return static_cast<float>(static_cast<int8_t>(*at)); }

// Places on a curve that IQ4_NL and IQ4_XS choose from (ggml's kvalues_iq4nl).
constexpr std::array<int8_t, 16> kIq4Values = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};
// E2M1 times two, so that they are whole: 0 0.5 1 1.5 2 3 4 6 and their negatives.
constexpr std::array<int8_t, 16> kE2m1Doubled = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Quant i of 16 bytes of nibbles.
int nibble(const uint8_t* quants, int i) { return i < kNibbles ? quants[i] & 15 : quants[i - kNibbles] >> 4; }

// Quant i of Q5_0 and Q5_1: its fifth bit is bit i of 32.
int five_bits(const uint8_t* high, const uint8_t* quants, int i) {
  return nibble(quants, i) | (high[i / 8] >> (i % 8) & 1) << 4;
}

// 2^(e - 128): a scale of E8M0, bias 127, halved for kE2m1Doubled. 2^-128 and 2^-127 are subnormal.
float half_of_e8m0(uint8_t e) {
  return std::bit_cast<float>(e < 2 ? uint32_t{0x00200000} << e : static_cast<uint32_t>(e - 1) << 23);
}

// --- blocks of 32 ----------------------------------------------------------------------------------------------------

// half d; nibbles. d (q - 8)
void decode_q4_0(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < kSmall; ++i) out[i] = d * static_cast<float>(nibble(block + 2, i) - 8);
}

// half d, m; nibbles. d q + m
void decode_q4_1(const uint8_t* block, float* out) {
  const float d = half_at(block), m = half_at(block + 2);
  for (int i = 0; i < kSmall; ++i) out[i] = d * static_cast<float>(nibble(block + 4, i)) + m;
}

// half d; 32 fifth bits; nibbles. d (q - 16)
void decode_q5_0(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < kSmall; ++i) out[i] = d * static_cast<float>(five_bits(block + 2, block + 6, i) - 16);
}

// half d, m; 32 fifth bits; nibbles. d q + m
void decode_q5_1(const uint8_t* block, float* out) {
  const float d = half_at(block), m = half_at(block + 2);
  for (int i = 0; i < kSmall; ++i) out[i] = d * static_cast<float>(five_bits(block + 4, block + 8, i)) + m;
}

// half d; 32 int8. d q
void decode_q8_0(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < kSmall; ++i) out[i] = d * int8_at(block + 2 + i);
}

// half d; nibbles that name places on the curve
void decode_iq4_nl(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < kSmall; ++i) out[i] = d * kIq4Values[static_cast<size_t>(nibble(block + 2, i))];
}

// E8M0 scale; nibbles of E2M1
void decode_mxfp4(const uint8_t* block, float* out) {
  const float d = half_of_e8m0(block[0]);
  for (int i = 0; i < kSmall; ++i) out[i] = d * kE2m1Doubled[static_cast<size_t>(nibble(block + 1, i))];
}

// --- blocks of 256 ---------------------------------------------------------------------------------------------------
// In halves of 128 or quarters of 64, whose bytes hold, from the low bits up, quants that are 32 apart.

// 16 bytes: low half scale, high half minimum, of 16 quants each; 64 bytes of two-bit quants; half d, dmin.
// (d scale) q - (dmin minimum)
void decode_q2_k(const uint8_t* block, float* out) {
  const uint8_t *scales = block, *quants = block + 16;
  const float d = half_at(block + 80), dmin = half_at(block + 82);
  for (int i = 0; i < kLarge; ++i) {
    const float scale = d * static_cast<float>(scales[i / 16] & 15);
    const float minimum = dmin * static_cast<float>(scales[i / 16] >> 4);
    const int q = quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    out[i] = scale * static_cast<float>(q) - minimum;
  }
}

// 32 bytes: bit j of byte b is the third bit of quant 32 j + b, which is less by 4 without it; 64 bytes of two-bit quants; 12 bytes of
// 16 six-bit scales: scale j's low half in a nibble of byte j % 8, its two high bits in byte 8 + j % 4; half d.
// (d (scale - 32)) q
void decode_q3_k(const uint8_t* block, float* out) {
  const uint8_t *high = block, *quants = block + 32, *scales = block + 96;
  const float d = half_at(block + 108);
  for (int i = 0; i < kLarge; ++i) {
    const int j = i / 16;
    const int low_half = scales[j % 8] >> (j / 8 * 4) & 15, high_bits = scales[8 + j % 4] >> (j / 4 * 2) & 3;
    const float scale = d * static_cast<float>((low_half | high_bits << 4) - 32);
    const int two_bits = quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    const int q = (high[i % 32] >> (i / 32) & 1) != 0 ? two_bits : two_bits - 4;
    out[i] = scale * static_cast<float>(q);
  }
}

// Eight scales and eight minima of six bits in 12 bytes, as Q4_K and Q5_K pack them: of the first four, bytes 0 to 3 and 4 to 7; of the
// last four, the low halves in the nibbles of bytes 8 to 11 and the two high bits on top of bytes 0 to 7.
struct ScaleAndMin {
  int scale;
  int minimum;
};
ScaleAndMin scale_and_min(const uint8_t* packed, int j) {
  if (j < 4) return {packed[j] & 63, packed[j + 4] & 63};
  return {(packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4, packed[j + 4] >> 4 | (packed[j] >> 6) << 4};
}

// half d, dmin; 12 bytes of scales and minima of 32 quants each; four quarters of 32 bytes: low halves first.
// (d scale) q - (dmin minimum)
void decode_q4_k(const uint8_t* block, float* out) {
  const float d = half_at(block), dmin = half_at(block + 2);
  const uint8_t* quants = block + 16;
  for (int j = 0; j < kLarge / 32; ++j) {
    const ScaleAndMin packed = scale_and_min(block + 4, j);
    const float scale = d * static_cast<float>(packed.scale), minimum = dmin * static_cast<float>(packed.minimum);
    for (int i = 0; i < 32; ++i) {
      const int q = quants[j / 2 * 32 + i] >> (j % 2 * 4) & 15;
      out[j * 32 + i] = scale * static_cast<float>(q) - minimum;
    }
  }
}

// As Q4_K, with 32 bytes before the quants: bit j of byte b is the fifth bit of quant 32 j + b.
void decode_q5_k(const uint8_t* block, float* out) {
  const float d = half_at(block), dmin = half_at(block + 2);
  const uint8_t *high = block + 16, *quants = block + 48;
  for (int j = 0; j < kLarge / 32; ++j) {
    const ScaleAndMin packed = scale_and_min(block + 4, j);
    const float scale = d * static_cast<float>(packed.scale), minimum = dmin * static_cast<float>(packed.minimum);
    for (int i = 0; i < 32; ++i) {
      const int q = (quants[j / 2 * 32 + i] >> (j % 2 * 4) & 15) | (high[i] >> j & 1) << 4;
      out[j * 32 + i] = scale * static_cast<float>(q) - minimum;
    }
  }
}

// Two halves of 64 bytes with the low four bits: low nibbles are the half's first 64 quants; two of 32 bytes with the two bits above
// them; 16 int8 scales of 16 quants each; half d. (d scale) (q - 32)
void decode_q6_k(const uint8_t* block, float* out) {
  const uint8_t *low = block, *high = block + 128, *scales = block + 192;
  const float d = half_at(block + 208);
  for (int i = 0; i < kLarge; ++i) {
    const int half = i / 128, at = i % 128;
    const int four_bits = low[half * 64 + at % 64] >> (at / 64 * 4) & 15;
    const int two_bits = high[half * 32 + at % 32] >> (at / 32 * 2) & 3;
    out[i] = (d * int8_at(scales + i / 16)) * static_cast<float>((four_bits | two_bits << 4) - 32);
  }
}

// half d; 16 bits: the two high bits of eight scales; four bytes: their low halves; eight times 16 bytes of nibbles.
// (d (scale - 32)) value
void decode_iq4_xs(const uint8_t* block, float* out) {
  const float d = half_at(block);
  const int high_bits = u16_at(block + 2);
  for (int j = 0; j < kLarge / 32; ++j) {
    const int low_half = block[4 + j / 2] >> (j % 2 * 4) & 15;
    const float scale = d * static_cast<float>((low_half | (high_bits >> (2 * j) & 3) << 4) - 32);
    const uint8_t* quants = block + 8 + j * kNibbles;
    for (int i = 0; i < 32; ++i) out[j * 32 + i] = scale * kIq4Values[static_cast<size_t>(nibble(quants, i))];
  }
}

using DecodeBlock = void (*)(const uint8_t* block, float* out);

DecodeBlock decoder_of(WeightType type) {
  switch (type) {
    case WeightType::kQ4_0: return decode_q4_0;
    case WeightType::kQ4_1: return decode_q4_1;
    case WeightType::kQ5_0: return decode_q5_0;
    case WeightType::kQ5_1: return decode_q5_1;
    case WeightType::kQ8_0: return decode_q8_0;
    case WeightType::kQ2K: return decode_q2_k;
    case WeightType::kQ3K: return decode_q3_k;
    case WeightType::kQ4K: return decode_q4_k;
    case WeightType::kQ5K: return decode_q5_k;
    case WeightType::kQ6K: return decode_q6_k;
    case WeightType::kIQ4NL: return decode_iq4_nl;
    case WeightType::kIQ4XS: return decode_iq4_xs;
    case WeightType::kMXFP4: return decode_mxfp4;
    default: return nullptr;
  }
}

}  // namespace

bool has_block_values(WeightType type) { return decoder_of(type) != nullptr; }

void decode_row(WeightType type, const uint8_t* row, int64_t cols, float* out) {
  const DecodeBlock decode = decoder_of(type);
  const BlockGeometry block = block_geometry(type);
  CHECK(decode != nullptr && cols % block.elements == 0) << weight_type_name(type) << " x " << cols;
  for (int64_t i = 0; i < cols / block.elements; ++i) decode(row + i * block.bytes, out + i * block.elements);
}

bool is_exact_as_q8_0(WeightType type) { return type == WeightType::kQ5_0 || type == WeightType::kIQ4NL; }

void recode_row_as_q8_0(WeightType type, const uint8_t* row, int64_t cols, uint8_t* out) {
  CHECK(is_exact_as_q8_0(type) && cols % kSmall == 0) << weight_type_name(type) << " x " << cols;
  const int64_t from_bytes = block_geometry(type).bytes, to_bytes = block_geometry(WeightType::kQ8_0).bytes;
  for (int64_t block = 0; block < cols / kSmall; ++block, row += from_bytes, out += to_bytes) {
    std::memcpy(out, row, 2);
    for (int i = 0; i < kSmall; ++i) {
      const int q = type == WeightType::kQ5_0 ? five_bits(row + 2, row + 6, i) - 16
                                              : kIq4Values[static_cast<size_t>(nibble(row + 2, i))];
      out[2 + i] = static_cast<uint8_t>(q);
    }
  }
}

}  // namespace sextant
