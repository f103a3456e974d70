// ModelConfig from a GGUF file: the keys under the architecture's prefix, and what only the tensors tell
// (whether the head is tied, whether there are biases, the size of the vocabulary, Llama 3's frequency
// divisors).

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "engine/format/printable.h"
#include "engine/model/model_config.h"
#include "engine/model/model_config_limits.h"

namespace sextant {
namespace {

class GgufFacts {
 public:
  GgufFacts(const GgufFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  std::string key(std::string_view name) const { return prefix_ + "." + std::string(name); }
  bool has(std::string_view name) const { return file_.has(key(name)); }

  // A number, or a list with one per layer, which must then all be equal.
  Result<int64_t> integer(std::string_view name, IntRange range) const {
    const std::string full = key(name);
    if (file_.array_length(full) == 0) return file_.get_int(full, range.min, range.max);
    ASSIGN_OR_RETURN(const std::vector<int64_t> values, file_.get_ints(full));
    for (int64_t value : values) {
      if (value < range.min || value > range.max) {
        return data_loss(file_.path() + ": metadata key " + printable(full) + " holds " + std::to_string(value) +
                         ", expected " + std::to_string(range.min) + " to " + std::to_string(range.max));
      }
      if (value != values[0]) {
        return unsupported(file_.path() + ": metadata key " + printable(full) +
                           " differs from layer to layer, which no supported model does");
      }
    }
    return values[0];
  }
  Result<int64_t> integer_or(std::string_view name, int64_t fallback, IntRange range) const {
    if (!has(name)) return fallback;
    return integer(name, range);
  }
  Result<double> number_or(std::string_view name, double fallback, FloatRange range) const {
    ASSIGN_OR_RETURN(const double value, file_.get_float_or(key(name), fallback));
    if (!(value >= range.min && value <= range.max)) {
      return data_loss(file_.path() + ": metadata key " + printable(key(name)) + " is " + std::to_string(value) +
                       ", expected " + std::to_string(range.min) + " to " + std::to_string(range.max));
    }
    return value;
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

Result<std::vector<float>> read_divisors(const GgufFile& file, const char* name, const RopeConfig& rope) {
  const TensorInfo* divisors = file.find(name);
  if (divisors == nullptr) return data_loss(file.path() + ": the tensor " + name + " is missing");
  if (divisors->type != WeightType::kF32 || divisors->num_elements() > static_cast<uint64_t>(kHeadDim.max)) {
    return data_loss(file.path() + ": tensor " + name + " is " + TensorSource::describe(*divisors) + ", expected " +
                     std::to_string(rope.rotary_dim / 2) + " F32 numbers");
  }
  std::vector<float> values(static_cast<size_t>(divisors->num_elements()));
  RETURN_IF_ERROR(file.read(*divisors, std::as_writable_bytes(std::span(values))));
  return values;
}

Status read_rope(const GgufFile& file, const GgufFacts& facts, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  ASSIGN_OR_RETURN(rope.theta, facts.number_or("rope.freq_base", 10000.0, kRopeTheta));
  ASSIGN_OR_RETURN(rope.rotary_dim, facts.integer_or("rope.dimension_count", config.head_dim, {2, kHeadDim.max}));
  ASSIGN_OR_RETURN(const std::string kind, file.get_string_or(facts.key("rope.scaling.type"), "none"));
  const std::optional<RopeScaling> scaling = rope_scaling_of_name(kind);
  if (!scaling) {
    return unsupported(file.path() + ": metadata key " + printable(facts.key("rope.scaling.type")) + " is " +
                       printable(kind) + " (known: none, linear, yarn, longrope)");
  }
  rope.scaling = *scaling;
  ASSIGN_OR_RETURN(rope.factor, facts.number_or("rope.scaling.factor", 1.0, kRopeFactor));
  if (!facts.has("rope.scaling.type") && facts.has("rope.scale_linear")) {  // the key of old files
    ASSIGN_OR_RETURN(rope.factor, facts.number_or("rope.scale_linear", 1.0, kRopeFactor));
    if (rope.factor != 1.0) rope.scaling = RopeScaling::kLinear;
  }
  ASSIGN_OR_RETURN(rope.original_max_position_embeddings,
                   facts.integer_or("rope.scaling.original_context_length", 0, {0, kMaxPositions.max}));
  ASSIGN_OR_RETURN(rope.beta_fast, facts.number_or("rope.scaling.yarn_beta_fast", rope.beta_fast, {0.0, 1e6}));
  ASSIGN_OR_RETURN(rope.beta_slow, facts.number_or("rope.scaling.yarn_beta_slow", rope.beta_slow, {0.0, 1e6}));
  if (facts.has("rope.scaling.attn_factor")) {
    ASSIGN_OR_RETURN(rope.attention_factor, facts.number_or("rope.scaling.attn_factor", 1.0, {0.0, 1e6}));
  }

  if (config.architecture == "Gemma3ForCausalLM") {
    config.sliding_rope = RopeConfig();
    config.sliding_rope->rotary_dim = rope.rotary_dim;
    ASSIGN_OR_RETURN(config.sliding_rope->theta, facts.number_or("rope.freq_base_swa", 10000.0, kRopeTheta));
  }
  if (rope.scaling == RopeScaling::kLongRope || file.find("rope_factors_long.weight")) {
    rope.scaling = RopeScaling::kLongRope;
    for (const auto& [name, factors] : {std::pair{"rope_factors_short.weight", &rope.short_factor},
                                        std::pair{"rope_factors_long.weight", &rope.long_factor}}) {
      ASSIGN_OR_RETURN(const std::vector<float> values, read_divisors(file, name, rope));
      factors->assign(values.begin(), values.end());
    }
    return ok_status();
  }

  const TensorInfo* divisors = file.find("rope_freqs.weight");
  if (!divisors) return ok_status();
  ASSIGN_OR_RETURN(rope.frequency_divisors, read_divisors(file, "rope_freqs.weight", rope));
  rope.scaling = RopeScaling::kLlama3;
  return ok_status();
}

// The rows of the embedding decide, for they are the width of the logits; then the tokens, then the stated
// number.
Status read_vocab_size(const GgufFile& file, const GgufFacts& facts, ModelConfig& config) {
  const uint64_t num_tokens = file.array_length("tokenizer.ggml.tokens");
  ASSIGN_OR_RETURN(const int64_t stated, facts.integer_or("vocab_size", 0, kVocabSize));
  if (const TensorInfo* embedding = file.find("token_embd.weight")) {
    if (embedding->shape.size() != 2 || embedding->shape[1] != config.hidden_size) {
      return data_loss(file.path() + ": tensor token_embd.weight is " + TensorSource::describe(*embedding) +
                       ", expected [vocabulary, " + std::to_string(config.hidden_size) + "] as " +
                       printable(facts.key("embedding_length")) + " says");
    }
    config.vocab_size = embedding->shape[0];
    if (num_tokens > static_cast<uint64_t>(config.vocab_size)) {
      return data_loss(file.path() + ": tokenizer.ggml.tokens has " + std::to_string(num_tokens) +
                       " tokens, token_embd.weight only " + std::to_string(config.vocab_size) + " rows");
    }
  } else if (num_tokens > 0) {
    if (num_tokens > static_cast<uint64_t>(kVocabSize.max)) {
      return data_loss(file.path() + ": tokenizer.ggml.tokens has " + std::to_string(num_tokens) + " tokens");
    }
    config.vocab_size = static_cast<int64_t>(num_tokens);
  } else if (stated > 0) {
    config.vocab_size = stated;
  } else {
    return data_loss(file.path() +
                     ": the size of the vocabulary is not stated: tensor token_embd.weight and metadata "
                     "keys 'tokenizer.ggml.tokens' and " +
                     printable(facts.key("vocab_size")) + " are missing");
  }
  return ok_status();
}

Status read_token_ids(const GgufFile& file, ModelConfig& config) {
  if (file.has("tokenizer.ggml.bos_token_id")) {
    ASSIGN_OR_RETURN(const int64_t bos, file.get_int("tokenizer.ggml.bos_token_id", 0, config.vocab_size - 1));
    config.bos_token_id = static_cast<int32_t>(bos);
  }
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    if (!file.has(key)) continue;
    ASSIGN_OR_RETURN(const int64_t eos, file.get_int(key, 0, config.vocab_size - 1));
    const auto id = static_cast<int32_t>(eos);
    std::vector<int32_t>& ids = config.eos_token_ids;
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  return ok_status();
}

// Newer files list the layers that have the window, or say that every n-th has none; of others the architecture tells.
Status read_window(const GgufFile& file, const GgufFacts& facts, ModelConfig& config) {
  if (!facts.has("attention.sliding_window")) return ok_status();
  ASSIGN_OR_RETURN(const int64_t window, facts.integer("attention.sliding_window", {0, kMaxPositions.max}));
  if (window == 0) return ok_status();
  std::vector<bool> slides(static_cast<size_t>(config.num_hidden_layers), true);
  const char* const pattern_key = "attention.sliding_window_pattern";
  if (const std::string full = facts.key(pattern_key); file.array_length(full) > 0) {
    ASSIGN_OR_RETURN(const std::vector<int64_t> listed, file.get_ints(full));
    if (listed.size() != slides.size()) {
      return data_loss(file.path() + ": metadata key " + printable(full) + " lists " + std::to_string(listed.size()) +
                       " layers, expected " + std::to_string(slides.size()));
    }
    for (size_t i = 0; i < slides.size(); ++i) slides[i] = listed[i] != 0;
  } else {
    ASSIGN_OR_RETURN(
        const int64_t pattern,
        facts.integer_or(pattern_key, window_pattern(config.architecture).value_or(0), {0, kNumLayers.max}));
    if (pattern > 0) set_window_pattern(slides, pattern);
  }
  set_window(config, window, std::move(slides));
  return ok_status();
}

Status read_multipliers(const GgufFacts& facts, ModelConfig& config) {
  const auto or_one = [&](const char* name) { return facts.number_or(name, 1.0, kMultiplier); };
  if (config.architecture == "GraniteForCausalLM") {
    ASSIGN_OR_RETURN(config.attention_scale, or_one("attention.scale"));
    ASSIGN_OR_RETURN(config.embedding_multiplier, or_one("embedding_scale"));
    ASSIGN_OR_RETURN(config.residual_multiplier, or_one("residual_scale"));
    ASSIGN_OR_RETURN(config.logits_scaling, or_one("logit_scale"));
  }
  if (config.family == ModelFamily::kGemma) {
    // The largest of each generation scales by the width of a query head as hidden_size has it; files do not say.
    const bool largest = config.num_hidden_layers == (config.architecture == "Gemma2ForCausalLM" ? 46 : 62);
    const int64_t scalar = largest ? config.hidden_size / config.num_attention_heads : config.head_dim;
    config.attention_scale = 1 / std::sqrt(static_cast<double>(scalar));
    const FloatRange cap = {0, kMultiplier.max};
    ASSIGN_OR_RETURN(config.attention_logit_softcap, facts.number_or("attn_logit_softcapping", 0.0, cap));
    ASSIGN_OR_RETURN(config.final_logit_softcap, facts.number_or("final_logit_softcapping", 0.0, cap));
  }
  return ok_status();
}

Status read_facts(const GgufFile& file, const GgufFacts& facts, ModelConfig& config) {
  ASSIGN_OR_RETURN(config.hidden_size, facts.integer("embedding_length", kHiddenSize));
  ASSIGN_OR_RETURN(config.intermediate_size, facts.integer("feed_forward_length", kIntermediateSize));
  ASSIGN_OR_RETURN(config.num_hidden_layers, facts.integer("block_count", kNumLayers));
  ASSIGN_OR_RETURN(config.num_attention_heads, facts.integer("attention.head_count", kNumHeads));
  ASSIGN_OR_RETURN(config.num_key_value_heads,
                   facts.integer_or("attention.head_count_kv", config.num_attention_heads, kNumHeads));
  if (facts.has("attention.key_length")) {
    ASSIGN_OR_RETURN(config.head_dim, facts.integer("attention.key_length", kHeadDim));
  } else {
    if (config.hidden_size % config.num_attention_heads != 0) {
      return data_loss(file.path() + ": metadata key " + printable(facts.key("embedding_length")) + " is " +
                       std::to_string(config.hidden_size) + ", which " + printable(facts.key("attention.head_count")) +
                       " " + std::to_string(config.num_attention_heads) + " does not divide");
    }
    config.head_dim = config.hidden_size / config.num_attention_heads;
  }
  ASSIGN_OR_RETURN(const int64_t value_dim, facts.integer_or("attention.value_length", config.head_dim, kHeadDim));
  if (value_dim != config.head_dim) {
    return unsupported(file.path() + ": metadata key " + printable(facts.key("attention.value_length")) + " is " +
                       std::to_string(value_dim) + ", keys have " + std::to_string(config.head_dim) +
                       "; heads of different widths are not supported");
  }
  ASSIGN_OR_RETURN(config.max_position_embeddings, facts.integer("context_length", kMaxPositions));
  ASSIGN_OR_RETURN(const double eps, file.get_float(facts.key("attention.layer_norm_rms_epsilon")));
  config.rms_norm_eps = eps;
  ASSIGN_OR_RETURN(config.num_experts, facts.integer_or("expert_count", 0, kNumExperts));
  ASSIGN_OR_RETURN(config.num_experts_per_token, facts.integer_or("expert_used_count", 0, kNumExperts));
  config.tie_word_embeddings = file.find("token_embd.weight") && !file.find("output.weight");
  config.qkv_bias = file.find("blk.0.attn_q.bias") != nullptr;
  config.attention_output_bias = file.find("blk.0.attn_output.bias") != nullptr;
  set_facts_of_architecture(config, true);
  config.mlp_bias = file.find("blk.0.ffn_gate.bias") || file.find("blk.0.ffn_up.bias");
  RETURN_IF_ERROR(read_window(file, facts, config));
  RETURN_IF_ERROR(read_multipliers(facts, config));
  RETURN_IF_ERROR(read_vocab_size(file, facts, config));
  RETURN_IF_ERROR(read_token_ids(file, config));
  return read_rope(file, facts, config);
}

}  // namespace

Result<ModelConfig> model_config_from_gguf(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string architecture, file.get_string("general.architecture"));
  ModelConfig config;
  config.source = file.path();
  config.architecture = canonical_architecture(architecture).value_or(architecture);
  config.family = family_of(config.architecture);
  Status status = read_facts(file, GgufFacts(file, architecture), config);
  if (status.ok()) status = validate(config);
  if (!status.ok()) return config.family == ModelFamily::kUnknown ? supported(config) : status;
  return config;
}

}  // namespace sextant
