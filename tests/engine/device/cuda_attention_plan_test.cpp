// The lists against what they must cover: each packed query row meets each block of positions that it sees exactly
// once.
#include "engine/device/cuda_attention_plan.h"
#include "tests/support/random_seed.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <random>
#include <set>

namespace sextant {
namespace {

using kernels::cuda::AttentionItem;
using kernels::cuda::MergeItem;

constexpr int32_t kSlots = kernels::cuda::kBlockSlots;

struct Batch {
  std::vector<int32_t> cu_seqlens_q{0};
  std::vector<int32_t> seq_lens;
  void add(int32_t num_queries, int32_t length) {
    cu_seqlens_q.push_back(cu_seqlens_q.back() + num_queries);
    seq_lens.push_back(length);
  }
  int32_t num_queries(size_t s) const { return cu_seqlens_q[s + 1] - cu_seqlens_q[s]; }
};

class CudaAttentionPlanTest : public ::testing::Test {
 protected:
  CudaAttentionPlanTest() {
    seed_ = random_seed();
    random_.seed(seed_);
  }
  int32_t uniform(int32_t low, int32_t high) { return std::uniform_int_distribution<int32_t>(low, high)(random_); }

  CudaAttentionShape random_shape() {
    constexpr int32_t kGroups[] = {1, 3, 4, 8, 71};
    constexpr int32_t kMultiprocessors[] = {1, 16, 108, 132};
    constexpr int32_t kDims[] = {64, 128, 192, 256};
    const int32_t num_kv_heads = uniform(1, 8);
    return {num_kv_heads * kGroups[uniform(0, 4)],
            num_kv_heads,
            kDims[uniform(0, 3)],
            kDims[uniform(0, 1)],
            uniform(0, 1) == 0 ? uniform(1, 3000) : 0,
            uniform(0, 3) != 0,
            kMultiprocessors[uniform(0, 3)]};
  }

  // What the definition says that packed row `row` of sequence s sees, in blocks.
  static std::set<int32_t> blocks_seen(const Batch& batch, const CudaAttentionShape& shape, size_t s, int32_t row) {
    const int32_t group = shape.num_heads / shape.num_kv_heads, length = batch.seq_lens[s];
    const int32_t position = length - batch.num_queries(s) + row / group;
    std::set<int32_t> blocks;
    const auto sees = [&](int32_t j) {
      const bool near = shape.sliding_window == 0 || std::abs(position - j) < shape.sliding_window;
      return near && (!shape.causal || j <= position);
    };
    for (int32_t j = 0; j < length; ++j) {
      if (sees(j)) blocks.insert(j / kSlots);
    }
    return blocks;
  }

  // Packed rows [begin, end) of an item or a merge.
  static int32_t rows_end(const Batch& batch, const CudaAttentionShape& shape, int32_t sequence, int32_t row_begin,
                          int32_t most) {
    const int32_t group = shape.num_heads / shape.num_kv_heads;
    return std::min(batch.num_queries(static_cast<size_t>(sequence)) * group, row_begin + most);
  }

  static void check(const Batch& batch, const CudaAttentionShape& shape, const CudaAttentionPlan& plan) {
    const int32_t group = shape.num_heads / shape.num_kv_heads;
    using Row = std::pair<int32_t, int32_t>;       // sequence, packed row
    std::map<Row, std::multiset<int32_t>> met;     // blocks
    std::map<Row, int> num_whole;                  // items that write the row
    std::map<Row, std::set<int32_t>> partials_of;  // of the 16 rows that begin there
    std::set<int32_t> partials;
    const auto check_items = [&](std::span<const AttentionItem> items, int32_t rows, int32_t unit,
                                 int32_t num_partials) {
      for (const AttentionItem& item : items) {
        if (item.sequence < 0) continue;
        ASSERT_EQ(item.row_begin % rows, 0);
        const int32_t end = rows_end(batch, shape, item.sequence, item.row_begin, rows);
        ASSERT_LT(item.row_begin, end);
        ASSERT_LE(item.block_begin, item.block_end);
        ASSERT_EQ(item.block_begin % unit, 0);
        ASSERT_LE(item.block_end * kSlots, batch.seq_lens[static_cast<size_t>(item.sequence)] + kSlots - 1);
        for (int32_t r = item.row_begin; r < end; ++r) {
          for (int32_t b = item.block_begin; b < item.block_end; ++b) met[{item.sequence, r}].insert(b);
          if (item.partial < 0) ++num_whole[{item.sequence, r}];
        }
        if (item.partial < 0) continue;
        for (int32_t i = 0; i < num_partials; ++i) {
          ASSERT_LT(item.partial + i, plan.num_partials());
          ASSERT_TRUE(partials.insert(item.partial + i).second);
          const int32_t first = item.row_begin + i * kernels::cuda::kPartialRows;
          if (first < end) partials_of[{item.sequence, first}].insert(item.partial + i);
        }
        // Within a tile of positions a piece ends only where what its rows see ends.
        if (item.block_end % unit != 0) {
          const std::set<int32_t> seen = blocks_seen(batch, shape, static_cast<size_t>(item.sequence), end - 1);
          ASSERT_EQ(*seen.rbegin() + 1, item.block_end);
        }
      }
    };
    check_items(plan.prefill_items(), plan.prefill_rows(), 4, 4);
    check_items(plan.decode_items(), kernels::cuda::kDecodeRows, 1, 1);
    if (HasFatalFailure()) return;
    std::map<Row, int> num_merged;
    for (const MergeItem& merge : plan.merges()) {
      if (merge.sequence < 0) continue;
      ASSERT_GT(merge.num_partials, 1);
      const int32_t end = rows_end(batch, shape, merge.sequence, merge.row_begin, kernels::cuda::kPartialRows);
      ASSERT_LE(end - merge.row_begin, plan.merge_rows());
      for (int32_t r = merge.row_begin; r < end; ++r) ++num_merged[{merge.sequence, r}];
      std::set<int32_t> named;
      for (int32_t i = 0; i < merge.num_partials; ++i) named.insert(merge.partial_begin + i * merge.partial_stride);
      ASSERT_EQ(named, (partials_of[{merge.sequence, merge.row_begin}]));
    }
    for (size_t s = 0; s < batch.seq_lens.size(); ++s) {
      for (int32_t r = 0; r < batch.num_queries(s) * group; ++r) {
        const Row row{static_cast<int32_t>(s), r};
        ASSERT_EQ(num_whole[row] + num_merged[row], 1) << "sequence " << s << " row " << r;
        const std::set<int32_t> once(met[row].begin(), met[row].end());
        ASSERT_EQ(once.size(), met[row].size()) << "a block is met twice";
        const std::set<int32_t> seen = blocks_seen(batch, shape, s, r);
        ASSERT_TRUE(std::includes(once.begin(), once.end(), seen.begin(), seen.end())) << "a block is missed";
      }
    }
  }

  uint64_t seed_ = 0;
  std::mt19937_64 random_;
};

TEST_F(CudaAttentionPlanTest, CoversEachRowAndBlockOnceWithinBounds) {
  CudaAttentionPlan plan;
  for (int round = 0; round < 150; ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round << " seed " << seed_);
    const CudaAttentionShape shape = random_shape();
    Batch batch;
    int64_t num_tokens = 0;
    const int32_t num_sequences = uniform(0, 12);
    for (int32_t s = 0; s < num_sequences; ++s) {
      const int32_t num_queries = uniform(0, 2) == 0 ? uniform(0, 60) : uniform(0, 3);
      if (round % 4 == 0 && s > 1) break;  // few, so that prefill is split too
      batch.add(num_queries, num_queries + (uniform(0, 1) == 0 ? uniform(0, 40) : uniform(0, 3000)));
      num_tokens += num_queries;
    }
    plan.plan(batch.cu_seqlens_q, batch.seq_lens, shape);
    check(batch, shape, plan);
    if (HasFatalFailure()) return;
    const CudaAttentionBounds bounds = CudaAttentionPlan::bounds(num_tokens, num_sequences, shape);
    ASSERT_LE(static_cast<int64_t>(plan.lists().size()), bounds.list_ints);
    ASSERT_LE(plan.partial_floats(), bounds.partial_floats);
    CudaAttentionPlan again;
    again.plan(batch.cu_seqlens_q, batch.seq_lens, shape);
    ASSERT_TRUE(std::equal(plan.lists().begin(), plan.lists().end(), again.lists().begin(), again.lists().end()));
  }
}

TEST_F(CudaAttentionPlanTest, BucketsKeepTheirGrid) {
  CudaAttentionPlan plan;
  for (int round = 0; round < 40; ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round << " seed " << seed_);
    CudaAttentionShape shape = random_shape();
    const int32_t group = shape.num_heads / shape.num_kv_heads;
    const CudaDecodeBucket bucket{uniform(1, 20), group <= 8 ? uniform(1, 4) : 1};
    kernels::cuda::AttentionArgs first = {};
    int64_t floats = 0;
    for (int step = 0; step < 4; ++step) {
      Batch batch;
      const int32_t num_sequences = uniform(step == 0 ? bucket.num_sequences : 0, bucket.num_sequences);
      for (int32_t s = 0; s < num_sequences; ++s) {
        const int32_t num_queries = uniform(1, bucket.tokens_per_sequence);
        batch.add(num_queries, num_queries + (uniform(0, 3) == 0 ? uniform(0, 9000) : uniform(0, 200)));
      }
      plan.plan_bucket(batch.cu_seqlens_q, batch.seq_lens, shape, bucket);
      check(batch, shape, plan);
      if (HasFatalFailure()) return;
      kernels::cuda::AttentionArgs args = {};
      plan.describe(plan.lists().data(), args);
      const CudaAttentionBounds bounds =
          CudaAttentionPlan::bounds(bucket.num_sequences * bucket.tokens_per_sequence, bucket.num_sequences, shape);
      ASSERT_LE(static_cast<int64_t>(plan.lists().size()), bounds.list_ints);
      ASSERT_LE(plan.partial_floats(), bounds.partial_floats);
      ASSERT_EQ(args.num_prefill_items, 0);
      if (step == 0) {
        first = args;
        floats = plan.partial_floats();
      }
      ASSERT_EQ(args.num_decode_items, first.num_decode_items);
      ASSERT_EQ(args.num_merges, first.num_merges);
      ASSERT_EQ(args.merge_rows, first.merge_rows);
      ASSERT_EQ(plan.partial_floats(), floats);
    }
  }
}

TEST_F(CudaAttentionPlanTest, DescribePointsAtTheLists) {
  Batch batch;
  batch.add(1, 20000);
  batch.add(300, 300);
  CudaAttentionPlan plan;
  plan.plan(batch.cu_seqlens_q, batch.seq_lens, {32, 8, 128, 128, 0, true, 132});
  ASSERT_FALSE(plan.merges().empty());
  kernels::cuda::AttentionArgs args = {};
  plan.describe(plan.lists().data(), args);
  const auto same = [](const auto* listed, int32_t count, auto entries) {
    return static_cast<size_t>(count) == entries.size() &&
           std::memcmp(listed, entries.data(), entries.size_bytes()) == 0;
  };
  EXPECT_TRUE(same(args.prefill_items, args.num_prefill_items, plan.prefill_items()));
  EXPECT_TRUE(same(args.decode_items, args.num_decode_items, plan.decode_items()));
  EXPECT_TRUE(same(args.merges, args.num_merges, plan.merges()));
  EXPECT_EQ(static_cast<const void*>(args.merges + args.num_merges), plan.lists().data() + plan.lists().size());
}

// Splitting is there to fill the device: one long sequence takes about one block for each that can run.
TEST_F(CudaAttentionPlanTest, OneLongSequenceFillsTheDeviceAndManyShortOnesStayWhole) {
  const CudaAttentionShape shape{32, 8, 128, 128, 0, true, 132};
  CudaAttentionPlan plan;
  Batch one;
  one.add(1, 65536);
  plan.plan(one.cu_seqlens_q, one.seq_lens, shape);
  EXPECT_GE(plan.decode_items().size() * 8, 132u);
  EXPECT_LE(plan.decode_items().size() * 8, 2 * 132u);
  Batch many;
  for (int i = 0; i < 256; ++i) many.add(1, 1000);
  plan.plan(many.cu_seqlens_q, many.seq_lens, shape);
  EXPECT_EQ(plan.decode_items().size(), 256u);
  EXPECT_TRUE(plan.merges().empty());
  // One long sequence among short ones is what the step would wait for.
  many.add(1, 100000);
  plan.plan(many.cu_seqlens_q, many.seq_lens, shape);
  EXPECT_EQ(plan.merges().size(), 1u);
  // Large tiles once a prompt gives each multiprocessor two of them.
  Batch prompt;
  prompt.add(2048, 2048);
  plan.plan(prompt.cu_seqlens_q, prompt.seq_lens, shape);
  EXPECT_EQ(plan.prefill_rows(), kernels::cuda::kPrefillRowsLarge);
  Batch chunk;
  chunk.add(64, 2048);
  plan.plan(chunk.cu_seqlens_q, chunk.seq_lens, shape);
  EXPECT_EQ(plan.prefill_rows(), kernels::cuda::kPrefillRows);
  // Few rows after a long prefix: four tiles of 64 rows share the device.
  chunk = {};
  chunk.add(64, 60000);
  plan.plan(chunk.cu_seqlens_q, chunk.seq_lens, shape);
  EXPECT_GE(plan.prefill_items().size() * 8, 132u);
  EXPECT_LE(plan.prefill_items().size() * 8, 2 * 132u);
  EXPECT_EQ(plan.merges().size(), 16u);
}

}  // namespace
}  // namespace sextant
