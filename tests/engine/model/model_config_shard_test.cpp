#include "engine/model/model_config_shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/model/memory_model.h"
#include "engine/model/weight_loader.h"

namespace sextant {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

ModelConfig config_of(int64_t heads, int64_t kv_heads, int64_t inner, int64_t head_dim = 64) {
  ModelConfig config;
  config.source = "model.gguf";
  config.vocab_size = 100;
  config.hidden_size = heads * head_dim;
  config.intermediate_size = inner;
  config.num_hidden_layers = 2;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = head_dim;
  return config;
}

TEST(TensorShard, RangesOfAllRanksAreTheWhole) {
  const ModelConfig config = config_of(12, 4, 768);
  for (const int size : {1, 2, 3, 4, 6, 12}) {
    const Result<TensorShard> first = make_tensor_shard(config, 32, 0, size);
    if (size == 3 || size == 6) {  // 4 heads of K and V neither divide nor are divided
      EXPECT_FALSE(first.ok());
      continue;
    }
    ASSERT_TRUE(first.ok()) << first.status().message();
    int64_t heads = 0, inner = 0, vocab = 0;
    for (int rank = 0; rank < size; ++rank) {
      const TensorShard shard = *make_tensor_shard(config, 32, rank, size);
      EXPECT_EQ(shard.heads.begin, heads);
      EXPECT_EQ(shard.inner.begin, inner);
      EXPECT_EQ(shard.vocab.begin, vocab);
      heads = shard.heads.end, inner = shard.inner.end, vocab = shard.vocab.end;
      EXPECT_EQ(shard.inner.begin % 32, 0);
      EXPECT_EQ(shard.heads.size(), 12 / size);
      // Each query head's own head of K and V is here, and as many query heads to one as in the whole.
      const int64_t group = 12 / 4;
      EXPECT_LE(shard.kv_heads.begin, shard.heads.begin / group);
      EXPECT_GT(shard.kv_heads.end, (shard.heads.end - 1) / group);
      EXPECT_EQ(shard.heads.size() % shard.kv_heads.size(), 0);
    }
    EXPECT_EQ(heads, 12);
    EXPECT_EQ(inner, 768);
    EXPECT_EQ(vocab, 100);
  }
}

TEST(TensorShard, ADegreeThatDoesNotDivideIsRefusedWithThoseThatDo) {
  const ModelConfig smollm2 = config_of(9, 3, 1536);
  EXPECT_THAT(tensor_parallel_degrees(smollm2, 32), ElementsAre(1, 3));
  for (const int size : {2, 4, 9, 1024}) {
    const Result<TensorShard> shard = make_tensor_shard(smollm2, 32, 0, size);
    ASSERT_FALSE(shard.ok());
    EXPECT_EQ(shard.status().param(), "tensor_parallel_size");
    EXPECT_THAT(
        shard.status().message(),
        AllOf(HasSubstr("tensor_parallel_size " + std::to_string(size) + " does not divide model.gguf"),
              HasSubstr("9 query heads"), HasSubstr("3 key and value heads"), HasSubstr("degrees that do: 1, 3")));
  }
  // MQA: every degree that the query heads have. Blocks of 256 are too long for its heads.
  const ModelConfig mqa = config_of(8, 1, 4096);
  EXPECT_THAT(tensor_parallel_degrees(mqa, 32), ElementsAre(1, 2, 4, 8));
  EXPECT_THAT(tensor_parallel_degrees(mqa, 256), ElementsAre(1, 2));
  ModelConfig narrow = mqa;
  narrow.vocab_size = 3;
  EXPECT_THAT(tensor_parallel_degrees(narrow, 32), ElementsAre(1, 2));
}

TEST(TensorShard, ColumnsStayTogetherByTheLargestBlock) {
  EXPECT_EQ(column_block(std::vector{WeightType::kBF16}), 8);
  EXPECT_EQ(column_block(std::vector{WeightType::kF32, WeightType::kQ4_1}), 32);
  EXPECT_EQ(column_block(std::vector{WeightType::kQ8_0, WeightType::kQ4K}), 256);
  EXPECT_EQ(column_block({}), 8);
}

TEST(TensorShard, HeadsOfKAndVAreSharedWhereThereAreFewer) {
  const ModelConfig config = config_of(8, 2, 512);
  std::vector<int64_t> first;
  for (int rank = 0; rank < 8; ++rank) {
    const TensorShard shard = *make_tensor_shard(config, 32, rank, 8);
    EXPECT_EQ(shard.kv_heads.size(), 1);
    first.push_back(shard.kv_heads.begin);
    EXPECT_EQ(kv_bytes_per_token(shard_config(config, shard), DType::kBFloat16),
              kv_bytes_per_token(config, DType::kBFloat16) / 2);
  }
  EXPECT_THAT(first, ElementsAre(0, 0, 0, 0, 1, 1, 1, 1));
}

TEST(TensorShard, NormsOverAllHeadsAreNotCut) {
  ModelConfig config = config_of(8, 2, 512);
  config.qk_norm = QkNorm::kRow;
  EXPECT_THAT(tensor_parallel_degrees(config, 32), ElementsAre(1));
  const auto refused = make_tensor_shard(config, 32, 0, 2);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.status().message(), HasSubstr("norms over all heads of q and k; degrees that do: 1"));
}

TEST(PipelineShard, StagesHaveTheWindowsOfTheirLayers) {
  ModelConfig config = config_of(8, 2, 512);
  config.num_hidden_layers = 6;
  config.sliding_window = 64;
  config.sliding_layers = {true, true, true, false, true, false};
  config.sliding_rope = RopeConfig();
  config.sliding_rope->theta = 777;
  const auto part = [&](int64_t begin, int64_t end) {
    TensorShard shard = whole_shard(config);
    shard.pipeline.layers = {begin, end};
    return shard_config(config, shard);
  };
  const ModelConfig mixed = part(2, 5);
  EXPECT_EQ(mixed.sliding_layers, (std::vector<bool>{true, false, true}));
  EXPECT_TRUE(mixed.slides(0) && !mixed.slides(1) && mixed.slides(2));
  const ModelConfig sliding = part(0, 3);
  EXPECT_TRUE(sliding.sliding_layers.empty() && sliding.slides(0) && sliding.slides(2));
  EXPECT_EQ(sliding.rope.theta, 777);
  const ModelConfig full = part(5, 6);
  EXPECT_TRUE(full.sliding_layers.empty() && !full.slides(0));
  EXPECT_EQ(full.rope.theta, config.rope.theta);
}

TEST(TensorShard, DummyWeightsAreTheSameNumbersInParts) {
  WeightLoader loader = WeightLoader::dummy(WeightType::kF32, 3);
  const HostTensor whole = *loader.read_matrix("w", 6, 10);
  const HostTensor part = *loader.read_matrix("w", 6, 10, {.row_begin = 2, .row_end = 5, .col_begin = 4, .col_end = 7});
  ASSERT_EQ(part.rows, 3);
  ASSERT_EQ(part.cols, 3);
  const auto at = [](const HostTensor& matrix, int64_t row, int64_t col) {
    return reinterpret_cast<const float*>(matrix.data.data())[row * matrix.cols + col];
  };
  for (int64_t r = 0; r < 3; ++r) {
    for (int64_t c = 0; c < 3; ++c) EXPECT_EQ(at(part, r, c), at(whole, r + 2, c + 4));
  }
}

TEST(TensorParallelTraffic, OfAnEightBillionModelOnFour) {
  ModelConfig config = config_of(32, 8, 14336, 128);
  config.num_hidden_layers = 32;
  config.vocab_size = 128256;
  const TensorParallelInputs inputs = {.num_ranks = 4,
                                       .activation = DType::kBFloat16,
                                       .gathered_reduce_bytes = 256 << 10,
                                       .logits_rows = 64,
                                       .shares_samples = true};
  // One token: 64 outputs of 8 KiB, gathered from four; above 32 tokens all-reduced.
  const CollectiveTraffic one = tensor_parallel_traffic(config, inputs, 1, 1);
  EXPECT_EQ(one.all_reduce, (CollectiveTraffic::OfKind{1, 4096 * 4}));
  EXPECT_EQ(one.all_gather, (CollectiveTraffic::OfKind{64, 64 * 4 * 8192}));
  EXPECT_EQ(one.gather, (CollectiveTraffic::OfKind{1, 128256 * 4}));
  EXPECT_EQ(one.broadcast, (CollectiveTraffic::OfKind{1, 4}));
  EXPECT_DOUBLE_EQ(one.ring_bytes, 2 * 0.75 * 16384 + 0.75 * 64 * 4 * 8192);
  const CollectiveTraffic at_the_line = tensor_parallel_traffic(config, inputs, 32, 100);
  EXPECT_EQ(at_the_line.all_gather.calls, 64u);
  EXPECT_EQ(at_the_line.gather.calls, 2u);
  // The last layer's two outputs are of the rows alone that logits come from, where these are few: none, or gathered.
  const CollectiveTraffic piece = tensor_parallel_traffic(config, inputs, 33, 0);
  EXPECT_EQ(piece.all_gather.calls, 0u);
  EXPECT_EQ(piece.all_reduce, (CollectiveTraffic::OfKind{63, 33 * 4096 * 4 + 62 * 33 * 8192}));
  EXPECT_EQ(piece.broadcast.calls, 0u);
  const CollectiveTraffic prompts = tensor_parallel_traffic(config, inputs, 33, 8);
  EXPECT_EQ(prompts.all_reduce, piece.all_reduce);
  EXPECT_EQ(prompts.all_gather, (CollectiveTraffic::OfKind{2, 2 * 4 * 8 * 8192}));
  const CollectiveTraffic mixed = tensor_parallel_traffic(config, inputs, 33, 9);
  EXPECT_EQ(mixed.all_reduce, (CollectiveTraffic::OfKind{65, 33 * 4096 * 4 + 64 * 33 * 8192}));
  EXPECT_EQ(tensor_parallel_traffic(config, {}, 100, 1).all_reduce.calls, 0u);
  EXPECT_THAT(tensor_parallel_formula(config, inputs),
              AllOf(HasSubstr("all_gather  2,097,152 B   64 calls: 64 * 4 * 4,096 * 2 a token"),
                    HasSubstr("16,384 B   1 call: 4,096 * 4 a token"), HasSubstr("128,256 * 4 a row of logits")));
}

}  // namespace
}  // namespace sextant
