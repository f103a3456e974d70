// ModelConfig from config.json: Hugging Face's keys, in the spelling of transformers 4 (rope_theta,
// rope_scaling, torch_dtype) and 5 (rope_parameters, dtype). An absent or null key has the default of
// transformers' LlamaConfig.

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/format/json_file.h"
#include "engine/format/printable.h"
#include "engine/model/fp8_checkpoint.h"
#include "engine/model/model_config.h"
#include "engine/model/model_config_limits.h"

namespace sextant {
namespace {

using Json = nlohmann::json;

// Reads keys of one object; the first error is kept and later reads then do nothing, so that facts can be
// listed plainly.
class FactReader {
 public:
  FactReader(const Json& object, std::string source, std::string prefix)
      : object_(object), source_(std::move(source)), prefix_(std::move(prefix)) {}

  const Status& status() const { return status_; }

  // Even as null.
  bool mentions(std::string_view key) const { return object_.contains(std::string(key)); }

  void fail(std::string_view key, const std::string& what) {
    if (status_.ok()) status_ = data_loss(source_ + ": " + prefix_ + std::string(key) + " " + what);
  }

  // Null when the key is absent or null.
  const Json* find(std::string_view key) const {
    const auto it = object_.find(std::string(key));
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  const Json* find_first(std::initializer_list<std::string_view> keys) const {
    for (std::string_view key : keys) {
      if (const Json* value = find(key)) return value;
    }
    return nullptr;
  }

  // False when absent or wrong.
  bool read(std::string_view key, int64_t& out, IntRange range) {
    const Json* value = find(key);
    if (!value || !status_.ok()) return false;
    const bool in_range =
        value->is_number_unsigned()
            ? value->get<uint64_t>() <= static_cast<uint64_t>(range.max) &&
                  static_cast<int64_t>(value->get<uint64_t>()) >= range.min
            : value->is_number_integer() && value->get<int64_t>() >= range.min && value->get<int64_t>() <= range.max;
    if (!in_range) {
      fail(key, "is " + shown(*value) + ", expected an integer from " + std::to_string(range.min) + " to " +
                    std::to_string(range.max));
      return false;
    }
    out = value->get<int64_t>();
    return true;
  }
  void require(std::string_view key, int64_t& out, IntRange range) {
    if (!find(key)) fail(key, "is missing");
    read(key, out, range);
  }
  bool read(std::string_view key, double& out, double min, double max) {
    const Json* value = find(key);
    if (!value || !status_.ok()) return false;
    if (!value->is_number() || !(value->get<double>() >= min && value->get<double>() <= max)) {
      fail(key, "is " + shown(*value) + ", expected a number from " + shown(Json(min)) + " to " + shown(Json(max)));
      return false;
    }
    out = value->get<double>();
    return true;
  }
  bool read(std::string_view key, bool& out) {
    const Json* value = find(key);
    if (!value || !status_.ok()) return false;
    if (!value->is_boolean()) {
      fail(key, "is " + shown(*value) + ", expected true or false");
      return false;
    }
    out = value->get<bool>();
    return true;
  }
  bool read(std::string_view key, std::string& out) {
    const Json* value = find(key);
    if (!value || !status_.ok()) return false;
    if (!value->is_string()) {
      fail(key, "is " + shown(*value) + ", expected a string");
      return false;
    }
    out = value->get<std::string>();
    return true;
  }
  void read(std::string_view key, std::vector<double>& out, size_t max_size) {
    const Json* value = find(key);
    if (!value || !status_.ok()) return;
    if (!value->is_array() || value->size() > max_size)
      return fail(key, "is no list of at most " + std::to_string(max_size));
    for (const Json& element : *value) {
      if (!element.is_number() || !std::isfinite(element.get<double>())) return fail(key, "holds " + shown(element));
      out.push_back(element.get<double>());
    }
  }
  // One id or a list of ids; ids already in `out` are not added again.
  void read_token_ids(std::string_view key, std::vector<int32_t>& out) {
    const Json* value = find(key);
    if (!value || !status_.ok()) return;
    const Json list = value->is_array() ? *value : Json::array({*value});
    if (list.size() > kMaxTokenIds) return fail(key, "lists more than " + std::to_string(kMaxTokenIds) + " ids");
    for (const Json& element : list) {
      if (!element.is_number_unsigned() || element.get<uint64_t>() > static_cast<uint64_t>(kVocabSize.max)) {
        return fail(key, "is " + shown(element) + ", expected token ids");
      }
      const auto id = static_cast<int32_t>(element.get<uint64_t>());
      if (std::find(out.begin(), out.end(), id) == out.end()) out.push_back(id);
    }
  }

  static std::string shown(const Json& value) { return printable(value.dump(), 60); }

 private:
  static constexpr size_t kMaxTokenIds = 256;

  const Json& object_;
  std::string source_;
  std::string prefix_;
  Status status_;
};

Status read_rope_scaling(const Json& config_json, const Json& object, std::string_view key, const ModelConfig& config,
                         RopeConfig& rope) {
  const std::string name(key);
  if (!object.is_object()) return data_loss(config.source + ": " + name + " is no object");
  FactReader facts(object, config.source, name + ".");
  facts.read("rope_theta", rope.theta, kRopeTheta.min, kRopeTheta.max);
  std::string kind = "default";
  if (!facts.read("rope_type", kind)) facts.read("type", kind);
  RETURN_IF_ERROR(facts.status());
  const std::optional<RopeScaling> scaling = rope_scaling_of_name(kind);
  if (!scaling) {
    return unsupported(config.source + ": " + name + ".rope_type " + printable(kind) +
                       " is not known (known: default, linear, dynamic, llama3, yarn, longrope)");
  }
  rope.scaling = *scaling;
  double partial = 1.0;
  if (facts.read("partial_rotary_factor", partial, 0.01, 1.0)) {
    rope.rotary_dim = static_cast<int64_t>(static_cast<double>(config.head_dim) * partial);
  }
  if (rope.scaling == RopeScaling::kNone) return facts.status();
  const bool has_factor = facts.read("factor", rope.factor, kRopeFactor.min, kRopeFactor.max);
  if (!has_factor && rope.scaling != RopeScaling::kLongRope) facts.fail("factor", "is missing");
  facts.read("low_freq_factor", rope.low_freq_factor, kRopeFactor.min, kRopeFactor.max);
  facts.read("high_freq_factor", rope.high_freq_factor, kRopeFactor.min, kRopeFactor.max);
  facts.read("beta_fast", rope.beta_fast, 0.0, kRopeFactor.max);
  facts.read("beta_slow", rope.beta_slow, 0.0, kRopeFactor.max);
  double attention_factor = 0;
  if (facts.read("attention_factor", attention_factor, 0.0, kRopeFactor.max)) rope.attention_factor = attention_factor;
  const bool has_original =
      facts.read("original_max_position_embeddings", rope.original_max_position_embeddings, kMaxPositions);
  if (rope.scaling == RopeScaling::kLlama3 && !has_original) {
    facts.fail("original_max_position_embeddings", "is missing");
  }
  if (rope.original_max_position_embeddings == 0 && rope.scaling == RopeScaling::kLongRope) {
    // Phi-3's stands outside.
    FactReader outer(config_json, config.source, "");
    outer.read("original_max_position_embeddings", rope.original_max_position_embeddings, kMaxPositions);
    RETURN_IF_ERROR(outer.status());
  }
  facts.read("short_factor", rope.short_factor, kHeadDim.max);
  facts.read("long_factor", rope.long_factor, kHeadDim.max);
  return facts.status();
}

Status read_rope(const Json& object, FactReader& facts, ModelConfig& config) {
  config.rope.rotary_dim = config.head_dim;
  double partial = 1.0;
  if (facts.read("partial_rotary_factor", partial, 0.01, 1.0)) {
    config.rope.rotary_dim = static_cast<int64_t>(static_cast<double>(config.head_dim) * partial);
  }
  facts.read("rope_theta", config.rope.theta, kRopeTheta.min, kRopeTheta.max);
  RETURN_IF_ERROR(facts.status());
  double sliding_theta = 0;  // Gemma 3's, in the spelling of transformers 4: scaling is the other layers' alone
  if (facts.read("rope_local_base_freq", sliding_theta, kRopeTheta.min, kRopeTheta.max)) {
    config.sliding_rope = config.rope;
    config.sliding_rope->theta = sliding_theta;
  }
  RETURN_IF_ERROR(facts.status());
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const Json* found = facts.find(key);
    if (found == nullptr) continue;
    if (!found->is_object() || !(found->contains("full_attention") || found->contains("sliding_attention"))) {
      return read_rope_scaling(object, *found, key, config, config.rope);
    }
    // One for each type of layer.
    config.sliding_rope = config.rope;
    for (const auto& [type, rope] :
         {std::pair{"full_attention", &config.rope}, std::pair{"sliding_attention", &*config.sliding_rope}}) {
      const std::string name = std::string(key) + "." + type;
      if (!found->contains(type)) return data_loss(config.source + ": " + name + " is missing");
      RETURN_IF_ERROR(read_rope_scaling(object, (*found)[type], name, config, *rope));
    }
    return ok_status();
  }
  return ok_status();
}

// Which layers have the window: as listed, else by the rule of the architecture.
void read_attention_window(FactReader& facts, ModelConfig& config) {
  int64_t window = 0;
  bool used = true;
  const bool says_whether = facts.read("use_sliding_window", used);
  if (config.family == ModelFamily::kGemma && !facts.mentions("sliding_window")) window = 4096;
  if ((!facts.read("sliding_window", window, kMaxPositions) && window == 0) || !used) return;
  const auto num_layers = static_cast<size_t>(config.num_hidden_layers);
  std::vector<bool> slides(num_layers, true);
  int64_t num_full_first = 0, pattern = 0;
  if (const Json* types = facts.find("layer_types")) {
    if (!types->is_array() || types->size() != num_layers) {
      return facts.fail("layer_types", "is no list of num_hidden_layers types");
    }
    for (size_t i = 0; i < num_layers; ++i) {
      if ((*types)[i] != "sliding_attention" && (*types)[i] != "full_attention") {
        return facts.fail("layer_types",
                          "holds " + FactReader::shown((*types)[i]) + " (known: full_attention, sliding_attention)");
      }
      slides[i] = (*types)[i] == "sliding_attention";
    }
  } else if (says_whether && facts.read("max_window_layers", num_full_first, {0, kNumLayers.max})) {
    for (size_t i = 0; i < num_layers; ++i) slides[i] = static_cast<int64_t>(i) >= num_full_first;  // Qwen2's
  } else if (const std::optional<int64_t> rule = window_pattern(config.architecture)) {
    pattern = *rule;
    if (!facts.read("sliding_window_pattern", pattern, {1, kNumLayers.max}))
      facts.read("_sliding_window_pattern", pattern, {1, kNumLayers.max});
    set_window_pattern(slides, pattern);
  }
  set_window(config, window, std::move(slides));
}

void read_multipliers(FactReader& facts, ModelConfig& config) {
  const auto read = [&](const char* key, double& value) { facts.read(key, value, kMultiplier.min, kMultiplier.max); };
  if (config.architecture == "GraniteForCausalLM") {
    double scale = 1;
    read("attention_multiplier", scale);
    config.attention_scale = scale;
    read("embedding_multiplier", config.embedding_multiplier);
    read("residual_multiplier", config.residual_multiplier);
    read("logits_scaling", config.logits_scaling);
  }
  if (config.family == ModelFamily::kGemma) {
    double scalar = 256;
    read("query_pre_attn_scalar", scalar);
    config.attention_scale = 1 / std::sqrt(scalar);
    // Gemma 2's, where its configuration does not say; null says none.
    const bool has_caps = config.architecture == "Gemma2ForCausalLM";
    if (has_caps && !facts.mentions("attn_logit_softcapping")) config.attention_logit_softcap = 50;
    if (has_caps && !facts.mentions("final_logit_softcapping")) config.final_logit_softcap = 30;
    facts.read("attn_logit_softcapping", config.attention_logit_softcap, 0, kMultiplier.max);
    facts.read("final_logit_softcapping", config.final_logit_softcap, 0, kMultiplier.max);
  }
}

Status read_facts(const Json& object, ModelConfig& config) {
  FactReader facts(object, config.source, "");
  facts.require("vocab_size", config.vocab_size, kVocabSize);
  facts.require("hidden_size", config.hidden_size, kHiddenSize);
  facts.require("intermediate_size", config.intermediate_size, kIntermediateSize);
  facts.require("num_hidden_layers", config.num_hidden_layers, kNumLayers);
  facts.require("num_attention_heads", config.num_attention_heads, kNumHeads);
  config.num_key_value_heads = config.num_attention_heads;
  facts.read("num_key_value_heads", config.num_key_value_heads, kNumHeads);
  if (config.family == ModelFamily::kGemma) config.head_dim = 256;
  if (!facts.read("head_dim", config.head_dim, kHeadDim) && config.head_dim == 0 && facts.status().ok()) {
    if (config.hidden_size % config.num_attention_heads != 0) {
      facts.fail("hidden_size", "is " + std::to_string(config.hidden_size) + ", which num_attention_heads " +
                                    std::to_string(config.num_attention_heads) +
                                    " does not divide, and head_dim is missing");
    } else {
      config.head_dim = config.hidden_size / config.num_attention_heads;
    }
  }
  config.max_position_embeddings = 2048;
  facts.read("max_position_embeddings", config.max_position_embeddings, kMaxPositions);
  config.rms_norm_eps = 1e-6;
  facts.read("rms_norm_eps", config.rms_norm_eps, kNormEps.min, kNormEps.max);
  config.tie_word_embeddings = config.family == ModelFamily::kGemma;  // what its configuration need not say
  facts.read("tie_word_embeddings", config.tie_word_embeddings);
  facts.read("attention_bias", config.qkv_bias);
  config.attention_output_bias = config.qkv_bias;
  set_facts_of_architecture(config, false);
  facts.read("mlp_bias", config.mlp_bias);
  if (!facts.read("hidden_act", config.hidden_act)) facts.read("hidden_activation", config.hidden_act);
  read_attention_window(facts, config);
  read_multipliers(facts, config);
  for (std::string_view key : {"num_local_experts", "num_experts", "n_routed_experts"}) {
    if (facts.read(key, config.num_experts, kNumExperts)) break;
  }
  facts.read("num_experts_per_tok", config.num_experts_per_token, kNumExperts);

  std::vector<int32_t> bos;
  facts.read_token_ids("bos_token_id", bos);
  if (!bos.empty()) config.bos_token_id = bos[0];
  facts.read_token_ids("eos_token_id", config.eos_token_ids);

  std::string dtype;
  if (facts.read("dtype", dtype) || facts.read("torch_dtype", dtype)) {
    const std::string_view name = dtype.starts_with("torch.") ? std::string_view(dtype).substr(6) : dtype;
    config.torch_dtype = parse_dtype(name);
    if (!config.torch_dtype && name != "auto")
      facts.fail("torch_dtype", "is " + printable(dtype) + ", which is not known");
  }
  if (const Json* quantization = facts.find("quantization_config")) {
    RETURN_IF_ERROR(read_quantization_config(*quantization, config));
  }
  RETURN_IF_ERROR(facts.status());
  return read_rope(object, facts, config);
}

}  // namespace

Result<ModelConfig> model_config_from_json(std::string_view text, std::string_view source) {
  JsonLimits limits;
  limits.max_bytes = size_t{4} << 20;
  limits.max_depth = 32;
  limits.max_values = 200'000;
  ASSIGN_OR_RETURN(const Json object, parse_json(text, source, limits));
  ModelConfig config;
  config.source = std::string(source);
  if (!object.is_object()) return data_loss(config.source + ": is no JSON object");

  FactReader facts(object, config.source, "");
  std::string model_type;
  facts.read("model_type", model_type);
  RETURN_IF_ERROR(facts.status());
  if (const Json* architectures = facts.find("architectures")) {
    if (!architectures->is_array() || architectures->empty() || !(*architectures)[0].is_string()) {
      return data_loss(config.source + ": architectures is " + FactReader::shown(*architectures) +
                       ", expected a list of names");
    }
    config.architecture = (*architectures)[0].get<std::string>();
  } else if (!model_type.empty()) {
    config.architecture = canonical_architecture(model_type).value_or(model_type);
  } else {
    return data_loss(config.source +
                     ": architectures and model_type are missing: is this a language model's config.json?");
  }
  config.family = family_of(config.architecture);

  Status status = read_facts(object, config);
  if (status.ok()) status = validate(config);
  if (!status.ok()) return config.family == ModelFamily::kUnknown ? supported(config) : status;
  return config;
}

Result<ModelConfig> model_config_from_directory(const HfDirectory& directory) {
  constexpr size_t kMaxConfigBytes = size_t{4} << 20;
  ASSIGN_OR_RETURN(const std::string text, read_text_file(directory.config_path(), kMaxConfigBytes));
  ASSIGN_OR_RETURN(ModelConfig config, model_config_from_json(text, directory.config_path()));
  const std::optional<std::string> generation_path = directory.generation_config_path();
  if (!generation_path) return config;
  JsonLimits limits;
  limits.max_bytes = kMaxConfigBytes;
  ASSIGN_OR_RETURN(const Json generation, read_json_file(*generation_path, limits));
  if (!generation.is_object()) return data_loss(*generation_path + ": is no JSON object");
  FactReader facts(generation, *generation_path, "");
  facts.read_token_ids("eos_token_id", config.eos_token_ids);
  std::vector<int32_t> bos;
  facts.read_token_ids("bos_token_id", bos);
  RETURN_IF_ERROR(facts.status());
  if (!config.bos_token_id && !bos.empty()) config.bos_token_id = bos[0];
  RETURN_IF_ERROR(validate(config));
  return config;
}

}  // namespace sextant
