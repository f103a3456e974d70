#include "engine/model/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "engine/base/activation.h"
#include "engine/base/nearest.h"
#include "engine/format/printable.h"
#include "engine/model/model_config_limits.h"

namespace sextant {
namespace {

struct Architecture {
  std::string_view name;        // config.json's `architectures`
  std::string_view model_type;  // config.json's `model_type`
  ModelFamily family;
  bool qkv_bias = false;            // always, on q, k and v alone
  bool fused = false;               // q, k, v as one matrix, gate and up as another
  bool interleaved_in_gguf = true;  // see RopeConfig::interleaved
  QkNorm qk_norm = QkNorm::kNone;
  bool is_alias = false;  // of one above
};
// Models that compute exactly what the family's code does; differences are facts (biases, windows, tied head, RoPE, multipliers).
constexpr std::array<Architecture, 11> kArchitectures = {{
    {"LlamaForCausalLM", "llama", ModelFamily::kLlama},
    {"MistralForCausalLM", "mistral", ModelFamily::kLlama},
    {"Qwen2ForCausalLM", "qwen2", ModelFamily::kLlama, true, false, false},
    {"Qwen3ForCausalLM", "qwen3", ModelFamily::kLlama, false, false, false, QkNorm::kHead},
    {"Phi3ForCausalLM", "phi3", ModelFamily::kLlama, false, true, false},
    {"GraniteForCausalLM", "granite", ModelFamily::kLlama},
    {"Gemma2ForCausalLM", "gemma2", ModelFamily::kGemma, false, false, false},
    {"Gemma3ForCausalLM", "gemma3_text", ModelFamily::kGemma, false, false, false, QkNorm::kHead},
    {"Olmo2ForCausalLM", "olmo2", ModelFamily::kOlmo2, false, false, false, QkNorm::kRow},
    {"LLaMAForCausalLM", "llama", ModelFamily::kLlama, false, false, true, QkNorm::kNone, true},     // an old spelling
    {"Gemma3ForCausalLM", "gemma3", ModelFamily::kGemma, false, false, false, QkNorm::kHead, true},  // GGUF's
}};

std::string known_architectures() {
  std::string text;
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.is_alias) continue;
    text += (text.empty() ? "" : ", ") + std::string(architecture.name);
  }
  return text;
}

}  // namespace

std::optional<std::string> canonical_architecture(std::string_view model_type) {
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.model_type == model_type) return std::string(architecture.name);
  }
  return std::nullopt;
}

ModelFamily family_of(std::string_view name) {
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == name) return architecture.family;
  }
  return ModelFamily::kUnknown;
}

void set_facts_of_architecture(ModelConfig& config, bool is_gguf) {
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name != config.architecture) continue;
    if (architecture.qkv_bias) config.qkv_bias = true;
    config.fused_qkv = config.fused_gate_up = architecture.fused;
    config.qk_norm = architecture.qk_norm;
    config.rope.interleaved = is_gguf && architecture.interleaved_in_gguf;
    if (architecture.family == ModelFamily::kGemma) {
      config.norm_weights_minus_one = !is_gguf;
      config.hidden_act = "gelu_pytorch_tanh";
      // Unrounded, as the reference in fp32 has it; in bf16 transformers round it to bf16.
      config.embedding_multiplier = std::sqrt(static_cast<double>(config.hidden_size));
    }
    return;
  }
}

std::optional<int64_t> window_pattern(std::string_view architecture) {
  if (architecture == "Gemma2ForCausalLM") return 2;
  if (architecture == "Gemma3ForCausalLM") return 6;
  return std::nullopt;
}

void set_window_pattern(std::vector<bool>& slides, int64_t pattern) {
  for (size_t i = 0; i < slides.size(); ++i) slides[i] = (static_cast<int64_t>(i) + 1) % pattern != 0;
}

void set_window(ModelConfig& config, int64_t window, std::vector<bool> slides) {
  const auto num_sliding = std::count(slides.begin(), slides.end(), true);
  if (num_sliding == 0) return;
  config.sliding_window = window;
  if (num_sliding < static_cast<int64_t>(slides.size())) config.sliding_layers = std::move(slides);
}

Status validate(const ModelConfig& config) {
  const auto fail = [&](const std::string& what) { return data_loss(config.source + ": " + what); };
  struct Bound {
    const char* key;
    int64_t value;
    IntRange range;
  };
  for (const Bound& bound :
       {Bound{"vocab_size", config.vocab_size, kVocabSize}, Bound{"hidden_size", config.hidden_size, kHiddenSize},
        Bound{"intermediate_size", config.intermediate_size, kIntermediateSize},
        Bound{"num_hidden_layers", config.num_hidden_layers, kNumLayers},
        Bound{"num_attention_heads", config.num_attention_heads, kNumHeads},
        Bound{"num_key_value_heads", config.num_key_value_heads, kNumHeads},
        Bound{"head_dim", config.head_dim, kHeadDim},
        Bound{"max_position_embeddings", config.max_position_embeddings, kMaxPositions},
        Bound{"the number of experts", config.num_experts, kNumExperts}}) {
    if (bound.value < bound.range.min || bound.value > bound.range.max) {
      return fail(std::string(bound.key) + " is " + std::to_string(bound.value) + ", expected " +
                  std::to_string(bound.range.min) + " to " + std::to_string(bound.range.max));
    }
  }
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return fail("num_attention_heads " + std::to_string(config.num_attention_heads) +
                " is not a multiple of num_key_value_heads " + std::to_string(config.num_key_value_heads));
  }
  if (config.num_experts > 0 &&
      (config.num_experts_per_token < 1 || config.num_experts_per_token > config.num_experts)) {
    return fail("num_experts_per_tok is " + std::to_string(config.num_experts_per_token) + " of " +
                std::to_string(config.num_experts) + " experts");
  }
  if (!(config.rms_norm_eps >= 0 && config.rms_norm_eps <= kNormEps.max)) return fail("rms_norm_eps is out of range");
  for (const RopeConfig* rope : {&config.rope, config.sliding_rope ? &*config.sliding_rope : &config.rope}) {
    if (const std::string fault = fault_of(*rope, config.head_dim); !fault.empty()) return fail(fault);
  }
  const auto layers = static_cast<size_t>(config.num_hidden_layers);
  if (!config.sliding_layers.empty() && (config.sliding_layers.size() != layers || !config.sliding_window)) {
    return fail("says of " + std::to_string(config.sliding_layers.size()) + " layers whether they have a window" +
                (config.sliding_window ? "" : " whose length is missing") + ", and has " + std::to_string(layers));
  }
  for (const auto& [name, value] : {std::pair{"embedding_multiplier", config.embedding_multiplier},
                                    std::pair{"residual_multiplier", config.residual_multiplier},
                                    std::pair{"logits_scaling", config.logits_scaling},
                                    std::pair{"the scale of attention", config.attention_scale.value_or(1)}}) {
    if (!(value >= kMultiplier.min && value <= kMultiplier.max)) {
      return fail(std::string(name) + " is " + std::to_string(value) + ", out of range");
    }
  }
  for (const double cap : {config.attention_logit_softcap, config.final_logit_softcap}) {
    if (!(cap >= 0 && cap <= kMultiplier.max)) return fail("a soft cap of logits is out of range");
  }
  std::vector<int32_t> ids = config.eos_token_ids;
  if (config.bos_token_id) ids.push_back(*config.bos_token_id);
  for (int32_t id : ids) {
    if (id < 0 || id >= config.vocab_size) {
      return fail("bos_token_id or eos_token_id is " + std::to_string(id) + ", outside the vocabulary of " +
                  std::to_string(config.vocab_size));
    }
  }
  // All sizes in bytes stay far below 2^63, whatever the type.
  const double experts = static_cast<double>(std::max<int64_t>(config.num_experts, 1));
  const double hidden = static_cast<double>(config.hidden_size);
  const double parameters = 2.0 * static_cast<double>(config.vocab_size) * hidden +
                            static_cast<double>(config.num_hidden_layers) * hidden *
                                (3.0 * experts * static_cast<double>(config.intermediate_size) +
                                 2.0 * static_cast<double>(config.q_size() + config.kv_size()));
  constexpr double kMaxParameters = 1e15;
  if (parameters > kMaxParameters) return fail("the sizes describe a model of more than 10^15 parameters");
  return ok_status();
}

Status supported(const ModelConfig& config) {
  const auto refuse = [&](const std::string& what) { return unsupported(config.source + ": " + what, "model"); };
  if (config.family == ModelFamily::kUnknown) {
    std::vector<std::string> names;
    for (const Architecture& architecture : kArchitectures) {
      names.emplace_back(architecture.name);
      names.emplace_back(architecture.model_type);
    }
    const std::optional<std::string> nearest =
        nearest_name(std::string_view(config.architecture).substr(0, 128), names);
    return refuse("architecture " + printable(config.architecture) + " is not supported (known: " +
                  known_architectures() + (nearest ? "; the nearest is " + *nearest : std::string()) + ")");
  }
  if (!config.unread_quantization.empty()) {
    return refuse("weights quantised with " + printable(config.quantization) +
                  " (quantization_config) are not supported; take plain weights or a GGUF file (" +
                  config.unread_quantization + ")");
  }
  if (config.num_experts > 0) return refuse("mixture-of-experts models are not supported");
  if (!activation_of_name(config.hidden_act)) {
    return refuse("hidden_act " + printable(config.hidden_act) + " is not supported (known: silu, gelu_pytorch_tanh)");
  }
  for (const RopeConfig* rope : {&config.rope, config.sliding_rope ? &*config.sliding_rope : &config.rope}) {
    if (rope->scaling != RopeScaling::kDynamic) continue;
    return refuse("rope scaling " + std::string(rope_scaling_name(rope->scaling)) +
                  " is not supported (known: default, linear, llama3, yarn, longrope)");
  }
  if (config.residual_multiplier != 1 && config.family != ModelFamily::kLlama) {
    return refuse("a residual_multiplier is not supported in " + config.architecture);
  }
  if (config.rope.rotary_dim != config.head_dim && config.rope.interleaved) {
    return refuse("rotating " + std::to_string(config.rope.rotary_dim) + " of head_dim " +
                  std::to_string(config.head_dim) + " elements, in pairs of neighbours, is not supported");
  }
  if (config.rope.interleaved && config.qkv_bias) {
    return refuse(
        "biases of q and k stored for pairs of neighbours are not supported; take the Hugging Face directory");
  }
  return ok_status();
}

Result<ModelConfig> model_config_from_files(const ModelFiles& files) {
  if (files.gguf) return model_config_from_gguf(*files.gguf);
  CHECK(files.directory != nullptr);
  return model_config_from_directory(*files.directory);
}

}  // namespace sextant
