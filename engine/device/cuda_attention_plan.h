// CudaAttentionPlan: cuts a step's attention into the work lists that kernels/cuda/attention.h describes: prefill
// items, decode items, merges. Once per step and sliding window, on the host, from the batch alone; pure,
// deterministic, reuses its memory. Knows no CUDA: lists() is one run of int32 for one upload, and pointers into it are
// offsets.
//
// A sequence with few packed rows (query tokens times heads of a group) is decoded, others are prefilled; either may be
// split over positions. How long the pieces of a split are minimises rounds x (mean item + a constant for each item),
// where rounds = items x KV heads / blocks that run at once: one long sequence fills the device, many short ones are
// left whole. Prefill is split only where its tiles leave half of the device idle: a short question after a long cached
// prefix.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/attention.h"

namespace sextant {

struct CudaAttentionShape {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim_qk = 0;
  int32_t head_dim_v = 0;
  int32_t sliding_window = 0;
  bool causal = true;
  int32_t num_multiprocessors = 0;

  bool operator==(const CudaAttentionShape&) const = default;
};

// What a captured graph is fixed to: lists of a replay have these lengths, whatever the batch.
struct CudaDecodeBucket {
  int32_t num_sequences = 0;        // at most
  int32_t tokens_per_sequence = 1;  // query tokens, at most; 1, or 32 with the heads of a group
};

// The most that lists of any step take.
struct CudaAttentionBounds {
  int64_t list_ints = 0;
  int64_t partial_floats = 0;
};

class CudaAttentionPlan {
 public:
  // As in AttentionBatch: sequence s has query tokens [cu_seqlens_q[s], cu_seqlens_q[s+1]) and seq_lens[s] tokens.
  void plan(std::span<const int32_t> cu_seqlens_q, std::span<const int32_t> seq_lens, const CudaAttentionShape& shape);
  // All sequences are decoded; the lists are filled up to the bucket's lengths with entries that blocks skip.
  void plan_bucket(std::span<const int32_t> cu_seqlens_q, std::span<const int32_t> seq_lens,
                   const CudaAttentionShape& shape, const CudaDecodeBucket& bucket);

  std::span<const int32_t> lists() const { return lists_; }
  // Sets the counts and, `lists_on_device` being where lists() was copied to, the pointers.
  void describe(const int32_t* lists_on_device, kernels::cuda::AttentionArgs& args) const;

  std::span<const kernels::cuda::AttentionItem> prefill_items() const { return prefill_items_; }
  std::span<const kernels::cuda::AttentionItem> decode_items() const { return decode_items_; }
  std::span<const kernels::cuda::MergeItem> merges() const { return merges_; }
  int32_t prefill_rows() const { return prefill_rows_; }
  int32_t merge_rows() const { return merge_rows_; }
  int32_t num_partials() const { return num_partials_; }
  int64_t partial_floats() const;

  static CudaAttentionBounds bounds(int64_t max_num_tokens, int64_t max_num_sequences, const CudaAttentionShape& shape);

 private:
  struct RowTile {  // packed rows that one item computes, and the blocks of positions that they see
    int32_t sequence;
    int32_t row_begin;
    int32_t num_rows;
    int32_t block_begin;
    int32_t block_end;
  };
  // How tiles may be split.
  struct SplitRule {
    int64_t max_items;            // in all
    int32_t unit;                 // blocks: pieces begin at multiples, but for a tile's first
    int32_t min_piece;            // blocks
    int32_t partials_of_an_item;  // one for each 16 rows
  };
  void reset(const CudaAttentionShape& shape);
  void choose_prefill_rows(std::span<const int32_t> cu_seqlens_q);
  void add_tiles(std::vector<RowTile>& tiles, int32_t rows_of_tile, int32_t sequence, int32_t num_queries,
                 int32_t length);
  void split(const std::vector<RowTile>& tiles, const SplitRule& rule,
             std::vector<kernels::cuda::AttentionItem>& items);
  int32_t choose_piece(const std::vector<RowTile>& tiles, const SplitRule& rule) const;
  void collect_lists();

  CudaAttentionShape shape_;
  std::vector<int32_t> lists_;
  std::vector<kernels::cuda::AttentionItem> prefill_items_;
  std::vector<kernels::cuda::AttentionItem> decode_items_;
  std::vector<kernels::cuda::MergeItem> merges_;
  std::vector<RowTile> prefill_tiles_;
  std::vector<RowTile> decode_tiles_;
  int32_t prefill_rows_ = 0;
  int32_t merge_rows_ = 0;
  int32_t num_partials_ = 0;
};

}  // namespace sextant
