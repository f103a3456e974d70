// Where the CPU paths keep keys and values inside a block of the KV cache.
//
// One layer of a cache is [num_blocks][num_kv_heads] cells; a cell holds `block_size` slots (a multiple of 16) of one head, keys
// before values. value_dim = head_dim rounded up to 16; the padding is never read as a result.
//   fp32          keys    [block_size / 16][head_dim][16]      16 slots side by side, so that a vector's lanes are 16 keys
//                 values  [block_size][value_dim]
//   bf16          keys    [block_size / 16][head_dim / 2][16][2]   the same in pairs of elements of a key,
//   (uint16_t)    values  [block_size / 2][value_dim][2]           and in pairs of slots: what products of pairs take as one
// Slots that were never written may hold anything, NaN included.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sextant::kernels {

inline constexpr int kKvTile = 16;  // slots whose keys stand side by side
inline constexpr int kMaxHeadDim = 256;

struct KvCellLayout {
  int32_t block_size;
  int32_t num_kv_heads;
  int32_t head_dim;

  constexpr int64_t value_dim() const { return (head_dim + 15) / 16 * 16; }
  constexpr int64_t keys_per_cell() const { return int64_t{block_size} * head_dim; }  // elements
  constexpr int64_t cell_elements() const { return block_size * (head_dim + value_dim()); }
  constexpr int64_t block_elements() const { return cell_elements() * num_kv_heads; }
  // Where element d of a slot's key stands, and of its value.
  constexpr int64_t key_offset(int64_t block, int32_t head, int32_t place, int32_t d, bool is_bf16) const {
    const int64_t tile = place / kKvTile * kKvTile * int64_t{head_dim}, lane = place % kKvTile;
    return cell_offset(block, head) + tile +
           (is_bf16 ? d / 2 * int64_t{2 * kKvTile} + 2 * lane + d % 2 : int64_t{d} * kKvTile + lane);
  }
  constexpr int64_t value_offset(int64_t block, int32_t head, int32_t place, int32_t d, bool is_bf16) const {
    return cell_offset(block, head) + keys_per_cell() +
           (is_bf16 ? place / 2 * 2 * value_dim() + 2 * int64_t{d} + place % 2 : place * value_dim() + d);
  }

 private:
  constexpr int64_t cell_offset(int64_t block, int32_t head) const {
    return block * block_elements() + head * cell_elements();
  }
};

}  // namespace sextant::kernels
