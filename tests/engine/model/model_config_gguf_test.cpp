// ModelConfig from GGUF metadata; from config.json: model_config_test.cpp.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <cmath>
#include <random>

#include "engine/model/model_config.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/memory_file.h"
#include "tests/support/random_seed.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

GgufBuilder llama_gguf() {
  GgufBuilder builder;
  builder.string("general.architecture", "llama")
      .u32("llama.embedding_length", 64)
      .u32("llama.feed_forward_length", 96)
      .u32("llama.block_count", 3)
      .u32("llama.attention.head_count", 4)
      .u32("llama.attention.head_count_kv", 2)
      .u32("llama.context_length", 512)
      .f32("llama.attention.layer_norm_rms_epsilon", 1e-5f)
      .f32("llama.rope.freq_base", 500000.0f)
      .u32("llama.rope.dimension_count", 16)
      .u32("tokenizer.ggml.bos_token_id", 1)
      .u32("tokenizer.ggml.eos_token_id", 2);
  return builder;
}
std::string rows(uint64_t count) { return std::string(count * 64 * 4, '\0'); }

class ModelConfigGguf : public ::testing::Test {
 protected:
  Result<ModelConfig> read(const GgufBuilder& builder) {
    const auto file = GgufFile::open(scratch_.write("model.gguf", builder.build()));
    EXPECT_TRUE(file.ok()) << file.status().message();
    return model_config_from_gguf(**file);
  }
  std::string error_of(const GgufBuilder& builder) {
    const Result<ModelConfig> config = read(builder);
    EXPECT_FALSE(config.ok());
    return config.ok() ? "" : config.status().message();
  }
  ScratchDirectory scratch_;
};

TEST_F(ModelConfigGguf, ReadsTheFactsOfLlama) {
  const Result<ModelConfig> config = read(llama_gguf().tensor("token_embd.weight", {64, 10}, 0, rows(10)));
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->architecture, "LlamaForCausalLM");
  EXPECT_EQ(config->vocab_size, 10);
  EXPECT_EQ(config->hidden_size, 64);
  EXPECT_EQ(config->intermediate_size, 96);
  EXPECT_EQ(config->num_hidden_layers, 3);
  EXPECT_EQ(config->num_attention_heads, 4);
  EXPECT_EQ(config->num_key_value_heads, 2);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->max_position_embeddings, 512);
  EXPECT_FLOAT_EQ(static_cast<float>(config->rms_norm_eps), 1e-5f);
  EXPECT_EQ(config->rope.theta, 500000.0);
  EXPECT_TRUE(config->rope.interleaved);
  EXPECT_TRUE(config->tie_word_embeddings);
  EXPECT_EQ(config->bos_token_id, 1);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2));
  EXPECT_FALSE(config->qkv_bias);
  EXPECT_TRUE(supported(*config).ok()) << supported(*config).message();
}

TEST_F(ModelConfigGguf, VocabularyFromTensorTokensOrKey) {
  GgufBuilder from_tokens = llama_gguf();
  from_tokens.strings("tokenizer.ggml.tokens", {"a", "b", "c", "d"});
  EXPECT_EQ(read(from_tokens)->vocab_size, 4);
  EXPECT_FALSE(read(from_tokens)->tie_word_embeddings) << "no embedding, nothing tied";
  EXPECT_EQ(read(llama_gguf().u32("llama.vocab_size", 77))->vocab_size, 77);
  EXPECT_THAT(error_of(llama_gguf()), HasSubstr("the size of the vocabulary is not stated"));
  GgufBuilder padded = llama_gguf();
  padded.strings("tokenizer.ggml.tokens", {"a", "b", "c"}).tensor("token_embd.weight", {64, 8}, 0, rows(8));
  EXPECT_EQ(read(padded)->vocab_size, 8) << "padded rows count: they are logits";
  GgufBuilder short_table = llama_gguf();
  short_table.strings("tokenizer.ggml.tokens", {"a", "b", "c", "d"}).tensor("token_embd.weight", {64, 3}, 0, rows(3));
  EXPECT_THAT(error_of(short_table), HasSubstr("tokenizer.ggml.tokens has 4 tokens, token_embd.weight only 3 rows"));
  GgufBuilder other_width = llama_gguf();
  other_width.tensor("token_embd.weight", {32, 8}, 0, rows(4));
  EXPECT_THAT(error_of(other_width), HasSubstr("token_embd.weight is [8, 32] F32, expected [vocabulary, 64]"));
}

TEST_F(ModelConfigGguf, HeadAndBiasesAreSeenFromTensors) {
  GgufBuilder builder = llama_gguf();
  builder.tensor("token_embd.weight", {64, 8}, 0, rows(8))
      .tensor("output.weight", {64, 8}, 0, rows(8))
      .tensor("blk.0.attn_q.bias", {64}, 0, rows(1));
  const Result<ModelConfig> config = read(builder);
  ASSERT_TRUE(config.ok());
  EXPECT_FALSE(config->tie_word_embeddings);
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_THAT(supported(*config).message(), HasSubstr("biases of q and k"));
  EXPECT_FALSE(config->mlp_bias);
}

TEST_F(ModelConfigGguf, FrequencyDivisorsOfLlama3) {
  std::string divisors;
  for (int i = 0; i < 8; ++i) divisors += GgufBuilder::number(static_cast<float>(i + 1));
  const Result<ModelConfig> config =
      read(llama_gguf().u32("llama.vocab_size", 9).tensor("rope_freqs.weight", {8}, 0, divisors));
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_TRUE(supported(*config).ok());
  const std::vector<double> frequencies =
      rope_inverse_frequencies(*config, config->rope, config->max_position_embeddings);
  ASSERT_EQ(frequencies.size(), 8u);
  for (int i = 0; i < 8; ++i) EXPECT_NEAR(frequencies[i], std::pow(500000.0, -i / 8.0) / (i + 1), 1e-12);
  GgufBuilder wrong_count = llama_gguf();
  wrong_count.u32("llama.vocab_size", 9).tensor("rope_freqs.weight", {4}, 0, divisors.substr(0, 16));
  EXPECT_THAT(error_of(wrong_count), HasSubstr("rope_freqs.weight has 4 numbers, expected 8"));
  GgufBuilder zero = llama_gguf();
  zero.u32("llama.vocab_size", 9).tensor("rope_freqs.weight", {8}, 0, std::string(32, '\0'));
  EXPECT_THAT(error_of(zero), HasSubstr("out of range"));
  GgufBuilder wrong_type = llama_gguf();
  wrong_type.u32("llama.vocab_size", 9).tensor("rope_freqs.weight", {8}, 1, std::string(16, '\0'));
  EXPECT_THAT(error_of(wrong_type), HasSubstr("rope_freqs.weight is [8] F16"));
}

TEST_F(ModelConfigGguf, ErrorsNameFileAndKey) {
  EXPECT_THAT(error_of(GgufBuilder()), HasSubstr("model.gguf: metadata key 'general.architecture' is missing"));
  EXPECT_THAT(error_of(GgufBuilder().string("general.architecture", "llama")),
              HasSubstr("metadata key 'llama.embedding_length' is missing"));
  EXPECT_THAT(error_of(GgufBuilder().string("general.architecture", "lama")),
              HasSubstr("architecture 'lama' is not supported (known: LlamaForCausalLM, MistralForCausalLM, "
                        "Qwen2ForCausalLM, Qwen3ForCausalLM, Phi3ForCausalLM, GraniteForCausalLM, Gemma2ForCausalLM, "
                        "Gemma3ForCausalLM, Olmo2ForCausalLM; the nearest is llama)"));
  GgufBuilder per_layer;
  per_layer.string("general.architecture", "llama")
      .u32("llama.embedding_length", 64)
      .array<uint32_t>("llama.feed_forward_length", GgufBuilder::kUint32, {96, 96, 128});
  EXPECT_THAT(error_of(per_layer), HasSubstr("'llama.feed_forward_length' differs from layer to layer"));
  GgufBuilder bad_eos = llama_gguf();
  bad_eos.u32("llama.vocab_size", 2);
  EXPECT_THAT(error_of(bad_eos), HasSubstr("'tokenizer.ggml.eos_token_id' is 2, expected 0 to 1"));
  EXPECT_THAT(error_of(llama_gguf().u32("llama.vocab_size", 9).u32("llama.attention.value_length", 8)),
              HasSubstr("heads of different widths"));
  EXPECT_THAT(error_of(llama_gguf().u32("llama.vocab_size", 9).string("llama.rope.scaling.type", "odd")),
              HasSubstr("'llama.rope.scaling.type' is 'odd'"));
}

TEST_F(ModelConfigGguf, RopeScaling) {
  GgufBuilder linear = llama_gguf();
  linear.u32("llama.vocab_size", 9).string("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 4.0f);
  Result<ModelConfig> config = read(linear);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(config->rope.factor, 4.0);
  config = read(llama_gguf().u32("llama.vocab_size", 9).f32("llama.rope.scale_linear", 2.0f));
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(config->rope.factor, 2.0);
  config = read(llama_gguf()
                    .u32("llama.vocab_size", 9)
                    .string("llama.rope.scaling.type", "yarn")
                    .f32("llama.rope.scaling.factor", 4.0f));
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(supported(*config).ok());
  EXPECT_EQ(config->rope.scaling, RopeScaling::kYarn);
  EXPECT_EQ(config->rope.factor, 4.0);
}

// The keys of llama_gguf() under another architecture's prefix.
GgufBuilder gguf_of(const std::string& architecture) {
  GgufBuilder builder;
  builder.string("general.architecture", architecture);
  const std::string prefix = architecture + ".";
  for (const auto& [key, value] :
       {std::pair{"embedding_length", 64}, std::pair{"feed_forward_length", 96}, std::pair{"block_count", 3},
        std::pair{"attention.head_count", 4}, std::pair{"attention.head_count_kv", 2}, std::pair{"context_length", 512},
        std::pair{"attention.key_length", 32}, std::pair{"attention.value_length", 32}}) {
    builder.u32(prefix + key, static_cast<uint32_t>(value));
  }
  return builder.f32(prefix + "attention.layer_norm_rms_epsilon", 1e-6f);
}

TEST_F(ModelConfigGguf, GemmasWindowsRotationsAndCaps) {
  const auto gemma2 = [] {
    return gguf_of("gemma2")
        .u32("gemma2.attention.sliding_window", 64)
        .tensor("token_embd.weight", {64, 10}, 0, rows(10));
  };
  Result<ModelConfig> config =
      read(gemma2().f32("gemma2.attn_logit_softcapping", 50.0f).f32("gemma2.final_logit_softcapping", 30.0f));
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_TRUE(supported(*config).ok());
  EXPECT_EQ(config->sliding_layers, (std::vector<bool>{true, false, true}));
  EXPECT_EQ(config->attention_logit_softcap, 50);
  EXPECT_EQ(config->final_logit_softcap, 30);
  EXPECT_DOUBLE_EQ(*config->attention_scale, 1 / std::sqrt(32.0));
  EXPECT_EQ(config->embedding_multiplier, 8);
  EXPECT_EQ(config->hidden_act, "gelu_pytorch_tanh");
  EXPECT_FALSE(config->norm_weights_minus_one) << "GGUF files hold the sum";
  EXPECT_FALSE(config->rope.interleaved || config->sliding_rope);
  EXPECT_THAT(error_of(gemma2().f32("gemma2.attn_logit_softcapping", -1.0f)), HasSubstr("attn_logit_softcapping"));

  const auto gemma3 = [] {
    return gguf_of("gemma3")
        .u32("gemma3.attention.sliding_window", 64)
        .f32("gemma3.rope.freq_base", 1e6f)
        .tensor("token_embd.weight", {64, 10}, 0, rows(10));
  };
  config = read(gemma3());
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->architecture, "Gemma3ForCausalLM");
  EXPECT_TRUE(config->sliding_layers.empty()) << "the sixth layer would be the first full one";
  EXPECT_EQ(config->qk_norm, QkNorm::kHead);
  EXPECT_EQ(config->rope.theta, 1e6);
  EXPECT_EQ(config->sliding_rope->theta, 1e4);
  config = read(gemma3().u32("gemma3.attention.sliding_window_pattern", 3).f32("gemma3.rope.freq_base_swa", 5e3f));
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->sliding_layers, (std::vector<bool>{true, true, false}));
  EXPECT_EQ(config->sliding_rope->theta, 5e3);
  const char* pattern = "gemma3.attention.sliding_window_pattern";
  config = read(gemma3().array<uint8_t>(pattern, GgufBuilder::kBool, {0, 1, 0}));
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->sliding_layers, (std::vector<bool>{false, true, false}));
  EXPECT_THAT(error_of(gemma3().array<uint8_t>(pattern, GgufBuilder::kBool, {0, 1})), HasSubstr("lists 2 layers"));
  EXPECT_THAT(error_of(gemma3().string(pattern, "all")), HasSubstr(pattern));
}

TEST_F(ModelConfigGguf, GranitesMultipliersAndOlmo2sNorms) {
  Result<ModelConfig> config = read(gguf_of("granite")
                                        .f32("granite.attention.scale", 0.0078125f)
                                        .f32("granite.embedding_scale", 12.0f)
                                        .f32("granite.residual_scale", 0.25f)
                                        .f32("granite.logit_scale", 8.0f)
                                        .tensor("token_embd.weight", {64, 10}, 0, rows(10)));
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_TRUE(config->rope.interleaved);
  EXPECT_EQ(config->attention_scale, 0.0078125);
  EXPECT_EQ(config->embedding_multiplier, 12);
  EXPECT_EQ(config->residual_multiplier, 0.25);
  EXPECT_EQ(config->logits_scaling, 8);
  EXPECT_THAT(error_of(gguf_of("granite").f32("granite.residual_scale", 0.0f)), HasSubstr("granite.residual_scale"));
  config = read(gguf_of("olmo2").tensor("token_embd.weight", {64, 10}, 0, rows(10)));
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->qk_norm, QkNorm::kRow);
  EXPECT_FALSE(config->rope.interleaved);
}

TEST_F(ModelConfigGguf, DamagedFilesGiveAConfigOrAnError) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(static_cast<uint32_t>(seed));
  GgufBuilder builder = llama_gguf();
  const std::string valid = builder.strings("tokenizer.ggml.tokens", {"a", "b", "c"})
                                .tensor("token_embd.weight", {64, 4}, 0, rows(4))
                                .tensor("rope_freqs.weight", {8}, 0, std::string(32, '\x3f'))
                                .build();
  const size_t header_bytes = valid.size() - rows(4).size() - 32;
  MemoryFile memory;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = valid;
    for (uint32_t i = 0; i <= random() % 3; ++i) bytes[random() % header_bytes] = static_cast<char>(random());
    ASSERT_TRUE(memory.write(bytes));
    const auto file = GgufFile::open(memory.path());
    if (!file.ok()) continue;
    const Result<ModelConfig> config = model_config_from_gguf(**file);
    if (!config.ok()) continue;
    EXPECT_TRUE(validate(*config).ok());
    (void)supported(*config);
    EXPECT_EQ(rope_inverse_frequencies(*config, config->rope, config->max_position_embeddings).size(),
              static_cast<size_t>(config->rope.rotary_dim / 2));
  }
}

TEST(ModelConfigRealFile, SmolLm2) {
  const char* path = std::getenv("SEXTANT_TEST_MODEL");
  if (path == nullptr) GTEST_SKIP() << "SEXTANT_TEST_MODEL, the path of SmolLM2-135M-Instruct.Q4_1.gguf, is not set";
  const auto files = open_model(path);
  ASSERT_TRUE(files.ok()) << files.status().message();
  const Result<ModelConfig> config = model_config_from_files(**files);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_TRUE(supported(*config).ok());
  EXPECT_EQ(config->vocab_size, 49152);
  EXPECT_EQ(config->hidden_size, 576);
  EXPECT_EQ(config->num_hidden_layers, 30);
  EXPECT_EQ(config->num_attention_heads, 9);
  EXPECT_EQ(config->num_key_value_heads, 3);
  EXPECT_EQ(config->head_dim, 64);
  EXPECT_EQ(config->rope.theta, 100000.0);
  EXPECT_TRUE(config->tie_word_embeddings);
}

}  // namespace
}  // namespace sextant
