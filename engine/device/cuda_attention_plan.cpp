// Planning is some integer operations per sequence, and per candidate length of a split (about 40).
#include "engine/device/cuda_attention_plan.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "engine/base/check.h"

namespace sextant {
namespace {

using kernels::cuda::AttentionItem;
using kernels::cuda::kBlockSlots;
using kernels::cuda::kDecodeRows;
using kernels::cuda::kPartialRows;
using kernels::cuda::kPrefillRows;
using kernels::cuda::kPrefillRowsLarge;
using kernels::cuda::MergeItem;
using kernels::cuda::visible_range;

// Thread blocks that run at once on a multiprocessor, by the kernels' shared memory and registers.
constexpr int32_t kBlocksPerMultiprocessor = 2;
// Packed rows up to which a sequence is decoded: two tiles, of which the second finds keys and values in the L2 cache.
constexpr int32_t kMaxDecodeRows = 2 * kDecodeRows;
// Blocks of positions of the shortest piece of a split: two for each warp of decode, four tiles of prefill. Shorter
// ones are all beginning and end.
constexpr int32_t kMinDecodePiece = 8;
constexpr int32_t kMinPrefillPiece = 16;
constexpr int32_t kPrefillUnit = 4;  // blocks of a tile of positions
constexpr int32_t kPartialsOfPrefill = kPrefillRows / kPartialRows;
// What an item costs beside its positions, in blocks of positions: launch, queries, the merge.
constexpr int64_t kItemCost = 4;
// Rounds of thread blocks that splitting decode may add; more would not even out much.
constexpr int64_t kMaxRounds = 3;

constexpr int32_t kIntsOfItem = sizeof(AttentionItem) / sizeof(int32_t);
constexpr int32_t kIntsOfMerge = sizeof(MergeItem) / sizeof(int32_t);

template <typename T>
T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

int32_t group_of(const CudaAttentionShape& shape) { return shape.num_heads / shape.num_kv_heads; }

int64_t blocks_at_once(const CudaAttentionShape& shape) {
  return int64_t{kBlocksPerMultiprocessor} * shape.num_multiprocessors;
}

bool is_decoded(int64_t num_queries, int32_t group) {
  return num_queries == 1 || num_queries * group <= kMaxDecodeRows;
}

// Items that splitting may add to num_tiles whole decode tiles. A split tile has at least one more than a whole one, so
// at most this many tiles are split, and at most twice this many items have partials.
int64_t max_added_items(int64_t num_tiles, const CudaAttentionShape& shape) {
  return ceil_div<int64_t>(std::min(num_tiles, kMaxRounds) * blocks_at_once(shape), shape.num_kv_heads);
}

// Prefill items of a step that is split: one round.
int64_t max_split_prefill_items(const CudaAttentionShape& shape) { return blocks_at_once(shape) / shape.num_kv_heads; }

// Units of blocks from the one that a tile begins in.
int32_t num_units(int32_t block_begin, int32_t block_end, int32_t unit) {
  return ceil_div(block_end, unit) - block_begin / unit;
}

template <typename T>
void append(std::vector<int32_t>& lists, const std::vector<T>& entries) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % sizeof(int32_t) == 0);
  const size_t begin = lists.size();
  lists.resize(begin + entries.size() * (sizeof(T) / sizeof(int32_t)));
  if (!entries.empty()) std::memcpy(lists.data() + begin, entries.data(), entries.size() * sizeof(T));
}

}  // namespace

void CudaAttentionPlan::plan(std::span<const int32_t> cu_seqlens_q, std::span<const int32_t> seq_lens,
                             const CudaAttentionShape& shape) {
  CHECK_EQ(cu_seqlens_q.size(), seq_lens.size() + 1);
  reset(shape);
  choose_prefill_rows(cu_seqlens_q);
  for (size_t s = 0; s < seq_lens.size(); ++s) {
    const int32_t num_queries = cu_seqlens_q[s + 1] - cu_seqlens_q[s];
    CHECK_GE(num_queries, 0) << "of sequence " << s;
    if (is_decoded(num_queries, group_of(shape))) {
      add_tiles(decode_tiles_, kDecodeRows, static_cast<int32_t>(s), num_queries, seq_lens[s]);
    } else {
      add_tiles(prefill_tiles_, prefill_rows_, static_cast<int32_t>(s), num_queries, seq_lens[s]);
    }
  }
  const auto num_prefill = static_cast<int64_t>(prefill_tiles_.size());
  const bool may_split = prefill_rows_ == kPrefillRows && 2 * num_prefill <= max_split_prefill_items(shape);
  split(prefill_tiles_,
        {may_split ? max_split_prefill_items(shape) : num_prefill, kPrefillUnit, kMinPrefillPiece, kPartialsOfPrefill},
        prefill_items_);
  const auto num_decode = static_cast<int64_t>(decode_tiles_.size());
  split(decode_tiles_, {num_decode + max_added_items(num_decode, shape), 1, kMinDecodePiece, 1}, decode_items_);
  collect_lists();
}

void CudaAttentionPlan::plan_bucket(std::span<const int32_t> cu_seqlens_q, std::span<const int32_t> seq_lens,
                                    const CudaAttentionShape& shape, const CudaDecodeBucket& bucket) {
  CHECK_EQ(cu_seqlens_q.size(), seq_lens.size() + 1);
  CHECK_LE(seq_lens.size(), static_cast<size_t>(bucket.num_sequences));
  reset(shape);
  CHECK(is_decoded(bucket.tokens_per_sequence, group_of(shape)))
      << bucket.tokens_per_sequence << " query tokens of " << group_of(shape) << " heads each are too many to decode";
  for (size_t s = 0; s < seq_lens.size(); ++s) {
    const int32_t num_queries = cu_seqlens_q[s + 1] - cu_seqlens_q[s];
    CHECK(num_queries >= 0 && num_queries <= bucket.tokens_per_sequence)
        << "sequence " << s << " has " << num_queries << " query tokens, the bucket " << bucket.tokens_per_sequence;
    add_tiles(decode_tiles_, kDecodeRows, static_cast<int32_t>(s), num_queries, seq_lens[s]);
  }
  const int32_t rows = bucket.tokens_per_sequence * group_of(shape);
  const int64_t num_tiles = int64_t{bucket.num_sequences} * ceil_div(rows, kDecodeRows);
  const int64_t added = max_added_items(num_tiles, shape_);
  // By the tiles of the batch, not of the bucket: else more of them could be split than there are merges.
  split(decode_tiles_, {static_cast<int64_t>(decode_tiles_.size()) + added, 1, kMinDecodePiece, 1}, decode_items_);
  CHECK_LE(decode_items_.size(), static_cast<size_t>(num_tiles + added));
  decode_items_.resize(static_cast<size_t>(num_tiles + added), AttentionItem{-1, 0, 0, 0, -1});
  CHECK_LE(merges_.size(), static_cast<size_t>(std::min(num_tiles, added)));
  merges_.resize(static_cast<size_t>(std::min(num_tiles, added)), MergeItem{-1, 0, 0, 0, 0});
  merge_rows_ = std::min(rows, kPartialRows);
  num_partials_ = static_cast<int32_t>(2 * added);
  collect_lists();
}

void CudaAttentionPlan::reset(const CudaAttentionShape& shape) {
  CHECK(shape.num_kv_heads > 0 && shape.num_heads % shape.num_kv_heads == 0 && shape.num_multiprocessors > 0)
      << shape.num_heads << " heads, " << shape.num_kv_heads << " KV heads, " << shape.num_multiprocessors
      << " multiprocessors";
  shape_ = shape;
  prefill_items_.clear();
  decode_items_.clear();
  merges_.clear();
  prefill_tiles_.clear();
  decode_tiles_.clear();
  prefill_rows_ = kPrefillRows;
  merge_rows_ = 0;
  num_partials_ = 0;
}

// Large tiles halve the reads of keys and values from shared memory, once there are enough to fill the device.
void CudaAttentionPlan::choose_prefill_rows(std::span<const int32_t> cu_seqlens_q) {
  if (!kernels::cuda::prefill_takes_large_tiles(shape_.head_dim_qk, shape_.head_dim_v)) return;
  int64_t large_tiles = 0;
  for (size_t s = 0; s + 1 < cu_seqlens_q.size(); ++s) {
    const int64_t num_queries = cu_seqlens_q[s + 1] - cu_seqlens_q[s];
    if (!is_decoded(num_queries, group_of(shape_))) {
      large_tiles += ceil_div<int64_t>(num_queries * group_of(shape_), kPrefillRowsLarge);
    }
  }
  if (large_tiles * shape_.num_kv_heads >= blocks_at_once(shape_)) prefill_rows_ = kPrefillRowsLarge;
}

void CudaAttentionPlan::add_tiles(std::vector<RowTile>& tiles, int32_t rows_of_tile, int32_t sequence,
                                  int32_t num_queries, int32_t length) {
  const int32_t group = group_of(shape_), num_rows = num_queries * group, first_position = length - num_queries;
  for (int32_t row = 0; row < num_rows; row += rows_of_tile) {
    const int32_t last = std::min(row + rows_of_tile, num_rows) - 1;
    const auto seen_by = [&](int32_t r) {
      return visible_range(shape_.sliding_window, shape_.causal, first_position + r / group, length);
    };
    const int32_t low = seen_by(row).low, high = seen_by(last).high;
    RowTile tile = {sequence, row, last - row + 1, 0, 0};
    if (high > low) {
      tile.block_begin = low / kBlockSlots;
      tile.block_end = ceil_div(high, kBlockSlots);
    }
    tiles.push_back(tile);
  }
}

// The units of a piece.
int32_t CudaAttentionPlan::choose_piece(const std::vector<RowTile>& tiles, const SplitRule& rule) const {
  int64_t total = 0;
  int32_t longest = 1;
  for (const RowTile& tile : tiles) {
    const int32_t units = num_units(tile.block_begin, tile.block_end, rule.unit);
    total += units;
    longest = std::max(longest, units);
  }
  int32_t best = longest;
  int64_t best_cost = 0;
  const int32_t least = std::min(rule.min_piece / rule.unit, longest);
  for (int32_t piece = longest; piece >= least; piece = std::min(piece - 1, piece - piece / 8)) {
    int64_t items = 0;
    for (const RowTile& tile : tiles) {
      items += std::max(1, ceil_div(num_units(tile.block_begin, tile.block_end, rule.unit), piece));
    }
    if (items > rule.max_items) break;
    const int64_t rounds = ceil_div(items * shape_.num_kv_heads, blocks_at_once(shape_));
    // In 1024ths of a block. The longest item is a lower bound, the mean one's share of the rounds another.
    const int64_t cost_of_longest = 1024 * (int64_t{piece} * rule.unit + kItemCost);
    const int64_t cost_of_rounds = rounds * (1024 * total * rule.unit / items + 1024 * kItemCost);
    const int64_t cost = std::max(cost_of_longest, cost_of_rounds);
    if (best_cost == 0 || cost < best_cost) {
      best = piece;
      best_cost = cost;
    }
  }
  return best;
}

void CudaAttentionPlan::split(const std::vector<RowTile>& tiles, const SplitRule& rule,
                              std::vector<AttentionItem>& items) {
  if (tiles.empty()) return;
  const int32_t piece = choose_piece(tiles, rule);
  for (const RowTile& tile : tiles) {
    const int32_t units = num_units(tile.block_begin, tile.block_end, rule.unit);
    const int32_t num_items = std::max(1, ceil_div(units, piece));
    if (num_items > 1) {
      for (int32_t i = 0; i * kPartialRows < tile.num_rows; ++i) {
        merges_.push_back(
            {tile.sequence, tile.row_begin + i * kPartialRows, num_partials_ + i, rule.partials_of_an_item, num_items});
      }
      merge_rows_ = std::max(merge_rows_, std::min(tile.num_rows, kPartialRows));
    }
    const int32_t first_unit = tile.block_begin / rule.unit;
    for (int32_t i = 0; i < num_items; ++i) {  // of equal length, to within one unit
      const auto cut = [&](int64_t at) {
        return (first_unit + static_cast<int32_t>(units * at / num_items)) * rule.unit;
      };
      AttentionItem item = {tile.sequence, tile.row_begin, cut(i), cut(i + 1), -1};
      if (i + 1 == num_items) item.block_end = tile.block_end;
      if (num_items > 1) {
        item.partial = num_partials_;
        num_partials_ += rule.partials_of_an_item;
      }
      items.push_back(item);
    }
  }
  // The longest first, so that the last to end are short.
  std::stable_sort(items.begin(), items.end(), [](const AttentionItem& a, const AttentionItem& b) {
    return a.block_end - a.block_begin > b.block_end - b.block_begin;
  });
}

void CudaAttentionPlan::collect_lists() {
  lists_.clear();
  append(lists_, prefill_items_);
  append(lists_, decode_items_);
  append(lists_, merges_);
}

void CudaAttentionPlan::describe(const int32_t* lists_on_device, kernels::cuda::AttentionArgs& args) const {
  const auto* items = reinterpret_cast<const AttentionItem*>(lists_on_device);
  const size_t num_items = prefill_items_.size() + decode_items_.size();
  args.prefill_items = items;
  args.num_prefill_items = static_cast<int32_t>(prefill_items_.size());
  args.prefill_rows = prefill_rows_;
  args.decode_items = items + prefill_items_.size();
  args.num_decode_items = static_cast<int32_t>(decode_items_.size());
  args.merges = reinterpret_cast<const MergeItem*>(lists_on_device + num_items * kIntsOfItem);
  args.num_merges = static_cast<int32_t>(merges_.size());
  args.merge_rows = merge_rows_;
}

int64_t CudaAttentionPlan::partial_floats() const {
  return int64_t{num_partials_} * shape_.num_kv_heads * kernels::cuda::attention_partial_floats(shape_.head_dim_v);
}

CudaAttentionBounds CudaAttentionPlan::bounds(int64_t max_num_tokens, int64_t max_num_sequences,
                                              const CudaAttentionShape& shape) {
  const int64_t group = group_of(shape);
  const int64_t prefill = ceil_div<int64_t>(max_num_tokens * group, kPrefillRows) + max_num_sequences;
  const int64_t split_prefill = max_split_prefill_items(shape);
  const int64_t decode = max_num_sequences * ceil_div<int64_t>(std::max<int64_t>(group, kMaxDecodeRows), kDecodeRows);
  const int64_t added = max_added_items(decode, shape);
  const int64_t partials = 2 * added + kPartialsOfPrefill * split_prefill;
  CudaAttentionBounds bounds;
  // A merge is of two partials at least.
  bounds.list_ints = (std::max(prefill, split_prefill) + decode + added) * kIntsOfItem + partials / 2 * kIntsOfMerge;
  bounds.partial_floats = partials * shape.num_kv_heads * kernels::cuda::attention_partial_floats(shape.head_dim_v);
  return bounds;
}

}  // namespace sextant
