// Where the CPU paths keep keys and values inside a block of the KV cache.
//
// One layer of a cache is [num_blocks][num_kv_heads] cells; a cell holds `block_size` slots (a multiple of 16) of one head, keys
// before values. value_dim = head_dim rounded up to 16; the padding is never read as a result.
//   fp32          keys    [block_size / 16][head_dim][16]      16 slots side by side, so that a vector's lanes are 16 keys
//                 values  [block_size][value_dim]
//   bf16          keys    [block_size / 16][head_dim / 2][16][2]   the same in pairs of elements of a key,
//   (uint16_t)    values  [block_size / 2][value_dim][2]           and in pairs of slots: what products of pairs take as one
//   int8          keys and values in bf16's order; then fp32 scales: of keys [block_size], of values [block_size]
// int8: an element is scale * q, |q| <= 127, with a scale for each slot's key and one for its value. A row x is kept with
// scale = max |x| / 127 and q = x (127 / max |x|) to the nearest even, hence within scale / 2 and roundings of itself; as zeros where
// max |x| < 2^-100; a row that holds an infinity or NaN has the scale NaN. q is exact in bf16.
// Slots that were never written may hold anything, NaN included.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sextant::kernels {

inline constexpr int kKvTile = 16;  // slots whose keys stand side by side
inline constexpr int kMaxHeadDim = 256;

enum class KvType : uint8_t { kFp32, kBf16, kInt8 };
constexpr int64_t kv_element_bytes(KvType type) { return type == KvType::kFp32 ? 4 : type == KvType::kBf16 ? 2 : 1; }

struct KvCellLayout {
  int32_t block_size;
  int32_t num_kv_heads;
  int32_t head_dim;

  constexpr int64_t value_dim() const { return (head_dim + 15) / 16 * 16; }
  constexpr int64_t keys_per_cell() const { return int64_t{block_size} * head_dim; }  // elements
  constexpr int64_t values_per_cell() const { return block_size * value_dim(); }
  // The scales of int8 count as what they are in bytes.
  constexpr int64_t cell_elements(KvType type) const {
    return keys_per_cell() + values_per_cell() + (type == KvType::kInt8 ? int64_t{block_size} * 8 : 0);
  }
  constexpr int64_t block_elements(KvType type) const { return cell_elements(type) * num_kv_heads; }
  // Where element d of a slot's key stands, and of its value.
  constexpr int64_t key_offset(int64_t block, int32_t head, int32_t place, int32_t d, KvType type) const {
    const int64_t tile = place / kKvTile * kKvTile * int64_t{head_dim}, lane = place % kKvTile;
    return cell_offset(block, head, type) + tile +
           (type != KvType::kFp32 ? d / 2 * int64_t{2 * kKvTile} + 2 * lane + d % 2 : int64_t{d} * kKvTile + lane);
  }
  constexpr int64_t value_offset(int64_t block, int32_t head, int32_t place, int32_t d, KvType type) const {
    return cell_offset(block, head, type) + keys_per_cell() +
           (type != KvType::kFp32 ? place / 2 * 2 * value_dim() + 2 * int64_t{d} + place % 2 : place * value_dim() + d);
  }
  // int8: where the 4 bytes of the scale of a slot's key stand, and of its value's.
  constexpr int64_t key_scale_offset(int64_t block, int32_t head, int32_t place) const {
    return cell_offset(block, head, KvType::kInt8) + keys_per_cell() + values_per_cell() + int64_t{place} * 4;
  }
  constexpr int64_t value_scale_offset(int64_t block, int32_t head, int32_t place) const {
    return key_scale_offset(block, head, place) + int64_t{block_size} * 4;
  }

 private:
  constexpr int64_t cell_offset(int64_t block, int32_t head, KvType type) const {
    return block * block_elements(type) + head * cell_elements(type);
  }
};

}  // namespace sextant::kernels
