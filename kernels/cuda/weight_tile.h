// What one lane does with the words of a tile of quantised weights (weight_layout.h): to fp32 for scalar code, to pairs of the
// activations' 16-bit type for tensor cores. All are exact; scales are applied to sums by the caller.
#pragma once

#include <type_traits>

#include "kernels/cuda/element.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/types.h"
#include "kernels/cuda/weight_layout.h"

namespace sextant::kernels::cuda {

// Host side: whether a product takes these. Activations of 16 bits, plain weights in their type; sums go out in it or in fp32.
inline bool takes_types(WeightFormat format, ElementType x, ElementType out) {
  if (x != ElementType::kBFloat16 && x != ElementType::kFloat16) return false;
  if (is_plain(format) && (format == WeightFormat::kFloat16) != (x == ElementType::kFloat16)) return false;
  return out == x || out == ElementType::kFloat32;
}

// Two bf16 of a register, the first in the low half.
__device__ __forceinline__ float low_bf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_bf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
// Eight numbers of T in the order of memory.
template <typename T>
__device__ __forceinline__ void unpack_8(const uint4& v, float (&x)[8]);
template <>
__device__ __forceinline__ void unpack_8<bf16>(const uint4& v, float (&x)[8]) {
  const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
  SEXTANT_UNROLL
  for (int p = 0; p < 4; ++p) {
    x[2 * p] = low_bf16(pairs[p]);
    x[2 * p + 1] = high_bf16(pairs[p]);
  }
}
template <>
__device__ __forceinline__ void unpack_8<fp16>(const uint4& v, float (&x)[8]) {
  const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
  SEXTANT_UNROLL
  for (int p = 0; p < 4; ++p) {
    __half2 pair;
    __builtin_memcpy(&pair, &pairs[p], sizeof(pair));
    const float2 both = __half22float2(pair);
    x[2 * p] = both.x;
    x[2 * p + 1] = both.y;
  }
}

template <WeightFormat kFormat>
inline constexpr bool kIsPlain = is_plain(kFormat);
template <WeightFormat kFormat>
inline constexpr bool kIsF8RowMajor = is_f8_row_major(kFormat);
template <WeightFormat kFormat>
inline constexpr int kQuantTileBytes = static_cast<int>(quant_tile_bytes(kFormat));
template <WeightFormat kFormat>
inline constexpr int kScaleTileBytes = static_cast<int>(scale_tile_bytes(kFormat));
template <WeightFormat kFormat>
inline constexpr int kTilesPerScale = static_cast<int>(tiles_per_scale(kFormat));
// Entries of scales in a row of `num_tiles` tiles.
template <WeightFormat kFormat>
__device__ __forceinline__ int num_scale_entries(int num_tiles) {
  return (num_tiles + kTilesPerScale<kFormat> - 1) / kTilesPerScale<kFormat>;
}

// Two e4m3 as two bf16, exactly: the upper byte of each half of `pair` (what is below it is ignored). Sign, exponent and
// mantissa move into their places; 2^120 is between the two biases, and brings subnormal numbers to normal ones. Bits of NaN
// (0x7f, 0xff) become 480: there are none in a weight (pack_weight.h).
__device__ __forceinline__ uint32_t bf16_pair_of_e4m3(uint32_t pair) {
  constexpr uint32_t kTwoTo120 = 0x7b807b80u, kMinusZero = 0x80008000u;
  return fma_bf16x2((pair & 0x80008000u) | (pair >> 4 & 0x07f007f0u), kTwoTo120, kMinusZero);
}

// The same as two fp16: one place to the right, and 2^8.
__device__ __forceinline__ uint32_t fp16_pair_of_e4m3(uint32_t pair) {
  constexpr uint32_t kTwoTo8 = 0x5c005c00u, kMinusZero = 0x80008000u;
  return fma_f16x2((pair & 0x80008000u) | (pair >> 1 & 0x3f803f80u), kTwoTo8, kMinusZero);
}

// Eight e4m3 in the order of memory, exactly.
__device__ __forceinline__ void unpack_8_e4m3(uint32_t low, uint32_t high, float (&x)[8]) {
  const uint32_t words[2] = {low, high};
  SEXTANT_UNROLL
  for (int i = 0; i < 2; ++i) {
    const uint32_t even = bf16_pair_of_e4m3(words[i] << 8), odd = bf16_pair_of_e4m3(words[i]);
    x[4 * i] = low_bf16(even);
    x[4 * i + 1] = low_bf16(odd);
    x[4 * i + 2] = high_bf16(even);
    x[4 * i + 3] = high_bf16(odd);
  }
}

// The tile words that a lane holds: for each of its four rows j (group + 8 j) eight columns.
template <WeightFormat kFormat>
struct LaneTile {
  static constexpr bool kHasOffset = kFormat != WeightFormat::kF8Tiles;
  static constexpr int kVectors = kQuantTileBytes<kFormat> / 512;
  uint4 quants[kVectors];

  // From a tile in memory, 128 bits per lane and vector.
  template <typename Load>
  __device__ __forceinline__ void load(const uint8_t* tile, int lane, Load&& load_16) {
    SEXTANT_UNROLL
    for (int v = 0; v < kVectors; ++v) quants[v] = load_16(reinterpret_cast<const uint4*>(tile + v * 512 + lane * 16));
  }
  __device__ __forceinline__ uint32_t word(int v, int j) const {
    const uint4& q = quants[v];
    return j == 0 ? q.x : j == 1 ? q.y : j == 2 ? q.z : q.w;
  }

  // e[k] = the stored value of column 8 member + k of row j, plus offset(k): the bits go straight into a mantissa whose
  // exponent gives the last of them the weight 1. Small offsets keep what rounding does to a sum of e x small.
  __device__ __forceinline__ void to_float_with_offset(int j, float (&e)[8]) const {
    if constexpr (kFormat == WeightFormat::kF8Tiles) {
      SEXTANT_UNROLL
      for (int p = 0; p < 4; ++p) {
        const uint32_t pair = to_pair<bf16>(j, p);
        e[2 * p] = low_bf16(pair);
        e[2 * p + 1] = high_bf16(pair);
      }
    } else if constexpr (kFormat == WeightFormat::kQ8_0) {
      SEXTANT_UNROLL
      for (int v = 0; v < 2; ++v) {  // 256 + byte
        const uint32_t w = word(v, j);
        e[4 * v] = __uint_as_float((w << 15 & 0x007f8000u) | 0x43800000u);
        e[4 * v + 2] = __uint_as_float((w << 7 & 0x007f8000u) | 0x43800000u);
        e[4 * v + 1] = __uint_as_float((w >> 1 & 0x007f8000u) | 0x43800000u);
        e[4 * v + 3] = __uint_as_float((w >> 9 & 0x007f8000u) | 0x43800000u);
      }
    } else {
      const uint32_t w = word(0, j);
      const uint32_t shifted[4] = {w << 15, w >> 1, w << 7, w >> 9};
      SEXTANT_UNROLL
      for (int i = 0; i < 4; ++i) {  // 256 + and 16 + nibble
        const int k = i / 2 * 4 + i % 2;
        e[k] = __uint_as_float((shifted[i] & 0x00078000u) | 0x43800000u);
        e[k + 2] = __uint_as_float((shifted[i] & 0x00780000u) | 0x41800000u);
      }
    }
  }
  // What e is above the number that d is multiplied with.
  __device__ static constexpr float offset(int k) {
    if (!kHasOffset) return 0;
    if (kFormat == WeightFormat::kQ8_0) return 256 + 128;
    return static_cast<float>((k % 4 < 2 ? 256 : 16) + (kFormat == WeightFormat::kQ4_0 ? 8 : 0));
  }

  // Columns 8 member + 2 p, + 1 of row j as a pair of T, the numbers that d is multiplied with. Integers are put below a
  // power of two that gives the last bit of a significand the weight 1; fp16 has room for eight bits there, bf16 for seven.
  template <typename T>
  __device__ __forceinline__ uint32_t to_pair(int j, int p) const {
    if constexpr (std::is_same_v<T, fp16>) {
      constexpr uint32_t kOne = 0x3c003c00u, k1024 = 0x64006400u;
      if constexpr (kFormat == WeightFormat::kF8Tiles) {
        return fp16_pair_of_e4m3(p % 2 == 0 ? word(p / 2, j) << 8 : word(p / 2, j));
      } else if constexpr (kFormat == WeightFormat::kQ8_0) {
        return fma_f16x2((word(p / 2, j) >> (8 * (p % 2)) & 0x00ff00ffu) | k1024, kOne, 0xe480e480u);  // -1152
      } else {
        constexpr uint32_t kMinusOffset = kFormat == WeightFormat::kQ4_0 ? 0xe408e408u : 0xe400e400u;  // -1032, -1024
        return fma_f16x2((word(0, j) >> (4 * p) & 0x000f000fu) | k1024, kOne, kMinusOffset);
      }
    } else {
      return to_bf16_pair(j, p);
    }
  }

 private:
  __device__ __forceinline__ uint32_t to_bf16_pair(int j, int p) const {
    constexpr uint32_t kOne = 0x3f803f80u, kMinusOne = 0xbf80bf80u;
    if constexpr (kFormat == WeightFormat::kF8Tiles) {
      return bf16_pair_of_e4m3(p % 2 == 0 ? word(p / 2, j) << 8 : word(p / 2, j));
    } else if constexpr (kFormat == WeightFormat::kQ8_0) {
      const uint32_t bytes = word(p / 2, j) >> (8 * (p % 2));
      const uint32_t low = (bytes & 0x007f007fu) | 0x43004300u;    // 128 + the low seven bits
      const uint32_t above = (bytes & 0x00800080u) ^ 0x43804380u;  // 256, or 128 where the eighth is set
      return fma_bf16x2(above, kMinusOne, low);
    } else {
      constexpr uint32_t kMinusOffset = kFormat == WeightFormat::kQ4_0 ? 0xc308c308u : 0xc300c300u;  // -136, -128
      return fma_bf16x2((word(0, j) >> (4 * p) & 0x000f000fu) | 0x43004300u, kOne, kMinusOffset);
    }
  }
};

// d, or d and m, of a lane's four rows: one access of 64 or 128 bits. kF8Tiles: d is fp32.
template <WeightFormat kFormat>
struct LaneScales {
  static constexpr bool kHasMinimum = kFormat == WeightFormat::kQ4_1, kIsFloat = kFormat == WeightFormat::kF8Tiles;
  uint32_t pairs[kHasMinimum || kIsFloat ? 4 : 2];  // of fp16: d, m of row j; else d of rows 2 i and 2 i + 1

  // From the tile's scales, memory of any kind.
  __device__ __forceinline__ void load(const uint8_t* tile_scales, int group) {
    if constexpr (kHasMinimum || kIsFloat) {
      const uint4 v = reinterpret_cast<const uint4*>(tile_scales)[group];
      pairs[0] = v.x;
      pairs[1] = v.y;
      pairs[2] = v.z;
      pairs[3] = v.w;
    } else {
      const uint2 v = reinterpret_cast<const uint2*>(tile_scales)[group];
      pairs[0] = v.x;
      pairs[1] = v.y;
    }
  }
  __device__ __forceinline__ float d(int j) const {
    if constexpr (kIsFloat) return __uint_as_float(pairs[j]);
    return kHasMinimum ? half(pairs[j], 0) : half(pairs[j / 2], j % 2);
  }
  __device__ __forceinline__ float m(int j) const { return half(pairs[j], 1); }

 private:
  __device__ __forceinline__ static float half(uint32_t pair, int which) {
    const auto bits = static_cast<uint16_t>(pair >> (16 * which));
    fp16 value;
    __builtin_memcpy(&value, &bits, 2);
    return to_float(value);
  }
};

}  // namespace sextant::kernels::cuda
