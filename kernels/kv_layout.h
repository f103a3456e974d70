// Where the CPU paths keep keys and values inside a block of the KV cache.
//
// One layer of a cache is [num_blocks][num_kv_heads] cells; a cell holds `block_size` slots (a multiple of 16) of one head:
//   keys    [block_size / 16][head_dim][16]   16 slots side by side, so that a vector's lanes are 16 keys
//   values  [block_size][value_dim]           value_dim = head_dim rounded up to 16; the padding is never read as a result
// Elements are bf16 (uint16_t) or fp32. Slots that were never written may hold anything, NaN included.
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
  // Of element 0 of a slot's key; its element d is 16 d further.
  constexpr int64_t key_offset(int64_t block, int32_t head, int32_t place) const {
    return block * block_elements() + head * cell_elements() + place / kKvTile * kKvTile * int64_t{head_dim} +
           place % kKvTile;
  }
  constexpr int64_t value_offset(int64_t block, int32_t head, int32_t place) const {
    return block * block_elements() + head * cell_elements() + keys_per_cell() + place * value_dim();
  }
};

}  // namespace sextant::kernels
