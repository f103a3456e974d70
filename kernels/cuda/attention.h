// Paged attention of a ragged batch on the device.
//
//   s[r, j] = cap(scale q[r] . k[j]), cap(x) = softcap tanh(x / softcap), or x when softcap is 0
//   out[r]  = sum over visible j of exp(s[r, j]) v[j] / sum over visible j of exp(s[r, j]); zeros when none is visible
//   visible: j < seq_lens[sequence]; causal: p - window < j <= p, p the row's position; else |p - j| < window; any
//            distance when window is 0
//
// Sequence s has query tokens [cu_seqlens_q[s], cu_seqlens_q[s+1]), the last of them at position seq_lens[s] - 1. The
// query heads that share a KV head are packed: packed row r of (sequence, KV head) is token r / group, head
// kv_head group + r % group, group = num_heads / num_kv_heads. So a tile of 16 or more rows loads each key and value
// once for all of them.
//
// q [T, num_heads, head_dim_qk], out [T, num_heads, head_dim_v], keys and values (kv_layout.h) are all of `type`, bf16
// or fp16; strides between tokens in elements. head_dim_*: multiples of 16 up to 256; templates exist of the sizes
// 64, 96, 128, 256 of both and of (192, 128), others are filled up with zeros inside the kernel. Pointers 16-byte
// aligned, strides multiples of 8. scale > 0; lengths and window below 2^30. out overlaps nothing.
// Position j lives in block block_tables[s, j / 16]; entries of blocks that no row sees are not read, nor are slots
// that no row of a tile sees: they may hold NaN. A slot that some row of a tile sees must be finite (a row's own
// zero weight does not silence an infinity).
// All lists are in device memory and made by engine/device/cuda_attention_plan. An entry whose sequence is negative is
// skipped, so a captured graph replays with a shorter list. What is not listed is not written.
//
// An item is some packed rows of a sequence and a range of positions. partial < 0: the range is all that its rows see,
// and the item writes out; else it writes partials, for a merge. Prefill cuts ranges at multiples of 64 positions.
// attention_prefill: FlashAttention-2. One block per (item, KV head): four warps of 16 or 32 packed rows each against
//   tiles of 64 positions (size 256: 32), mma m16n8k16 with fp32 sums; keys and values pass through one shared buffer
//   each, filled by cp.async while the other is in use. Bound by tensor cores: 2 (head_dim_qk + head_dim_v) operations
//   per row and visible position. Items of 64 rows may be parts of a split, for few rows and much context: they write
//   four partials side by side, one for each warp's 16 rows.
// attention_decode: for few rows. One block per (item, KV head): at most 16 packed rows; each of four warps (size 256:
//   two) walks every fourth (second) block of 16 positions of the range with its own cp.async ring and its own online
//   softmax; warps are merged in shared memory in their order. Bound by memory: 2 (head_dim_qk + head_dim_v) bytes per
//   position and KV head.
// Occupancy: two blocks per multiprocessor of 128 threads (decode of size 256: 64), of at most 255 registers and 81 KB
//   of shared memory, nothing spilled; on 8.0 decode of (192, 128) one; on 8.6 and 8.9 (100 KB) mostly one.
// attention_merge: one block per (merge, KV head, row); groups of head_dim_v / 4 threads take partials in turn. Bound
//   by latency. M = max m, out = sum exp2(m - M) o / sum exp2(m - M) l
// partials: [num_partials][num_kv_heads] of {o [16][head_dim_v], m [16], l [16]} fp32: m the largest score times
//   log2 e, l = sum of exp2(score - m), o = sum of exp2(score - m) v over the item's positions; l = 0 if it sees none.
//
// Weights exp(s - max) are rounded to `type` before they meet v, their sum is of the unrounded; exp2 to 2^-22.
// Determinism: same lists, same bits. A row that prefill does not split: its bits depend on its q, position and visible
// keys and values alone (tiles of positions begin at fixed places, masked positions are exact zeros). Other rows': also
// on the split.
// Source: Dao, FlashAttention-2, 2023; Dao et al., Flash-Decoding, 2023; Milakov and Gimelshein, 2018; Kwon et al.,
// PagedAttention, 2023. PTX ISA 8.0 for the fragments.
#pragma once

#include <cstdint>

#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/types.h"

namespace sextant::kernels::cuda {

inline constexpr int kPartialRows = 16;           // packed rows of a partial
inline constexpr int kDecodeRows = kPartialRows;  // packed rows of a decode item
inline constexpr int kPrefillRows = 64;           // packed rows of a small prefill tile
inline constexpr int kPrefillRowsLarge = 128;     // of a large one; head_dim_qk and head_dim_v at most 128

// The positions [low, high) that a query at `position` of a sequence of `length` tokens sees: for planner and kernels.
struct VisibleRange {
  int32_t low;
  int32_t high;
};
SEXTANT_HOST_DEVICE constexpr VisibleRange visible_range(int32_t window, bool causal, int32_t position,
                                                         int32_t length) {
  const int32_t low = window > 0 && position - window + 1 > 0 ? position - window + 1 : 0;
  const int32_t limit = causal ? position + 1 : window > 0 ? position + window : length;
  return {low, limit < length ? limit : length};
}

// The lists are flat int32: these structs, side by side.
struct AttentionItem {
  int32_t sequence;
  int32_t row_begin;  // packed; a multiple of the kernel's rows
  int32_t
      block_begin;  // positions [16 block_begin, 16 block_end); of prefill multiples of 4, but for a tile's last end
  int32_t block_end;
  int32_t partial;  // decode: the number of its partial; small prefill tile: of the first of four; -1: none, writes out
};
struct MergeItem {
  int32_t sequence;
  int32_t row_begin;  // of 16
  int32_t partial_begin;
  int32_t partial_stride;
  int32_t num_partials;
};

struct AttentionArgs {
  const void* q;
  int64_t q_stride;
  const void* keys;
  const void* values;
  KvLayout layout;
  void* out;
  int64_t out_stride;
  ElementType type;
  int32_t num_heads;
  float scale;
  float softcap;
  int32_t window;
  bool causal;
  const int32_t* cu_seqlens_q;  // [num_sequences + 1]
  const int32_t* seq_lens;      // [num_sequences]
  const int32_t* block_tables;  // [num_sequences, block_table_stride]
  int64_t block_table_stride;
  const AttentionItem* prefill_items;
  int32_t num_prefill_items;
  int32_t prefill_rows;  // kPrefillRows or kPrefillRowsLarge
  const AttentionItem* decode_items;
  int32_t num_decode_items;
  const MergeItem* merges;
  int32_t num_merges;
  int32_t merge_rows;  // the most packed rows of a merge, at most kPartialRows
  float* partials;     // 16-byte aligned
};

// Of one partial and one KV head.
constexpr int64_t attention_partial_floats(int64_t head_dim_v) { return kPartialRows * (head_dim_v + 2); }
constexpr bool prefill_takes_large_tiles(int32_t head_dim_qk, int32_t head_dim_v) {
  return head_dim_qk <= 128 && head_dim_v <= 128;
}

int attention_prefill(const AttentionArgs& args, Stream stream);
int attention_decode(const AttentionArgs& args, Stream stream);
int attention_merge(const AttentionArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
