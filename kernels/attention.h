// Causal attention of query rows of one sequence over one KV head of the paged cache.
//
//   s[r, j] = cap(scale * q[r] . k[j]), cap(x) = softcap tanh(x / softcap), or x when softcap is 0
//   out[r]  = sum over j of exp(s[r, j] - max_j s[r, j]) v[j] / sum over j of exp(s[r, j] - max_j s[r, j])
//   over the visible j: max(0, p - window + 1) <= j <= p, p the row's position (no lower limit when window is 0)
//
// A call has num_tokens tokens at positions first_position, first_position + 1, ...; each has `group` rows (the query heads
// that share the KV head): row r = token r / group, head r % group. q of a row: q + (r / group) q_stride + (r % group) head_dim,
// fp32; out likewise with out_stride. head_dim: a multiple of 8, 8..256. rows = num_tokens * group <= kMaxAttentionRows unless
// num_tokens is 1. Keys and values: kv_layout.h, block of position j = block_table[j / block_size].
// out and q do not overlap. Slots that a row cannot see are never part of its result, whatever they hold.
//
// Splits: positions are cut every 256 from position 0. Each split gives a row a partial (m, l, o): m the largest score,
// l = sum of exp(s - m), o = sum of exp(s - m) v over the row's visible positions of the split. Partials are merged in position order:
//   M' = max(M, m); L = L exp(M - M') + l exp(m - M'); O = O exp(M - M') + o exp(m - M')
// attention_tile computes splits [split_begin, split_end) and either merges and finishes them (partials == nullptr) or stores each
// split's partial, for attention_merge to merge later: the same arithmetic either way.
// partials: [split_end - split_begin][rows][value_dim + 2] fp32 = o, m, l; l = 0 says that the row sees nothing of the split.
//
// Bytes: K and V of the range once per call, 4 head_dim operations per row and position: bound by memory for few rows.
// With a bf16 cache and instructions for products of bf16 pairs (avx512_bf16) q and the weights exp(s - m) are rounded to bf16 (to
// nearest even) before their products, exp is within 2^-18 before it is rounded, and l sums the rounded weights; elsewhere all but the
// cache is fp32.
// An int8 cache is met as its integers, in bf16's recipe: a score is (the chain times the key's scale) times `scale`, the weight that
// meets an integer is exp(s - m) times the value's scale (rounded to bf16 where q is), and l sums exp(s - m) itself.
// Determinism: scores are one fma chain over d (of pairs where there are such instructions: (0, 1), (2, 3), ...); o one fma chain
// over j (of pairs of slots, a slot that the row does not see counting 0); l 16 partial sums in the order of tiles of 16
// positions (of pairs of slots: in the order of two tiles each), then a fixed tree. A row's result depends on its q, its position and the visible K and V alone.
// Source: Milakov and Gimelshein, Online normalizer calculation for softmax, 2018; Dao et al., Flash-Decoding, 2023.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kv_layout.h"

namespace sextant::kernels {

inline constexpr int kAttentionSplit = 256;   // positions
inline constexpr int kMaxAttentionRows = 48;  // query rows of a call with several tokens

struct AttentionTileArgs {
  const float* q;
  int64_t q_stride;
  int32_t num_tokens;
  int32_t group;
  int32_t first_position;
  KvCellLayout layout;
  int32_t kv_head;
  const void* cache;
  KvType cache_type;
  const int32_t* block_table;
  float scale;
  float softcap;
  int32_t window;
  int32_t split_begin;
  int32_t split_end;
  float* out;
  int64_t out_stride;
  float* partials;
  float* scratch;  // attention_scratch_floats(rows, head_dim), 64-byte aligned
};

struct AttentionMergeArgs {
  const float* partials;  // [num_splits][rows][value_dim + 2], in position order
  int32_t num_splits;
  int32_t rows;
  int32_t group;
  int32_t head_dim;
  float* out;
  int64_t out_stride;
  float* scratch;  // attention_scratch_floats(1, head_dim)
};

constexpr int64_t attention_partial_floats(int64_t head_dim) { return (head_dim + 15) / 16 * 16 + 2; }
constexpr int64_t attention_scratch_floats(int64_t rows, int64_t head_dim) {
  return rows * (head_dim + kAttentionSplit + kAttentionSplit / 2 + 2 * (attention_partial_floats(head_dim) + 16)) +
         kAttentionSplit * ((head_dim + (head_dim + 15) / 16 * 16) / 2 + 2) + 256;
}

namespace cpu {
using AttentionTileFunction = void(const AttentionTileArgs& args);
using AttentionMergeFunction = void(const AttentionMergeArgs& args);
}  // namespace cpu
}  // namespace sextant::kernels
