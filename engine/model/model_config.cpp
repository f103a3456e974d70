#include "engine/model/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

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
  bool qk_norm = false;
};
// Models that compute exactly what the family's code does; differences are facts (biases, windows, tied head, RoPE).
constexpr std::array<Architecture, 6> kArchitectures = {{
    {"LlamaForCausalLM", "llama", ModelFamily::kLlama},
    {"MistralForCausalLM", "mistral", ModelFamily::kLlama},
    {"Qwen2ForCausalLM", "qwen2", ModelFamily::kLlama, true, false, false},
    {"Qwen3ForCausalLM", "qwen3", ModelFamily::kLlama, false, false, false, true},
    {"Phi3ForCausalLM", "phi3", ModelFamily::kLlama, false, true, false},
    {"LLaMAForCausalLM", "llama", ModelFamily::kLlama},
}};

constexpr std::array<std::pair<std::string_view, RopeScaling>, 8> kRopeScalings = {{
    {"default", RopeScaling::kNone},
    {"none", RopeScaling::kNone},
    {"linear", RopeScaling::kLinear},
    {"dynamic", RopeScaling::kDynamic},
    {"llama3", RopeScaling::kLlama3},
    {"yarn", RopeScaling::kYarn},
    {"longrope", RopeScaling::kLongRope},
    {"su", RopeScaling::kLongRope},
}};

std::string known_architectures() {
  std::string text;
  for (const Architecture& architecture : kArchitectures) {
    if (architecture.name == "LLaMAForCausalLM") continue;  // an old spelling
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
    return;
  }
}

std::optional<RopeScaling> rope_scaling_of_name(std::string_view wanted) {
  for (const auto& [name, scaling] : kRopeScalings) {
    if (name == wanted) return scaling;
  }
  return std::nullopt;
}

std::string_view rope_scaling_name(RopeScaling wanted) {
  for (const auto& [name, scaling] : kRopeScalings) {
    if (scaling == wanted) return name;
  }
  return "?";
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
        Bound{"the number of experts", config.num_experts, kNumExperts},
        Bound{"the rotary dimension", config.rope.rotary_dim, {2, kHeadDim.max}}}) {
    if (bound.value < bound.range.min || bound.value > bound.range.max) {
      return fail(std::string(bound.key) + " is " + std::to_string(bound.value) + ", expected " +
                  std::to_string(bound.range.min) + " to " + std::to_string(bound.range.max));
    }
  }
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return fail("num_attention_heads " + std::to_string(config.num_attention_heads) +
                " is not a multiple of num_key_value_heads " + std::to_string(config.num_key_value_heads));
  }
  if (config.rope.rotary_dim % 2 != 0 || config.rope.rotary_dim > config.head_dim) {
    return fail("the rotary dimension is " + std::to_string(config.rope.rotary_dim) +
                ", expected an even number up to head_dim " + std::to_string(config.head_dim));
  }
  if (config.num_experts > 0 &&
      (config.num_experts_per_token < 1 || config.num_experts_per_token > config.num_experts)) {
    return fail("num_experts_per_tok is " + std::to_string(config.num_experts_per_token) + " of " +
                std::to_string(config.num_experts) + " experts");
  }
  if (!(config.rms_norm_eps >= 0 && config.rms_norm_eps <= kNormEps.max)) return fail("rms_norm_eps is out of range");
  const RopeConfig& rope = config.rope;
  if (!(rope.theta >= kRopeTheta.min && rope.theta <= kRopeTheta.max)) return fail("rope_theta is out of range");
  if (!(rope.factor >= kRopeFactor.min && rope.factor <= kRopeFactor.max)) {
    return fail("the factor of rope scaling is out of range");
  }
  if (rope.scaling == RopeScaling::kLlama3 && rope.frequency_divisors.empty() &&
      (!(rope.high_freq_factor > rope.low_freq_factor && rope.low_freq_factor > 0) ||
       rope.original_max_position_embeddings < 1)) {
    return fail(
        "llama3 rope scaling needs high_freq_factor above low_freq_factor above 0, and "
        "original_max_position_embeddings");
  }
  if (!rope.frequency_divisors.empty()) {
    if (static_cast<int64_t>(rope.frequency_divisors.size()) != rope.rotary_dim / 2) {
      return fail("rope_freqs.weight has " + std::to_string(rope.frequency_divisors.size()) + " numbers, expected " +
                  std::to_string(rope.rotary_dim / 2));
    }
    for (float divisor : rope.frequency_divisors) {
      if (!(divisor > 1e-6f && divisor < 1e6f)) return fail("rope_freqs.weight holds a number out of range");
    }
  }
  if (rope.scaling == RopeScaling::kYarn && rope.theta <= 1)
    return fail("yarn rope scaling needs a rope_theta above 1");
  if (rope.scaling == RopeScaling::kYarn && !(rope.beta_fast > rope.beta_slow && rope.beta_slow > 0)) {
    return fail("yarn rope scaling needs beta_fast above beta_slow above 0");
  }
  if (rope.scaling == RopeScaling::kLongRope) {
    for (const std::vector<double>* factors : {&rope.short_factor, &rope.long_factor}) {
      if (static_cast<int64_t>(factors->size()) != rope.rotary_dim / 2) {
        return fail("longrope scaling needs short_factor and long_factor of " + std::to_string(rope.rotary_dim / 2) +
                    " numbers, not " + std::to_string(factors->size()));
      }
      for (const double factor : *factors) {
        if (!(factor > 1e-6 && factor < 1e6)) return fail("a factor of longrope scaling is out of range");
      }
    }
    if (rope.original_max_position_embeddings < 2) {
      return fail("longrope scaling needs original_max_position_embeddings");
    }
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
  if (config.mixed_attention) {
    return refuse("a sliding window of " + std::to_string(config.sliding_window.value_or(0)) +
                  " in some layers and none in others is not supported");
  }
  if (config.hidden_act != "silu" && config.hidden_act != "swish") {
    return refuse("hidden_act " + printable(config.hidden_act) + " is not supported (known: silu)");
  }
  const RopeScaling scaling = config.rope.scaling;
  if (scaling == RopeScaling::kDynamic) {
    return refuse("rope scaling " + std::string(rope_scaling_name(scaling)) +
                  " is not supported (known: default, linear, llama3, yarn, longrope)");
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

namespace {

// The context that the model was first trained for, where scaling needs it.
int64_t original_context(const ModelConfig& config) {
  const int64_t stated = config.rope.original_max_position_embeddings;
  return stated > 0 ? stated : config.max_position_embeddings;
}

// The index of the pair that turns so often over the original context (YaRN, arXiv:2309.00071, section 3.2).
double yarn_pair_of_turns(const ModelConfig& config, double turns) {
  return static_cast<double>(config.rope.rotary_dim) *
         std::log(static_cast<double>(original_context(config)) / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(config.rope.theta));
}

}  // namespace

double rope_attention_factor(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  if (rope.scaling != RopeScaling::kYarn && rope.scaling != RopeScaling::kLongRope) return 1.0;
  if (rope.attention_factor) return *rope.attention_factor;
  if (rope.scaling == RopeScaling::kYarn) return rope.factor <= 1 ? 1.0 : 0.1 * std::log(rope.factor) + 1.0;
  const auto original = static_cast<double>(original_context(config));
  const double ratio = static_cast<double>(config.max_position_embeddings) / original;
  const double factor = ratio > 1 ? ratio : rope.factor;
  return factor <= 1 ? 1.0 : std::sqrt(1.0 + std::log(factor) / std::log(original));
}

std::vector<double> rope_inverse_frequencies(const ModelConfig& config, int64_t max_model_len) {
  const RopeConfig& rope = config.rope;
  std::vector<double> frequencies;
  // Pairs that turn often are kept, those that turn seldom are stretched, those between blended.
  double yarn_low = 0, yarn_high = 0;
  if (rope.scaling == RopeScaling::kYarn) {
    yarn_low = std::max(0.0, std::floor(yarn_pair_of_turns(config, rope.beta_fast)));
    yarn_high =
        std::min(static_cast<double>(rope.rotary_dim - 1), std::ceil(yarn_pair_of_turns(config, rope.beta_slow)));
    if (yarn_low == yarn_high) yarn_high += 0.001;
  }
  for (int64_t i = 0; i < rope.rotary_dim / 2; ++i) {
    double frequency = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(rope.rotary_dim));
    if (!rope.frequency_divisors.empty()) {
      frequency /= static_cast<double>(rope.frequency_divisors[static_cast<size_t>(i)]);
    } else if (rope.scaling == RopeScaling::kLinear) {
      frequency /= rope.factor;
    } else if (rope.scaling == RopeScaling::kYarn) {
      const double stretched = std::clamp((static_cast<double>(i) - yarn_low) / (yarn_high - yarn_low), 0.0, 1.0);
      frequency *= stretched / rope.factor + (1.0 - stretched);
    } else if (rope.scaling == RopeScaling::kLongRope) {
      const bool is_long = max_model_len > original_context(config);
      frequency /= (is_long ? rope.long_factor : rope.short_factor)[static_cast<size_t>(i)];
    } else if (rope.scaling == RopeScaling::kLlama3) {
      // Long wavelengths are stretched by the factor, short ones kept, those between blended (Llama 3.1's
      // release).
      const double turns =
          static_cast<double>(rope.original_max_position_embeddings) * frequency / (2 * std::numbers::pi);
      const double kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
      const double share = std::min(1.0, std::max(0.0, kept));
      frequency *= share + (1.0 - share) / rope.factor;
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

}  // namespace sextant
