#include "engine/model/model_config.h"
#include "engine/model/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <random>

#include "tests/support/random_seed.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

Json valid_json() {
  return Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 320, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2,
    "torch_dtype": "bfloat16", "rope_theta": 500000.0})");
}
Result<ModelConfig> read(const Json& json) { return model_config_from_json(json.dump(), "config.json"); }
std::string error_of(const Json& json) {
  const Result<ModelConfig> config = read(json);
  EXPECT_FALSE(config.ok()) << json;
  return config.ok() ? "" : config.status().message();
}
Json with(const std::string& key, const Json& value) {
  Json json = valid_json();
  json[key] = value;
  return json;
}
std::string refusal_of(const Json& json) {
  const Result<ModelConfig> config = read(json);
  EXPECT_TRUE(config.ok()) << config.status().message();
  const Status status = config.ok() ? supported(*config) : ok_status();
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  return status.message();
}

TEST(ModelConfigJson, GoldenTinyLlama) {
  const auto directory = HfDirectory::open(std::string(SEXTANT_TEST_DATA) + "/golden/tiny/llama");
  ASSERT_TRUE(directory.ok());
  const Result<ModelConfig> config = model_config_from_directory(**directory);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->architecture, "LlamaForCausalLM");
  EXPECT_EQ(config->family, ModelFamily::kLlama);
  EXPECT_EQ(config->vocab_size, 320);
  EXPECT_EQ(config->hidden_size, 64);
  EXPECT_EQ(config->intermediate_size, 96);
  EXPECT_EQ(config->num_hidden_layers, 3);
  EXPECT_EQ(config->num_attention_heads, 4);
  EXPECT_EQ(config->num_key_value_heads, 2);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->q_size(), 64);
  EXPECT_EQ(config->kv_size(), 32);
  EXPECT_EQ(config->max_position_embeddings, 512);
  EXPECT_EQ(config->rms_norm_eps, 1e-6);
  EXPECT_EQ(config->rope.theta, 10000.0);
  EXPECT_EQ(config->rope.scaling, RopeScaling::kNone);
  EXPECT_EQ(config->rope.rotary_dim, 16);
  EXPECT_FALSE(config->rope.interleaved);
  EXPECT_FALSE(config->tie_word_embeddings);
  EXPECT_EQ(config->torch_dtype, DType::kBFloat16);
  EXPECT_EQ(config->bos_token_id, 1);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2));
  EXPECT_EQ(config->sliding_window, std::nullopt);
  EXPECT_TRUE(supported(*config).ok());
}

TEST(ModelConfigJson, DefaultsOfTheFormat) {
  Json json = valid_json();
  for (const char* key : {"num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "bos_token_id",
                          "eos_token_id", "torch_dtype", "rope_theta", "architectures"}) {
    json.erase(key);
  }
  json["rope_scaling"] = nullptr;
  json["head_dim"] = nullptr;
  const Result<ModelConfig> config = read(json);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->architecture, "LlamaForCausalLM") << "from model_type";
  EXPECT_EQ(config->num_key_value_heads, 4);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->max_position_embeddings, 2048);
  EXPECT_EQ(config->rms_norm_eps, 1e-6);
  EXPECT_EQ(config->rope.theta, 10000.0);
  EXPECT_EQ(config->bos_token_id, std::nullopt);
  EXPECT_TRUE(config->eos_token_ids.empty());
  EXPECT_EQ(config->torch_dtype, std::nullopt);
}

TEST(ModelConfigJson, BothSpellingsOfRope) {
  const Json llama3 = {{"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 128},
                       {"rope_type", "llama3"}};
  Json old_spelling = with("rope_scaling", llama3);
  Json new_spelling = valid_json();
  new_spelling.erase("rope_theta");
  new_spelling["rope_parameters"] = llama3;
  new_spelling["rope_parameters"]["rope_theta"] = 500000.0;
  for (const Json& json : {old_spelling, new_spelling}) {
    const Result<ModelConfig> config = read(json);
    ASSERT_TRUE(config.ok()) << config.status().message();
    EXPECT_EQ(config->rope.theta, 500000.0);
    EXPECT_EQ(config->rope.scaling, RopeScaling::kLlama3);
    EXPECT_EQ(config->rope.factor, 8.0);
    EXPECT_EQ(config->rope.original_max_position_embeddings, 128);
    EXPECT_TRUE(supported(*config).ok());
  }
  const Result<ModelConfig> linear = read(with("rope_scaling", {{"type", "linear"}, {"factor", 2.0}}));
  ASSERT_TRUE(linear.ok()) << linear.status().message();
  EXPECT_EQ(linear->rope.scaling, RopeScaling::kLinear);
}

TEST(ModelConfigJson, RopeScalingsThatAreRecognisedButNotSupported) {
  EXPECT_THAT(refusal_of(with("rope_scaling", {{"type", "dynamic"}, {"factor", 4.0}})),
              HasSubstr("rope scaling dynamic"));
  EXPECT_THAT(error_of(with("rope_scaling", {{"type", "su"}, {"short_factor", {1.0}}, {"long_factor", {2.0}}})),
              HasSubstr("longrope scaling needs short_factor and long_factor of 8 numbers, not 1"));
  EXPECT_THAT(error_of(with("rope_scaling", {{"rope_type", "longrope"},
                                             {"short_factor", std::vector<double>(8, 1.0)},
                                             {"long_factor", std::vector<double>(8, 0.0)}})),
              HasSubstr("a factor of longrope scaling is out of range"));
  EXPECT_THAT(error_of(with("rope_scaling", {{"rope_type", "longrope"},
                                             {"short_factor", std::vector<double>(8, 1.0)},
                                             {"long_factor", std::vector<double>(8, 2.0)}})),
              HasSubstr("longrope scaling needs original_max_position_embeddings"));
  EXPECT_THAT(error_of(with("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}, {"beta_fast", 1.0}})),
              HasSubstr("beta_fast above beta_slow"));
  EXPECT_THAT(error_of(with("rope_scaling", {{"type", "mrope"}})),
              HasSubstr("rope_scaling.rope_type 'mrope' is not known"));
  EXPECT_THAT(error_of(with("rope_scaling", {{"type", "linear"}})), HasSubstr("rope_scaling.factor is missing"));
  EXPECT_THAT(error_of(with("rope_scaling", {{"type", "linear"}, {"factor", 0}})),
              HasSubstr("rope_scaling.factor is '0'"));
  EXPECT_THAT(error_of(with("rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}})),
              HasSubstr("rope_scaling.original_max_position_embeddings is missing"));
  EXPECT_THAT(error_of(with("rope_scaling", {{"rope_type", "llama3"},
                                             {"factor", 8},
                                             {"low_freq_factor", 4.0},
                                             {"high_freq_factor", 4.0},
                                             {"original_max_position_embeddings", 128}})),
              HasSubstr("high_freq_factor above low_freq_factor"));
  EXPECT_THAT(error_of(with("rope_scaling", 3)), HasSubstr("rope_scaling is no object"));
  EXPECT_THAT(error_of(with("rope_parameters", {{"full_attention", {{"rope_theta", 1e6}}}})),
              HasSubstr("rope_parameters.sliding_attention is missing"));
  EXPECT_THAT(error_of(with("rope_parameters", {{"full_attention", {{"rope_theta", 1e6}}}, {"sliding_attention", 3}})),
              HasSubstr("rope_parameters.sliding_attention is no object"));
  EXPECT_THAT(error_of(with("rope_local_base_freq", -1)), HasSubstr("rope_local_base_freq"));
}

TEST(ModelConfigJson, ErrorsNameFileAndKey) {
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
    Json json = valid_json();
    json.erase(key);
    EXPECT_EQ(error_of(json), std::string("config.json: ") + key + " is missing");
    for (const Json& bad :
         {Json(0), Json(-1), Json("64"), Json(64.0), Json(Json::array()), Json(INT64_MAX), Json(UINT64_MAX)}) {
      EXPECT_THAT(error_of(with(key, bad)), HasSubstr(std::string("config.json: ") + key + " is '")) << bad;
    }
  }
  EXPECT_THAT(error_of(with("hidden_size", 66)), HasSubstr("num_attention_heads 4 does not divide"));
  EXPECT_THAT(error_of(with("num_key_value_heads", 3)),
              HasSubstr("num_attention_heads 4 is not a multiple of num_key_value_heads 3"));
  EXPECT_THAT(error_of(with("head_dim", 15)), HasSubstr("expected an even number"));
  EXPECT_THAT(error_of(with("rms_norm_eps", "x")), HasSubstr("rms_norm_eps is"));
  EXPECT_THAT(error_of(with("rms_norm_eps", -1)), HasSubstr("rms_norm_eps is '-1'"));
  EXPECT_THAT(error_of(with("rope_theta", 0)), HasSubstr("rope_theta is '0'"));
  EXPECT_THAT(error_of(with("tie_word_embeddings", 1)),
              HasSubstr("tie_word_embeddings is '1', expected true or false"));
  EXPECT_THAT(error_of(with("eos_token_id", 320)), HasSubstr("is 320, outside the vocabulary of 320"));
  EXPECT_THAT(error_of(with("eos_token_id", {1, "x"})), HasSubstr("eos_token_id is"));
  EXPECT_THAT(error_of(with("eos_token_id", Json(std::vector<int>(1000, 1)))), HasSubstr("more than 256 ids"));
  EXPECT_THAT(error_of(with("torch_dtype", "int3")), HasSubstr("torch_dtype is 'int3'"));
  EXPECT_THAT(error_of(with("architectures", "LlamaForCausalLM")), HasSubstr("architectures is"));
  EXPECT_THAT(error_of(with("architectures", Json::array())), HasSubstr("architectures is"));
  EXPECT_THAT(error_of(Json::array()), HasSubstr("no JSON object"));
  EXPECT_THAT(error_of(Json::object()), HasSubstr("architectures and model_type are missing"));
  EXPECT_THAT(model_config_from_json("{\"a\": }", "config.json").status().message(),
              HasSubstr("config.json: line 1, column 7"));
  Json enormous = valid_json();
  enormous["vocab_size"] = 1 << 26;
  enormous["head_dim"] = 128;
  enormous["hidden_size"] = 1 << 20;
  enormous["intermediate_size"] = 1 << 24;
  enormous["num_hidden_layers"] = 4096;
  EXPECT_THAT(error_of(enormous), HasSubstr("more than 10^15 parameters"));
}

TEST(ModelConfigJson, UnknownArchitecturesNameTheKnownAndTheNearest) {
  EXPECT_THAT(refusal_of(with("architectures", {"LlamaForCausaLM"})),
              HasSubstr("architecture 'LlamaForCausaLM' is not supported (known: LlamaForCausalLM, MistralForCausalLM, "
                        "Qwen2ForCausalLM, Qwen3ForCausalLM, Phi3ForCausalLM, GraniteForCausalLM, Gemma2ForCausalLM, "
                        "Gemma3ForCausalLM, Olmo2ForCausalLM; the nearest is LlamaForCausalLM)"));
  // Facts of other families that are spelt differently do not hide the reason.
  const Json gpt2 = {{"architectures", {"GPT2LMHeadModel"}}, {"model_type", "gpt2"}, {"n_embd", 768}};
  EXPECT_THAT(error_of(gpt2), HasSubstr("architecture 'GPT2LMHeadModel' is not supported"));
  EXPECT_THAT(refusal_of(with("architectures", {"x\x1b[31m"})), HasSubstr("'x\\x1b[31m'"));
}

TEST(ModelConfigJson, FactsThatAreNotSupported) {
  EXPECT_THAT(refusal_of(with("hidden_act", "gelu")), HasSubstr("hidden_act 'gelu'"));
  EXPECT_THAT(refusal_of(with("quantization_config", {{"quant_method", "gptq"}})), HasSubstr("'gptq'"));
  EXPECT_THAT(refusal_of(with("quantization_config", Json::array())), HasSubstr("quantization_config"));
  Json moe = with("num_local_experts", 8);
  moe["num_experts_per_tok"] = 2;
  EXPECT_THAT(refusal_of(moe), HasSubstr("mixture-of-experts"));
  moe["num_experts_per_tok"] = 9;
  EXPECT_THAT(error_of(moe), HasSubstr("num_experts_per_tok is 9 of 8 experts"));
}

TEST(ModelConfigJson, WindowsOfAllLayersOfSomeAndOfNone) {
  const auto window_of = [](const Json& json) {
    const Result<ModelConfig> config = read(json);
    EXPECT_TRUE(config.ok()) << config.status().message();
    EXPECT_TRUE(supported(*config).ok()) << json;
    return make_attention_kinds(*config)[0].sliding_window;
  };
  Json json = with("architectures", {"MistralForCausalLM"});
  EXPECT_EQ(window_of(json), 0);
  json["sliding_window"] = nullptr;
  EXPECT_EQ(window_of(json), 0);
  json["sliding_window"] = 512;
  EXPECT_EQ(window_of(json), 0) << "as long as the context";
  json["sliding_window"] = 64;
  EXPECT_EQ(window_of(json), 64);
  json["use_sliding_window"] = false;
  EXPECT_EQ(window_of(json), 0);
  json["use_sliding_window"] = true;
  // Qwen2's: full up to this layer. The tiny model has three.
  json["max_window_layers"] = 3;
  EXPECT_EQ(window_of(json), 0);
  json["max_window_layers"] = 0;
  EXPECT_EQ(window_of(json), 64);
  json["max_window_layers"] = 2;
  EXPECT_EQ(read(json)->sliding_layers, (std::vector<bool>{false, false, true}));
  json["layer_types"] = {"full_attention", "full_attention", "full_attention"};
  EXPECT_EQ(window_of(json), 0) << "the list says it exactly";
  json["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention"};
  const Result<ModelConfig> mixed = read(json);
  ASSERT_TRUE(mixed.ok());
  EXPECT_EQ(mixed->sliding_layers, (std::vector<bool>{true, false, true}));
  const AttentionKinds kinds = make_attention_kinds(*mixed);
  ASSERT_EQ(kinds.size(), 2u);
  EXPECT_EQ(kinds[0].sliding_window, 64);
  EXPECT_EQ(kinds[1].sliding_window, 0);
  json["layer_types"] = {"sliding_attention", "full_attention"};
  EXPECT_THAT(error_of(json), HasSubstr("layer_types is no list of num_hidden_layers types"));
  json["layer_types"] = {"sliding_attention", "full_attention", "linear_attention"};
  EXPECT_THAT(error_of(json), HasSubstr("layer_types holds '\"linear_attention\"'"));
  json["layer_types"] = "sliding_attention";
  EXPECT_THAT(error_of(json), HasSubstr("layer_types is no list"));
}

TEST(ModelConfigJson, GemmasDefaultsAndWhatItsFilesSay) {
  Json json = with("architectures", {"Gemma2ForCausalLM"});
  for (const char* key : {"head_dim", "tie_word_embeddings", "hidden_act"}) json.erase(key);
  Result<ModelConfig> config = read(json);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_TRUE(supported(*config).ok());
  EXPECT_EQ(config->head_dim, 256);
  EXPECT_TRUE(config->tie_word_embeddings && config->norm_weights_minus_one);
  EXPECT_EQ(config->hidden_act, "gelu_pytorch_tanh");
  EXPECT_EQ(config->sliding_window, 4096);
  EXPECT_EQ(config->sliding_layers, (std::vector<bool>{true, false, true}));
  EXPECT_DOUBLE_EQ(*config->attention_scale, 1.0 / 16);
  EXPECT_DOUBLE_EQ(config->attention_logit_softcap, 50);
  EXPECT_DOUBLE_EQ(config->final_logit_softcap, 30);
  EXPECT_DOUBLE_EQ(config->embedding_multiplier, std::sqrt(static_cast<double>(config->hidden_size)));
  json["attn_logit_softcapping"] = nullptr;
  json["final_logit_softcapping"] = 20.5;
  config = read(json);
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->attention_logit_softcap, 0);
  EXPECT_EQ(config->final_logit_softcap, 20.5);
  for (const char* key : {"attn_logit_softcapping", "query_pre_attn_scalar"}) {
    json[key] = -1;
    EXPECT_THAT(error_of(json), HasSubstr(key));
    json[key] = 1;
  }

  // The two spellings of Gemma 3's rotations.
  json = with("architectures", {"Gemma3ForCausalLM"});
  json["num_hidden_layers"] = 7;
  json["sliding_window_pattern"] = 3;
  json["rope_theta"] = 1e6;
  json["rope_local_base_freq"] = 1e4;
  json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  config = read(json);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->sliding_layers, (std::vector<bool>{true, true, false, true, true, false, true}));
  EXPECT_EQ(config->qk_norm, QkNorm::kHead);
  EXPECT_EQ(config->attention_logit_softcap, 0);
  EXPECT_EQ(config->rope.theta, 1e6);
  EXPECT_EQ(config->rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(config->sliding_rope->theta, 1e4);
  EXPECT_EQ(config->sliding_rope->scaling, RopeScaling::kNone);
  for (const char* key : {"rope_theta", "rope_local_base_freq", "rope_scaling"}) json.erase(key);
  json["rope_parameters"] = {{"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 1e6}}},
                             {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 1e4}}}};
  const Result<ModelConfig> newer = read(json);
  ASSERT_TRUE(newer.ok()) << newer.status().message();
  EXPECT_EQ(newer->rope.theta, config->rope.theta);
  EXPECT_EQ(newer->rope.factor, config->rope.factor);
  EXPECT_EQ(newer->sliding_rope->theta, config->sliding_rope->theta);
  EXPECT_EQ(newer->sliding_rope->scaling, RopeScaling::kNone);
  json["sliding_window_pattern"] = 0;
  EXPECT_THAT(error_of(json), HasSubstr("sliding_window_pattern"));
}

TEST(ModelConfigJson, GranitesMultipliers) {
  Json json = with("architectures", {"GraniteForCausalLM"});
  Result<ModelConfig> config = read(json);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->attention_scale, 1.0);
  json["attention_multiplier"] = 0.0078125;
  json["embedding_multiplier"] = 12;
  json["residual_multiplier"] = 0.22;
  json["logits_scaling"] = 8;
  config = read(json);
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->attention_scale, 0.0078125);
  EXPECT_EQ(config->embedding_multiplier, 12);
  EXPECT_EQ(config->residual_multiplier, 0.22);
  EXPECT_EQ(config->logits_scaling, 8);
  for (const char* key : {"attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling"}) {
    for (const Json& wrong : {Json(0), Json(-1), Json(1e300), Json("1"), Json::array()}) {
      Json broken = json;
      broken[key] = wrong;
      EXPECT_THAT(error_of(broken), HasSubstr(key)) << wrong;
    }
  }
  // Other architectures do not have them.
  Json llama = json;
  llama["architectures"] = {"LlamaForCausalLM"};
  EXPECT_EQ(read(llama)->residual_multiplier, 1);
}

TEST(ModelConfigJson, WhatTheArchitectureFixes) {
  const Result<ModelConfig> qwen2 = read(with("architectures", {"Qwen2ForCausalLM"}));
  ASSERT_TRUE(qwen2.ok());
  EXPECT_TRUE(qwen2->qkv_bias);
  EXPECT_FALSE(qwen2->attention_output_bias);
  EXPECT_FALSE(qwen2->fused_qkv);
  const Result<ModelConfig> phi3 = read(with("architectures", {"Phi3ForCausalLM"}));
  ASSERT_TRUE(phi3.ok());
  EXPECT_FALSE(phi3->qkv_bias);
  EXPECT_TRUE(phi3->fused_qkv);
  EXPECT_TRUE(phi3->fused_gate_up);
  const Result<ModelConfig> llama = read(with("attention_bias", true));
  ASSERT_TRUE(llama.ok());
  EXPECT_TRUE(llama->qkv_bias);
  EXPECT_TRUE(llama->attention_output_bias);
}

TEST(ModelConfigJson, GenerationConfigAddsItsTokens) {
  const ScratchDirectory scratch;
  scratch.write("config.json", valid_json().dump());
  scratch.write("generation_config.json", R"({"eos_token_id": [2, 7, 8]})");
  const auto directory = HfDirectory::open(scratch.path());
  ASSERT_TRUE(directory.ok());
  EXPECT_THAT(model_config_from_directory(**directory)->eos_token_ids, ElementsAre(2, 7, 8));
  scratch.write("generation_config.json", R"({"eos_token_id": "x"})");
  EXPECT_THAT(model_config_from_directory(**directory).status().message(),
              HasSubstr("generation_config.json: eos_token_id is"));
}

TEST(ModelConfigJson, DamagedTextGivesAConfigOrAnError) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(static_cast<uint32_t>(seed));
  const std::string valid =
      with("rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}, {"original_max_position_embeddings", 128}})
          .dump();
  for (int round = 0; round < 3000; ++round) {
    std::string text = valid;
    for (uint32_t i = 0; i <= random() % 3; ++i) text[random() % text.size()] = "{}[]\",:0129ae.-\x80n"[random() % 18];
    const Result<ModelConfig> config = model_config_from_json(text, "config.json");
    if (config.ok()) {
      EXPECT_TRUE(validate(*config).ok());
      EXPECT_EQ(rope_inverse_frequencies(*config, config->rope, config->max_position_embeddings).size(),
                static_cast<size_t>(config->rope.rotary_dim / 2));
    }
  }
}

TEST(RopeFrequencies, PlainLinearAndLlama3) {
  Result<ModelConfig> config = read(valid_json());
  const std::vector<double> plain = rope_inverse_frequencies(*config, config->rope, config->max_position_embeddings);
  ASSERT_EQ(plain.size(), 8u);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_DOUBLE_EQ(plain[i], 1.0 / std::pow(500000.0, 2.0 * i / 16.0));
  config = read(with("rope_scaling", {{"type", "linear"}, {"factor", 4.0}}));
  EXPECT_DOUBLE_EQ(rope_inverse_frequencies(*config, config->rope, config->max_position_embeddings)[3], plain[3] / 4.0);

  // Llama 3.1's published procedure, written down as it is published: by wavelength.
  const double factor = 8.0, low = 1.0, high = 4.0, context = 128.0;
  config = read(with("rope_scaling", {{"rope_type", "llama3"},
                                      {"factor", factor},
                                      {"low_freq_factor", low},
                                      {"high_freq_factor", high},
                                      {"original_max_position_embeddings", 128}}));
  const std::vector<double> scaled = rope_inverse_frequencies(*config, config->rope, config->max_position_embeddings);
  int num_kept = 0, num_divided = 0, num_blended = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    const double wavelength = 2 * std::numbers::pi / plain[i];
    double expected = 0;
    if (wavelength < context / high) {
      expected = plain[i];
      ++num_kept;
    } else if (wavelength > context / low) {
      expected = plain[i] / factor;
      ++num_divided;
    } else {
      const double smooth = (context / wavelength - low) / (high - low);
      expected = (1 - smooth) * plain[i] / factor + smooth * plain[i];
      ++num_blended;
    }
    EXPECT_NEAR(scaled[i], expected, 1e-15) << i;
  }
  EXPECT_GT(num_kept, 0);
  EXPECT_GT(num_divided, 0);
  EXPECT_GT(num_blended, 0);
}

// Against the published procedure as it is published: dimensions by rotations, a ramp between (arXiv:2309.00071, 3.2 and 3.4).
TEST(RopeFrequencies, Yarn) {
  const Result<ModelConfig> config =
      read(with("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 128}}));
  ASSERT_TRUE(config.ok()) << config.status().message();
  ASSERT_TRUE(supported(*config).ok());
  const std::vector<double> scaled = rope_inverse_frequencies(*config, config->rope, 512);
  // 128 tokens: pair d turns 128 * theta^(-d/8) / (2 pi) times. 32 turns: never (d < 0, so 0); once: d = 8 ln(128 / 2 pi) / ln theta.
  const double once = 8 * std::log(128 / (2 * std::numbers::pi)) / std::log(500000.0);
  const double high = std::ceil(once);
  EXPECT_EQ(high, 2);
  for (size_t i = 0; i < 8; ++i) {
    const double plain = std::pow(500000.0, -static_cast<double>(i) / 8);
    const double ramp = std::min(1.0, static_cast<double>(i) / high);
    EXPECT_DOUBLE_EQ(scaled[i], plain / 4 * ramp + plain * (1 - ramp)) << i;
  }
  EXPECT_DOUBLE_EQ(rope_attention_factor(*config, config->rope), 0.1 * std::log(4.0) + 1);
}

TEST(RopeFrequencies, LongRope) {
  const std::vector<double> short_factor = {1, 1, 1, 1.1, 1.2, 1.3, 1.4, 1.5};
  const std::vector<double> long_factor = {1, 2, 3, 4, 5, 6, 7, 8};
  Json json =
      with("rope_scaling", {{"type", "longrope"}, {"short_factor", short_factor}, {"long_factor", long_factor}});
  json["original_max_position_embeddings"] = 64;  // beside it, as Phi-3's files have it
  const Result<ModelConfig> config = read(json);
  ASSERT_TRUE(config.ok()) << config.status().message();
  ASSERT_TRUE(supported(*config).ok());
  const std::vector<double> in_original = rope_inverse_frequencies(*config, config->rope, 64);
  const std::vector<double> beyond = rope_inverse_frequencies(*config, config->rope, 65);
  for (size_t i = 0; i < 8; ++i) {
    const double plain = std::pow(500000.0, -static_cast<double>(i) / 8);
    EXPECT_DOUBLE_EQ(in_original[i], plain / short_factor[i]);
    EXPECT_DOUBLE_EQ(beyond[i], plain / long_factor[i]);
  }
  EXPECT_DOUBLE_EQ(rope_attention_factor(*config, config->rope), std::sqrt(1 + std::log(512.0 / 64) / std::log(64.0)));
  EXPECT_DOUBLE_EQ(rope_attention_factor(*read(valid_json()), RopeConfig()), 1.0);
}

TEST(RopeFrequencies, PartOfAHead) {
  const Result<ModelConfig> config = read(with("partial_rotary_factor", 0.5));
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(supported(*config).ok());
  EXPECT_EQ(rope_inverse_frequencies(*config, config->rope, 512).size(), 4u);
}

}  // namespace
}  // namespace sextant
