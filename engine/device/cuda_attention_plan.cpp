// Planning is some integer operations per sequence, and per candidate length of a split (about 40).
#include "engine/device/cuda_attention_plan.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <type_traits>

#include "engine/base/check.h"

namespace sextant {
namespace {

using kernels::cuda::DecodeItem;
using kernels::cuda::kBlockSlots;
using kernels::cuda::kDecodeRows;
using kernels::cuda::kPrefillRows;
using kernels::cuda::kPrefillRowsLarge;
using kernels::cuda::MergeItem;
using kernels::cuda::PrefillTile;
using kernels::cuda::visible_range;
using kernels::cuda::VisibleRange;

// Thread blocks that run at once on a multiprocessor, by the kernels' shared memory and registers.
constexpr int32_t kBlocksPerMultiprocessor = 2;
// Packed rows up to which a sequence is decoded: two tiles, of which the second finds keys and values in the L2 cache.
constexpr int32_t kMaxDecodeRows = 2 * kDecodeRows;
// Blocks of positions of the shortest piece of a split: two for each warp. Shorter ones are all beginning and end.
constexpr int32_t kMinPiece = 8;
// What an item costs beside its positions, in blocks of positions: launch, queries, the merge of warps.
constexpr int64_t kItemCost = 4;
// Rounds of thread blocks that splitting may add; more would not even out much.
constexpr int64_t kMaxRounds = 3;

constexpr int32_t kIntsOfTile = sizeof(PrefillTile) / sizeof(int32_t);
constexpr int32_t kIntsOfItem = sizeof(DecodeItem) / sizeof(int32_t);
constexpr int32_t kIntsOfMerge = sizeof(MergeItem) / sizeof(int32_t);

template <typename T>
T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

int32_t group_of(const CudaAttentionShape& shape) { return shape.num_heads / shape.num_kv_heads; }

bool is_decoded(int64_t num_queries, int32_t group) {
  return num_queries == 1 || num_queries * group <= kMaxDecodeRows;
}

// Items that splitting may add to num_tiles whole ones. A split tile has at least one more than a whole one, so at most this many
// tiles are split, and at most twice this many items have partials.
int64_t max_added_items(int64_t num_tiles, const CudaAttentionShape& shape) {
  const int64_t at_once = int64_t{kBlocksPerMultiprocessor} * shape.num_multiprocessors;
  return ceil_div<int64_t>(std::min(num_tiles, kMaxRounds) * at_once, shape.num_kv_heads);
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
    if (num_queries == 0) continue;
    if (is_decoded(num_queries, group_of(shape))) {
      add_decode(static_cast<int32_t>(s), num_queries, seq_lens[s]);
    } else {
      add_prefill(static_cast<int32_t>(s), num_queries, seq_lens[s]);
    }
  }
  // The longest first, so that the last to end are short.
  std::vector<size_t> order(prefill_tiles_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return costs_[a] > costs_[b]; });
  std::vector<PrefillTile> sorted;
  sorted.reserve(order.size());
  for (const size_t i : order) sorted.push_back(prefill_tiles_[i]);
  prefill_tiles_ = std::move(sorted);
  split_decode(max_added_items(static_cast<int64_t>(row_tiles_.size()), shape_));
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
    if (num_queries > 0) add_decode(static_cast<int32_t>(s), num_queries, seq_lens[s]);
  }
  const int32_t rows = bucket.tokens_per_sequence * group_of(shape);
  const int64_t num_tiles = int64_t{bucket.num_sequences} * ceil_div(rows, kDecodeRows);
  const int64_t added = max_added_items(num_tiles, shape_);
  split_decode(added);
  CHECK_LE(decode_items_.size(), static_cast<size_t>(num_tiles + added));
  decode_items_.resize(static_cast<size_t>(num_tiles + added), DecodeItem{-1, 0, 0, 0, -1});
  CHECK_LE(merges_.size(), static_cast<size_t>(std::min(num_tiles, added)));
  merges_.resize(static_cast<size_t>(std::min(num_tiles, added)), MergeItem{-1, 0, 0, 0});
  merge_rows_ = std::min(rows, kDecodeRows);
  num_partials_ = static_cast<int32_t>(2 * added);
  collect_lists();
}

void CudaAttentionPlan::reset(const CudaAttentionShape& shape) {
  CHECK(shape.num_kv_heads > 0 && shape.num_heads % shape.num_kv_heads == 0 && shape.num_multiprocessors > 0)
      << shape.num_heads << " heads, " << shape.num_kv_heads << " KV heads, " << shape.num_multiprocessors
      << " multiprocessors";
  shape_ = shape;
  prefill_tiles_.clear();
  decode_items_.clear();
  merges_.clear();
  row_tiles_.clear();
  costs_.clear();
  prefill_tile_rows_ = kPrefillRows;
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
  if (large_tiles * shape_.num_kv_heads >= int64_t{kBlocksPerMultiprocessor} * shape_.num_multiprocessors) {
    prefill_tile_rows_ = kPrefillRowsLarge;
  }
}

void CudaAttentionPlan::add_prefill(int32_t sequence, int32_t num_queries, int32_t length) {
  const int32_t group = group_of(shape_);
  const int32_t num_rows = num_queries * group;
  for (int32_t row = 0; row < num_rows; row += prefill_tile_rows_) {
    const int32_t last = std::min(row + prefill_tile_rows_, num_rows) - 1;
    const int32_t first_position = length - num_queries;
    const VisibleRange low = visible_range(shape_.sliding_window, shape_.causal, first_position + row / group, length);
    const VisibleRange high =
        visible_range(shape_.sliding_window, shape_.causal, first_position + last / group, length);
    prefill_tiles_.push_back({sequence, row});
    costs_.push_back(high.high - low.low);
  }
}

void CudaAttentionPlan::add_decode(int32_t sequence, int32_t num_queries, int32_t length) {
  const int32_t group = group_of(shape_);
  const int32_t num_rows = num_queries * group;
  for (int32_t row = 0; row < num_rows; row += kDecodeRows) {
    const int32_t last = std::min(row + kDecodeRows, num_rows) - 1;
    const int32_t first_position = length - num_queries;
    const VisibleRange low = visible_range(shape_.sliding_window, shape_.causal, first_position + row / group, length);
    const VisibleRange high =
        visible_range(shape_.sliding_window, shape_.causal, first_position + last / group, length);
    RowTile tile = {sequence, row, last - row + 1, 0, 0};
    if (high.high > low.low) {
      tile.block_begin = low.low / kBlockSlots;
      tile.block_end = ceil_div(high.high, kBlockSlots);
    }
    row_tiles_.push_back(tile);
  }
}

// Blocks of positions of a piece.
int32_t CudaAttentionPlan::choose_piece(int64_t max_items) const {
  int64_t total = 0;
  int32_t longest = 0;
  for (const RowTile& tile : row_tiles_) {
    total += tile.block_end - tile.block_begin;
    longest = std::max(longest, tile.block_end - tile.block_begin);
  }
  const int64_t at_once = int64_t{kBlocksPerMultiprocessor} * shape_.num_multiprocessors;
  int32_t best = std::max(longest, 1);
  int64_t best_cost = 0;
  for (int32_t piece = best; piece >= std::min(kMinPiece, best); piece = std::min(piece - 1, piece - piece / 8)) {
    int64_t items = 0;
    for (const RowTile& tile : row_tiles_) {
      items += std::max(1, ceil_div(tile.block_end - tile.block_begin, piece));
    }
    if (items > max_items) break;
    const int64_t rounds = ceil_div(items * shape_.num_kv_heads, at_once);
    // The longest item is a lower bound, the mean one's share of the rounds another.
    const int64_t cost = std::max((piece + kItemCost) * items, rounds * (total + kItemCost * items)) * 1024 / items;
    if (best_cost == 0 || cost < best_cost) {
      best = piece;
      best_cost = cost;
    }
  }
  return best;
}

void CudaAttentionPlan::split_decode(int64_t max_added) {
  if (row_tiles_.empty()) return;
  const int32_t piece = choose_piece(static_cast<int64_t>(row_tiles_.size()) + max_added);
  for (const RowTile& tile : row_tiles_) {
    const int32_t num_blocks = tile.block_end - tile.block_begin;
    const int32_t num_items = std::max(1, ceil_div(num_blocks, piece));
    if (num_items > 1) {
      merges_.push_back({tile.sequence, tile.row_begin, num_partials_, num_items});
      merge_rows_ = std::max(merge_rows_, tile.num_rows);
    }
    for (int32_t i = 0; i < num_items; ++i) {  // of equal length, to within one
      const auto cut = [&](int64_t at) { return tile.block_begin + static_cast<int32_t>(num_blocks * at / num_items); };
      decode_items_.push_back(
          {tile.sequence, tile.row_begin, cut(i), cut(i + 1), num_items > 1 ? num_partials_++ : -1});
    }
  }
  std::stable_sort(decode_items_.begin(), decode_items_.end(), [](const DecodeItem& a, const DecodeItem& b) {
    return a.block_end - a.block_begin > b.block_end - b.block_begin;
  });
}

void CudaAttentionPlan::collect_lists() {
  lists_.clear();
  append(lists_, prefill_tiles_);
  append(lists_, decode_items_);
  append(lists_, merges_);
}

void CudaAttentionPlan::describe(const int32_t* lists_on_device, kernels::cuda::AttentionArgs& args) const {
  const size_t decode_at = prefill_tiles_.size() * kIntsOfTile;
  const size_t merges_at = decode_at + decode_items_.size() * kIntsOfItem;
  args.prefill_tiles = reinterpret_cast<const PrefillTile*>(lists_on_device);
  args.num_prefill_tiles = static_cast<int32_t>(prefill_tiles_.size());
  args.prefill_tile_rows = prefill_tile_rows_;
  args.decode_items = reinterpret_cast<const DecodeItem*>(lists_on_device + decode_at);
  args.num_decode_items = static_cast<int32_t>(decode_items_.size());
  args.merges = reinterpret_cast<const MergeItem*>(lists_on_device + merges_at);
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
  const int64_t row_tiles =
      max_num_sequences * ceil_div<int64_t>(std::max<int64_t>(group, kMaxDecodeRows), kDecodeRows);
  const int64_t added = max_added_items(row_tiles, shape);
  CudaAttentionBounds bounds;
  bounds.list_ints = prefill * kIntsOfTile + (row_tiles + added) * kIntsOfItem + added * kIntsOfMerge;
  bounds.partial_floats = 2 * added * shape.num_kv_heads * kernels::cuda::attention_partial_floats(shape.head_dim_v);
  return bounds;
}

}  // namespace sextant
