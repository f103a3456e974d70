#include "engine/model/weight_loader.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/memory_source.h"

namespace sextant {
namespace {

using testing_support::floats;
using testing_support::MemorySource;
using testing_support::words;

TEST(WeightLoader, TranslatesNamesOfGguf) {
  MemorySource source;
  source.add("blk.3.attn_output.weight", {1, 2}, WeightType::kF32, floats({1, 2}));
  source.add("token_embd.weight", {2, 1}, WeightType::kF32, floats({3, 4}));
  source.add("blk.12.ffn_norm.weight", {2}, WeightType::kF32, floats({5, 6}));
  WeightLoader loader(source, {.gguf_names = true});
  EXPECT_TRUE(loader.read_matrix("model.layers.3.self_attn.o_proj.weight", 1, 2).ok());
  EXPECT_TRUE(loader.read_matrix("model.embed_tokens.weight", 2, 1).ok());
  const auto norm = loader.read_vector("model.layers.12.post_attention_layernorm.weight", 2);
  ASSERT_TRUE(norm.ok());
  EXPECT_THAT(*norm, testing::ElementsAre(5, 6));
  const auto missing = loader.read_matrix("model.layers.4.mlp.up_proj.weight", 1, 2);
  EXPECT_EQ(missing.status().code(), StatusCode::kDataLoss);
  EXPECT_THAT(missing.status().message(), testing::HasSubstr("blk.4.ffn_up.weight is missing"));
}

TEST(WeightLoader, NormsOfGgufStandWhereTheFileHasThem) {
  MemorySource source;  // of a model that has norms before and after each half
  source.add("blk.0.post_attention_norm.weight", {1}, WeightType::kF32, floats({1}));
  source.add("blk.0.ffn_norm.weight", {1}, WeightType::kF32, floats({2}));
  source.add("blk.0.post_ffw_norm.weight", {1}, WeightType::kF32, floats({3}));
  WeightLoader loader(source, {.gguf_names = true});
  float expected = 1;
  for (const char* name : {"post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"}) {
    const auto norm = loader.read_vector("model.layers.0." + std::string(name) + ".weight", 1);
    ASSERT_TRUE(norm.ok()) << norm.status().message();
    EXPECT_EQ((*norm)[0], expected++) << name;
  }
  EXPECT_THAT(loader.read_vector("model.layers.1.post_feedforward_layernorm.weight", 1).status().message(),
              testing::HasSubstr("blk.1.post_ffw_norm.weight is missing"));
}

TEST(WeightLoader, RefusesShapesThatTheConfigurationDoesNotImply) {
  MemorySource source;
  source.add("w", {2, 3}, WeightType::kF32, floats({1, 2, 3, 4, 5, 6}));
  WeightLoader loader(source, {});
  EXPECT_THAT(loader.read_matrix("w", 3, 2).status().message(),
              testing::AllOf(testing::HasSubstr("[2, 3]"), testing::HasSubstr("[3, 2]")));
  EXPECT_FALSE(loader.read_vector("w", 6).ok());
  EXPECT_TRUE(loader.read_matrix("w", 2, 3).ok());
}

TEST(WeightLoader, ReadsVectorsOfEveryPlainType) {
  MemorySource source;
  // Halves: 1, -2, the smallest subnormal, infinity.
  source.add("half", {4}, WeightType::kF16, words({0x3C00, 0xC000, 0x0001, 0x7C00}));
  source.add("brain", {2}, WeightType::kBF16, words({0x3F80, 0xC040}));
  WeightLoader loader(source, {});
  EXPECT_THAT(*loader.read_vector("half", 4), testing::ElementsAre(1.0f, -2.0f, std::ldexp(1.0f, -24), INFINITY));
  EXPECT_THAT(*loader.read_vector("brain", 2), testing::ElementsAre(1.0f, -3.0f));
}

TEST(WeightLoader, RoundsToBfloat16NearestEven) {
  MemorySource source;
  // 1 + 2^-8 is halfway between 1 and 1 + 2^-7: to even, 1. 1 + 3 * 2^-8 goes up to 1 + 2^-6.
  source.add("w", {1, 3}, WeightType::kF32, floats({1.00390625f, 1.01171875f, -1.0f}));
  WeightLoader loader(source, {.as_bfloat16 = true});
  const auto matrix = loader.read_matrix("w", 1, 3);
  ASSERT_TRUE(matrix.ok());
  EXPECT_EQ(matrix->type, WeightType::kBF16);
  EXPECT_EQ(matrix->data, words({0x3F80, 0x3F82, 0xBF80}));
  EXPECT_THAT(loader.matrix_types(), testing::ElementsAre(WeightType::kBF16));
}

TEST(WeightLoader, DummyWeightsDependOnSeedAndNameOnly) {
  WeightLoader a = WeightLoader::dummy(WeightType::kF32, 1);
  WeightLoader b = WeightLoader::dummy(WeightType::kF32, 1);
  WeightLoader c = WeightLoader::dummy(WeightType::kF32, 2);
  const auto first = a.read_matrix("x", 64, 64);
  ASSERT_TRUE(b.read_matrix("y", 8, 8).ok());
  EXPECT_EQ(first->data, b.read_matrix("x", 64, 64)->data);
  EXPECT_NE(first->data, c.read_matrix("x", 64, 64)->data);
  EXPECT_NE(first->data, a.read_matrix("y", 64, 64)->data);
  std::vector<float> values(64 * 64);
  std::memcpy(values.data(), first->data.data(), first->data.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / 4096;
  double variance = 0;
  for (const float value : values) variance += (value - mean) * (value - mean) / 4096;
  EXPECT_NEAR(mean, 0.0, 0.002);  // 6 standard errors of 0.02 / 64
  EXPECT_NEAR(std::sqrt(variance), 0.02, 0.0015);
}

TEST(UninterleaveRopeRows, PutsFirstElementsOfPairsFirst) {
  HostTensor matrix{WeightType::kF32, 8, 1, floats({0, 1, 2, 3, 10, 11, 12, 13})};  // two heads of four rows
  uninterleave_rope_rows(matrix, 2, 4);
  EXPECT_EQ(matrix.data, floats({0, 2, 1, 3, 10, 12, 11, 13}));
}

}  // namespace
}  // namespace sextant
