// Source: ggml's dequantize_row_q4_K, _q5_K and _q6_K, whose loops go along the file's bytes.
#include "kernels/ref/superblocks.h"

#include "kernels/ref/reference.h"

namespace sextant::kernels::ref {
namespace {

double half_at(const uint8_t* p) { return f32_of_f16(static_cast<uint16_t>(p[0] | p[1] << 8)); }

// Eight pairs of six bits: 96 bits, the upper two of the last four pairs above the first four's.
struct SixBits {
  int scale, minimum;
};
SixBits six_bits(const uint8_t* packed, int b) {
  if (b < 4) return {packed[b] % 64, packed[b + 4] % 64};
  return {packed[b + 4] % 16 + packed[b - 4] / 64 * 16, packed[b + 4] / 16 + packed[b] / 64 * 16};
}

}  // namespace

Superblock dequantize_superblock(PanelType type, const uint8_t* block) {
  Superblock out{};
  if (type == PanelType::kQ6K) {
    const double d = half_at(block + 208);
    for (int half = 0; half < 2; ++half) {
      const uint8_t *low = block + 64 * half, *high = block + 128 + 32 * half, *scales = block + 192 + 8 * half;
      for (int l = 0; l < 32; ++l) {
        const int q[4] = {low[l] % 16 + high[l] % 4 * 16, low[l + 32] % 16 + high[l] / 4 % 4 * 16,
                          low[l] / 16 + high[l] / 16 % 4 * 16, low[l + 32] / 16 + high[l] / 64 * 16};
        for (int i = 0; i < 4; ++i) {
          const double scale = static_cast<int8_t>(scales[l / 16 + 2 * i]);
          out.values[static_cast<size_t>(128 * half + 32 * i + l)] = d * scale * (q[i] - 32);
        }
      }
    }
    return out;
  }
  const bool has_fifth_bits = type == PanelType::kQ5K;
  const double d = half_at(block), m = -half_at(block + 2);
  const uint8_t *fifth = block + 16, *nibbles = block + (has_fifth_bits ? 48 : 16);
  for (int pair = 0; pair < 4; ++pair) {
    for (int high = 0; high < 2; ++high) {
      const int b = 2 * pair + high;
      const SixBits of_block = six_bits(block + 4, b);
      for (int l = 0; l < 32; ++l) {
        int q = high == 0 ? nibbles[32 * pair + l] % 16 : nibbles[32 * pair + l] / 16;
        if (has_fifth_bits && (fifth[l] & (1 << b)) != 0) q += 16;
        const auto at = static_cast<size_t>(32 * b + l);
        out.minimums[at] = m * of_block.minimum;
        out.values[at] = d * of_block.scale * q + out.minimums[at];
      }
    }
  }
  return out;
}

}  // namespace sextant::kernels::ref
