// Facts from a Hugging Face config.json, whatever the architecture: names of fields as transformers writes them.
#include <cmath>

#include <nlohmann/json.hpp>

#include "advisor/model_facts.h"

namespace sextant::advisor {

Result<ModelFacts> FactsTable::from_config_json(std::string_view text, const std::string& model_id,
                                                const std::string& source) {
  const nlohmann::json whole = nlohmann::json::parse(text, nullptr, false);
  if (!whole.is_object()) return invalid_argument(source + ": not a JSON object", "config");
  const nlohmann::json& json =
      whole.contains("text_config") && whole["text_config"].is_object() ? whole["text_config"] : whole;
  ModelFacts f;
  f.model_id = model_id;
  f.source = source;
  for (const nlohmann::json* level : {&whole, &json}) {
    if (f.architecture.empty() && level->contains("architectures") && (*level)["architectures"].is_array() &&
        !(*level)["architectures"].empty() && (*level)["architectures"][0].is_string())
      f.architecture = (*level)["architectures"][0].get<std::string>();
    for (const char* name : {"torch_dtype", "dtype"})
      if (f.torch_dtype.empty() && level->contains(name) && (*level)[name].is_string())
        f.torch_dtype = (*level)[name].get<std::string>();
  }
  if (f.architecture.empty()) return invalid_argument(source + ": no architectures", "architectures");
  if (whole.contains("quantization_config") && whole["quantization_config"].is_object())
    f.quantization = whole["quantization_config"].value("quant_method", nlohmann::json("")).dump();
  if (f.quantization.size() >= 2 && f.quantization.front() == '"')
    f.quantization = f.quantization.substr(1, f.quantization.size() - 2);
  f.tie_word_embeddings = json.value("tie_word_embeddings", nlohmann::json(false)) == true;
  double shared_experts = 0;
  double shared_size = 0;
  double window = 0;
  struct Fact {
    std::initializer_list<const char*> names;
    double* target;
    double high;
  };
  const Fact facts[] = {{{"hidden_size", "n_embd", "d_model"}, &f.hidden_size, 1 << 20},
                        {{"num_hidden_layers", "n_layer"}, &f.num_hidden_layers, 10000},
                        {{"num_attention_heads", "n_head"}, &f.num_attention_heads, 1 << 16},
                        {{"num_key_value_heads"}, &f.num_key_value_heads, 1 << 16},
                        {{"head_dim"}, &f.head_dim, 1 << 16},
                        {{"intermediate_size", "n_inner"}, &f.intermediate_size, 1 << 24},
                        {{"vocab_size"}, &f.vocab_size, 1 << 26},
                        {{"max_position_embeddings", "n_positions"}, &f.max_position_embeddings, 1e9},
                        {{"num_local_experts", "num_experts", "n_routed_experts"}, &f.num_experts, 1 << 16},
                        {{"num_experts_per_tok", "num_experts_per_token"}, &f.num_experts_per_token, 1 << 16},
                        {{"moe_intermediate_size"}, &f.moe_intermediate_size, 1 << 24},
                        {{"n_shared_experts"}, &shared_experts, 1 << 10},
                        {{"shared_expert_intermediate_size"}, &shared_size, 1 << 24},
                        {{"first_k_dense_replace"}, &f.num_dense_layers, 10000},
                        {{"q_lora_rank"}, &f.q_lora_rank, 1 << 20},
                        {{"kv_lora_rank"}, &f.kv_lora_rank, 1 << 20},
                        {{"qk_nope_head_dim"}, &f.qk_nope_head_dim, 1 << 16},
                        {{"qk_rope_head_dim"}, &f.qk_rope_head_dim, 1 << 16},
                        {{"v_head_dim"}, &f.v_head_dim, 1 << 16},
                        {{"sliding_window"}, &window, 1e9}};
  for (const Fact& fact : facts) {
    for (const char* name : fact.names) {
      const auto found = json.find(name);
      if (found == json.end() || found->is_null()) continue;
      if (!found->is_number() || !(found->get<double>() >= 0 && found->get<double>() <= fact.high) ||
          found->get<double>() != std::floor(found->get<double>()))
        return invalid_argument(
            source + ": " + name + " must be a whole number from 0 to " + std::to_string(std::llround(fact.high)),
            name);
      *fact.target = found->get<double>();
      break;
    }
  }
  for (const Fact& fact : facts) {
    const std::string name = *fact.names.begin();
    const bool needed =
        name == "hidden_size" || name == "num_hidden_layers" || name == "num_attention_heads" || name == "vocab_size";
    if (needed && *fact.target == 0) return invalid_argument(source + ": no " + name, name);
  }
  if (f.num_key_value_heads == 0) f.num_key_value_heads = f.num_attention_heads;
  if (f.head_dim == 0) f.head_dim = std::floor(f.hidden_size / f.num_attention_heads);
  if (f.moe() && f.moe_intermediate_size == 0) f.moe_intermediate_size = f.intermediate_size;
  if (f.num_dense_layers > f.num_hidden_layers || f.num_experts_per_token > f.num_experts)
    return invalid_argument(source + ": more dense layers than layers, or more experts per token than experts",
                            "num_experts_per_tok");
  if (f.moe_intermediate_size == 0 && f.intermediate_size == 0)
    return invalid_argument(source + ": no intermediate_size", "intermediate_size");
  f.shared_intermediate_size = shared_experts * f.moe_intermediate_size + shared_size;
  if (window > 0) f.sliding_window = window;
  // Of a hybrid the configuration lists each layer's kind; those with a cache of the whole context count.
  if (const auto kinds = json.find("layer_types"); kinds != json.end() && kinds->is_array() && !kinds->empty()) {
    double full = 0;
    for (const auto& kind : *kinds) full += kind == "full_attention" ? 1 : 0;
    if (full > 0) f.full_attention_share = full / static_cast<double>(kinds->size());
  }
  return f;
}

}  // namespace sextant::advisor
