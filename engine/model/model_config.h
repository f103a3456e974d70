// ModelConfig: the facts of one model, read from GGUF metadata or config.json and checked. Facts only: no defaults of
// ours beyond those the formats define, no policy. `supported` says whether this build can run a model with such facts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/dtype.h"
#include "engine/base/result.h"
#include "engine/format/hf_directory.h"

namespace sextant {

enum class ModelFamily { kUnknown, kLlama, kGemma, kOlmo2 };

// RMSNorm of q and k before the rotation: none, of each head, or of all heads of a row as one.
enum class QkNorm { kNone, kHead, kRow };

enum class RopeScaling { kNone, kLinear, kDynamic, kLlama3, kYarn, kLongRope };
std::string_view rope_scaling_name(RopeScaling scaling);

struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  // llama3
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  // yarn
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  std::optional<double> attention_factor;
  // llama3, yarn, longrope: the context the model was first trained for
  int64_t original_max_position_embeddings = 0;
  // longrope: divisors of the inverse frequencies, rotary_dim / 2 of each, for contexts up to the original one and beyond it
  std::vector<double> short_factor;
  std::vector<double> long_factor;
  // What a GGUF file's rope_freqs.weight holds, head_dim / 2 divisors of the inverse frequencies; they already contain
  // the scaling, which is then kLlama3 without parameters.
  std::vector<float> frequency_divisors;
  // Elements of a head that are rotated; head_dim unless the model rotates a part.
  int64_t rotary_dim = 0;
  // Which elements form a pair: (2i, 2i+1) in GGUF files of the llama architecture, whose q and k rows were permuted
  // for it on conversion; (i, i + rotary_dim/2) in Hugging Face's files.
  bool interleaved = false;
};

struct ModelConfig {
  std::string source;        // the file the facts came from, for messages
  std::string architecture;  // canonical: "LlamaForCausalLM", "MistralForCausalLM", ...
  ModelFamily family = ModelFamily::kUnknown;

  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 0;
  RopeConfig rope;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool attention_output_bias = false;
  bool mlp_bias = false;
  QkNorm qk_norm = QkNorm::kNone;
  // Norms multiply by 1 + the stored weight (Gemma's checkpoints; GGUF files hold the sum).
  bool norm_weights_minus_one = false;
  std::string hidden_act = "silu";
  std::optional<int64_t> sliding_window;  // tokens; nothing when attention is full
  // By layer, whether it has the window; empty: all alike. A model has both kinds then.
  std::vector<bool> sliding_layers;
  std::optional<RopeConfig> sliding_rope;  // of layers with the window, where `rope` is not theirs too
  std::optional<double> attention_scale;   // of q.k; 1 / sqrt(head_dim) unless stated
  double attention_logit_softcap = 0;      // cap * tanh(x / cap); 0: none
  double final_logit_softcap = 0;
  // Granite's; Gemma's embedding is scaled by sqrt(hidden_size).
  double embedding_multiplier = 1;
  double residual_multiplier = 1;  // of what a layer adds to the residual stream
  double logits_scaling = 1;       // divides the logits
  // Files that hold q, k and v, or gate and up, as one matrix, stacked in this order (Phi-3).
  bool fused_qkv = false;
  bool fused_gate_up = false;
  int64_t num_experts = 0;  // 0: dense
  int64_t num_experts_per_token = 0;

  std::optional<int32_t> bos_token_id;
  std::vector<int32_t> eos_token_ids;  // config.json's, then generation_config.json's that it lacks
  std::optional<DType> torch_dtype;    // what config.json says the weights are
  // config.json's quantization_config.quant_method; empty for plain weights and for GGUF, whose tensors say it themselves.
  std::string quantization;
  std::string unread_quantization;  // what of it this build does not read; empty: all that is needed was read
  int64_t fp8_scale_block = 0;      // rows and columns of a block with one scale; 0: one for a tensor or a row

  bool slides(int64_t layer) const {
    return sliding_window && (sliding_layers.empty() || sliding_layers[static_cast<size_t>(layer)]);
  }
  int64_t q_size() const { return num_attention_heads * head_dim; }
  int64_t kv_size() const { return num_key_value_heads * head_dim; }
};

// Each fails with `supported`'s error when facts of an unknown architecture cannot be read.
Result<ModelConfig> model_config_from_gguf(const GgufFile& file);
// `source` names the text in messages.
Result<ModelConfig> model_config_from_json(std::string_view text, std::string_view source);
// config.json, and the token ids of generation_config.json where there is one.
Result<ModelConfig> model_config_from_directory(const HfDirectory& directory);
Result<ModelConfig> model_config_from_files(const ModelFiles& files);

// Ranges, divisibility and products that must not overflow; every error of a malformed set of facts. The readers above
// have called it; whoever changes a config calls it again.
Status validate(const ModelConfig& config);

// kUnsupported, with the fact at fault, when this build cannot run such a model. For an unknown architecture: which are
// known and which is nearest.
Status supported(const ModelConfig& config);

// Inverse frequencies of the rotary embedding `rope` (config.rope or its sliding_rope), rotary_dim / 2 of them, with the scaling applied. Angle of pair i at
// position p = p * result[i]. For kinds that `supported` accepts. longrope has other frequencies where the context may be longer
// than the original one; as in vLLM the longest context that is served decides for all requests.
std::vector<double> rope_inverse_frequencies(const ModelConfig& config, const RopeConfig& rope, int64_t max_model_len);
// What cosines and sines are multiplied by: yarn's and longrope's, 1 for others.
double rope_attention_factor(const ModelConfig& config, const RopeConfig& rope);

}  // namespace sextant
