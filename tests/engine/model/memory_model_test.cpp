#include "engine/model/memory_model.h"
#include "tests/support/random_seed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

namespace sextant {
namespace {

using ::testing::HasSubstr;

// Published sizes; the sums below are checked against published totals.
ModelConfig llama_8b() {
  ModelConfig config;
  config.source = "config.json";
  config.family = ModelFamily::kLlama;
  config.vocab_size = 128256;
  config.hidden_size = 4096;
  config.intermediate_size = 14336;
  config.num_hidden_layers = 32;
  config.num_attention_heads = 32;
  config.num_key_value_heads = 8;
  config.head_dim = 128;
  config.max_position_embeddings = 131072;
  config.rope.rotary_dim = 128;
  return config;
}
ModelConfig llama_70b() {
  ModelConfig config = llama_8b();
  config.hidden_size = 8192;
  config.intermediate_size = 28672;
  config.num_hidden_layers = 80;
  config.num_attention_heads = 64;
  return config;
}

TEST(MemoryModel, ParametersOfLlama) {
  const ParameterCounts counts = count_parameters(llama_8b());
  EXPECT_EQ(counts.stored(), 8'030'261'248u);
  EXPECT_NEAR(static_cast<double>(counts.streamed()), 7.50e9, 0.01e9);
  EXPECT_EQ(count_parameters(llama_70b()).stored(), 70'553'706'496u);
  EXPECT_NEAR(static_cast<double>(count_parameters(llama_70b()).streamed()), 6.95e10, 0.005e10);
  ModelConfig tied = llama_8b();
  tied.tie_word_embeddings = true;
  EXPECT_EQ(count_parameters(tied).stored(), counts.stored() - 128256ull * 4096);
  EXPECT_EQ(count_parameters(tied).streamed(), counts.streamed());
}

TEST(MemoryModel, KvBytesPerToken) {
  EXPECT_EQ(kv_bytes_per_token(llama_8b(), DType::kBFloat16), 131'072u);
  EXPECT_EQ(kv_bytes_per_token(llama_8b(), DType::kFloat8E4M3), 65'536u);
  EXPECT_EQ(kv_bytes_per_token(llama_8b(), DType::kInt8), 65'536u + 32 * 8 * 8);  // a scale for each key and each value
  EXPECT_EQ(kv_bytes_per_token(llama_70b(), DType::kBFloat16), 327'680u);
}

TEST(MemoryModel, WeightBytes) {
  const ModelConfig config = llama_8b();
  const ParameterCounts counts = count_parameters(config);
  const uint64_t matrices = counts.stored() - counts.vectors;
  EXPECT_EQ(weight_bytes(config, WeightType::kBF16), matrices * 2 + counts.vectors * 4);
  EXPECT_EQ(weight_bytes(config, WeightType::kQ4_1), matrices / 32 * 20 + counts.vectors * 4);
  EXPECT_EQ(streamed_weight_bytes(config, WeightType::kBF16),
            weight_bytes(config, WeightType::kBF16) - counts.embedding * 2);
  std::vector<TensorInfo> tensors(2);
  tensors[0].num_bytes = 100;
  tensors[1].num_bytes = 23;
  EXPECT_EQ(weight_bytes(tensors), 123u);
  // A row that is no whole number of blocks is rounded up, as it would be stored.
  ModelConfig odd = config;
  odd.hidden_size = 33;
  odd.num_hidden_layers = 1;
  EXPECT_GT(weight_bytes(odd, WeightType::kQ4_0), count_parameters(odd).stored() / 32 * 18);
}

// The stored tensors of the golden model are what its config describes.
TEST(MemoryModel, GoldenTinyModelsHaveAsManyParametersAsTheirConfigsSay) {
  for (const char* name : {"llama", "qwen2", "qwen3", "phi3", "granite", "gemma2", "gemma3", "olmo2"}) {
    const auto files = open_model(std::string(SEXTANT_TEST_DATA) + "/golden/tiny/" + name);
    ASSERT_TRUE(files.ok()) << files.status().message();
    const Result<ModelConfig> config = model_config_from_files(**files);
    ASSERT_TRUE(config.ok()) << config.status().message();
    EXPECT_EQ((*files)->tensors()->total_bytes(), 2 * count_parameters(*config).stored()) << name;
  }
}

// The rows "batch-1 decode ceiling" and "H200, 8B, ctx 1,024, decode only" of the published arithmetic.
TEST(MemoryModel, DecodeRoofline) {
  const auto tokens_per_s = [](const ModelConfig& config, WeightType type, DType kv, size_t batch, int64_t context,
                               double bytes_per_s) {
    const std::vector<int64_t> contexts(batch, context);
    const StepWork work = decode_step_work(config, type, kv, contexts);
    return static_cast<double>(batch) / roofline_seconds(work, 1e30, bytes_per_s);
  };
  const ModelConfig config = llama_8b();
  EXPECT_NEAR(tokens_per_s(config, WeightType::kBF16, DType::kBFloat16, 1, 0, 3.35e12), 223, 1);
  EXPECT_NEAR(tokens_per_s(config, WeightType::kBF16, DType::kBFloat16, 1, 0, 4.8e12), 320, 1);
  EXPECT_NEAR(tokens_per_s(llama_70b(), WeightType::kI8, DType::kFloat8E4M3, 1, 0, 4.8e12), 69, 1);
  EXPECT_NEAR(tokens_per_s(config, WeightType::kBF16, DType::kBFloat16, 1, 1024, 4.8e12), 317, 1);
  EXPECT_NEAR(tokens_per_s(config, WeightType::kBF16, DType::kBFloat16, 32, 1024, 4.8e12), 7957, 16);
  EXPECT_NEAR(tokens_per_s(config, WeightType::kBF16, DType::kBFloat16, 256, 1024, 4.8e12), 24890, 50);
  EXPECT_NEAR(tokens_per_s(config, WeightType::kF8E4M3, DType::kFloat8E4M3, 128, 1024, 4.8e12), 38174, 80);
  EXPECT_EQ(decode_step_work(config, WeightType::kBF16, DType::kBFloat16, {}).bytes, 0.0);
}

TEST(MemoryModel, PrefillFlops) {
  const ModelConfig config = llama_8b();
  const ParameterCounts counts = count_parameters(config);
  const double s = 2048;
  const StepWork work = prefill_work(config, WeightType::kBF16, DType::kBFloat16, 2048);
  EXPECT_DOUBLE_EQ(work.flops,
                   2.0 * static_cast<double>(counts.layers) * s + 2.0 * 128256 * 4096 + 2.0 * 32 * 4096 * s * s);
  // A prompt in two pieces costs as much attention as in one, but for the second row of logits.
  const StepWork first = prefill_work(config, WeightType::kBF16, DType::kBFloat16, 1024);
  const StepWork second = prefill_work(config, WeightType::kBF16, DType::kBFloat16, 1024, 1024);
  EXPECT_NEAR(first.flops + second.flops, work.flops + 2.0 * 128256 * 4096, 1e-9 * work.flops);
  EXPECT_EQ(prefill_work(config, WeightType::kBF16, DType::kBFloat16, 0).flops, 0.0);
}

TEST(MemoryModel, ExpertsThatABatchHits) {
  ModelConfig config = llama_8b();
  config.num_experts = 8;
  config.num_experts_per_token = 2;
  const ParameterCounts counts = count_parameters(config);
  EXPECT_EQ(counts.experts, 32ull * 8 * 3 * 4096 * 14336);
  const std::vector<int64_t> one(1, 0);
  const std::vector<int64_t> many(256, 0);
  const double fixed =
      2.0 * static_cast<double>(counts.layers + counts.lm_head) + 4.0 * static_cast<double>(counts.vectors);
  const double all_experts = 2.0 * static_cast<double>(counts.experts);
  EXPECT_NEAR(decode_step_work(config, WeightType::kBF16, DType::kBFloat16, one).bytes, fixed + all_experts / 4, 1e6);
  EXPECT_NEAR(decode_step_work(config, WeightType::kBF16, DType::kBFloat16, many).bytes, fixed + all_experts, 1e6);
}

TEST(MemoryModel, WorkspaceGrowsWithTokensAndSequences) {
  const ModelConfig config = llama_8b();
  const uint64_t base = workspace_bytes(config, {.max_num_batched_tokens = 2048, .max_num_seqs = 64});
  EXPECT_EQ(workspace_bytes(config, {.max_num_batched_tokens = 2048, .max_num_seqs = 65}) - base, 128256u * 4);
  EXPECT_EQ(workspace_bytes(config, {.max_num_batched_tokens = 2049, .max_num_seqs = 64}) - base,
            4u * (3 * 4096 + 2 * 4096 + 2 * 1024 + 3 * 14336));
}

MemoryPlanInputs inputs() {
  MemoryPlanInputs plan;
  plan.model = "tiny";
  plan.weights_bytes = 100'000;
  plan.workspace_bytes = 10'000;
  plan.kv_bytes_per_token = 100;
  plan.block_size = 16;
  plan.max_model_len = 512;
  plan.max_num_seqs = 8;
  plan.available_bytes = 110'000 + 1600 * 97;
  return plan;
}

TEST(MemoryPlan, FillsWhatIsAvailable) {
  const Result<MemoryPlan> plan = plan_memory(inputs());
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_EQ(plan->num_blocks, 97);
  EXPECT_EQ(plan->max_tokens, 96 * 16) << "block 0 holds no tokens";
  EXPECT_EQ(plan->kv_cache_bytes, 97u * 1600);
  EXPECT_EQ(plan->total_bytes, plan->available_bytes);
  EXPECT_EQ(plan->sequences_of(512), 3);
  EXPECT_EQ(plan->sequences_of(513), 2) << "whole blocks";
  EXPECT_EQ(plan->sequences_of(128), 12);
  EXPECT_EQ(plan->sequences_of(1), 96);
  EXPECT_EQ(plan->sequences_of(0), 0);
  const std::string text = render(*plan);
  EXPECT_THAT(text, HasSubstr("memory plan of tiny"));
  EXPECT_THAT(text, HasSubstr("fits 3 sequences of 512 tokens or 12 of 128; at most 8 run at once"));
  EXPECT_THAT(text, HasSubstr("1,536 tokens: 97 blocks of 16"));
}

TEST(MemoryPlan, TheSizeAskedForIsKept) {
  MemoryPlanInputs in = inputs();
  in.kv_cache_bytes = 1600 * 40 + 1599;
  const Result<MemoryPlan> plan = plan_memory(in);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->num_blocks, 40);
  in.kv_cache_bytes = in.available_bytes;
  const Status status = plan_memory(in).status();
  EXPECT_EQ(status.code(), StatusCode::kTooLarge);
  EXPECT_EQ(status.param(), "kv_cache_memory_bytes");
  EXPECT_THAT(status.message(), HasSubstr("at most 152 KiB would"));
}

TEST(MemoryPlan, ErrorsSayWhatWouldFit) {
  MemoryPlanInputs in = inputs();
  in.available_bytes = 110'000 + 1600 * 21;
  Status status = plan_memory(in).status();
  EXPECT_EQ(status.code(), StatusCode::kTooLarge);
  EXPECT_EQ(status.param(), "max_model_len");
  EXPECT_THAT(status.message(), HasSubstr("one sequence of 512 tokens needs a KV cache of"));
  EXPECT_THAT(status.message(), HasSubstr("A context of 320 tokens would fit"));
  in.max_model_len = 320;
  EXPECT_TRUE(plan_memory(in).ok()) << "what the message says fits does fit";
  in.available_bytes = 90'000;
  status = plan_memory(in).status();
  EXPECT_EQ(status.param(), "model");
  EXPECT_THAT(status.message(), HasSubstr("tiny: does not fit: 97.7 KiB of weights"));
  EXPECT_THAT(status.message(), HasSubstr("At least 111 KiB are needed"));
  in.max_model_len = INT64_MAX;
  EXPECT_THAT(plan_memory(in).status().message(), HasSubstr("far more"));
}

TEST(MemoryPlan, AnyPlanStaysWithinWhatIsAvailable) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 2000; ++round) {
    MemoryPlanInputs in = inputs();
    in.weights_bytes = random() % 1'000'000;
    in.workspace_bytes = random() % 100'000;
    in.kv_bytes_per_token = 1 + random() % 1000;
    in.block_size = int64_t{1} << (random() % 6);
    in.max_model_len = 1 + static_cast<int64_t>(random() % 5000);
    in.available_bytes = random() % 3'000'000;
    if (random() % 2) in.kv_cache_bytes = random() % 2'000'000;
    const Result<MemoryPlan> plan = plan_memory(in);
    if (!plan.ok()) continue;
    EXPECT_LE(plan->total_bytes, in.available_bytes);
    EXPECT_GE(plan->sequences_of(in.max_model_len), 1);
    EXPECT_EQ(plan->kv_cache_bytes % (in.kv_bytes_per_token * static_cast<uint64_t>(in.block_size)), 0u);
  }
}

TEST(Format, BytesAndCounts) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1.00 KiB");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes((uint64_t{1} << 20) - 1), "1.00 MiB");
  EXPECT_EQ(format_bytes(uint64_t{15} << 30), "15.0 GiB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "16.0 EiB");
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(1234567), "1,234,567");
  EXPECT_EQ(format_count(-1234), "-1,234");
}

}  // namespace
}  // namespace sextant
