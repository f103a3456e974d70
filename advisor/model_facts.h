// ModelFacts: what a model's configuration says, wide enough for mixtures of experts, latent attention and hybrids, and the
// bytes and FLOPs that follow. For the shapes that engine/model/memory_model knows, the sums are its sums (a test holds them
// equal); the rest are the same formulas with the model's extra terms. Pure; any thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "advisor/csv.h"
#include "engine/base/result.h"
#include "engine/model/model_config.h"

namespace sextant::advisor {

struct ModelFacts {
  std::string model_id;
  std::string architecture;
  std::string source;       // where the facts were read
  std::string torch_dtype;  // empty when the configuration does not say
  std::string quantization;
  double hidden_size = 0;
  double num_hidden_layers = 0;
  double num_attention_heads = 0;
  double num_key_value_heads = 0;
  double head_dim = 0;
  double intermediate_size = 0;
  double vocab_size = 0;
  double max_position_embeddings = 0;
  bool tie_word_embeddings = false;
  double num_experts = 0;  // 0: dense
  double num_experts_per_token = 0;
  double moe_intermediate_size = 0;
  double shared_intermediate_size = 0;  // of the experts that every token passes, together
  double num_dense_layers = 0;          // leading layers without experts
  double q_lora_rank = 0;
  double kv_lora_rank = 0;  // 0: no latent attention
  double qk_nope_head_dim = 0;
  double qk_rope_head_dim = 0;
  double v_head_dim = 0;
  std::optional<double> sliding_window;
  double full_attention_share = 1;  // of the layers that keep a cache of the whole context

  bool moe() const { return num_experts > 0; }
  bool latent() const { return kv_lora_rank > 0; }
};

// `visit(name, field)` of every fact that is a number and that a document of the knowledge base holds; T: ModelFacts, const or not.
template <typename Visitor, typename T>
void visit_numbers(Visitor&& visit, T& f) {
  visit("hidden_size", f.hidden_size);
  visit("num_hidden_layers", f.num_hidden_layers);
  visit("num_attention_heads", f.num_attention_heads);
  visit("num_key_value_heads", f.num_key_value_heads);
  visit("head_dim", f.head_dim);
  visit("intermediate_size", f.intermediate_size);
  visit("vocab_size", f.vocab_size);
  visit("max_position_embeddings", f.max_position_embeddings);
  visit("num_experts", f.num_experts);
  visit("num_experts_per_token", f.num_experts_per_token);
  visit("moe_intermediate_size", f.moe_intermediate_size);
  visit("shared_intermediate_size", f.shared_intermediate_size);
  visit("num_dense_layers", f.num_dense_layers);
  visit("q_lora_rank", f.q_lora_rank);
  visit("kv_lora_rank", f.kv_lora_rank);
  visit("qk_nope_head_dim", f.qk_nope_head_dim);
  visit("qk_rope_head_dim", f.qk_rope_head_dim);
  visit("v_head_dim", f.v_head_dim);
}

// Parameter counts by what a step does with them.
struct FactCounts {
  double attention = 0;  // of all layers
  double shared = 0;     // feed-forward matrices that every token passes, routers included
  double experts = 0;    // of all experts of all layers
  double active_experts = 0;
  double head = 0;
  double embedding = 0;  // 0 when tied

  double dense() const { return attention + shared; }
  double stored() const { return dense() + experts + head + embedding; }
  double active() const { return dense() + active_experts + head; }
};
FactCounts count(const ModelFacts& facts);

// Elements that one token leaves in the cache, all layers.
double kv_elements_per_token(const ModelFacts& facts);
// Width of attention for one query over one key, one layer: the FLOPs of a causal prompt of s tokens are
// 2 * layers * full_attention_share * width * s^2.
double attention_width(const ModelFacts& facts);

// Bytes per parameter of a quantisation as measurements name it ("fp8", "nvfp4", "int4_wo", "bf16"...); nothing for one
// that is not known. Scales of blocks are counted.
std::optional<double> bytes_per_parameter(std::string_view quantization);

// The catalogue of configurations, by model id. Names of the same architecture facts ("deepseek-ai/DeepSeek-V3" and
// "...-R1", a fine-tune and its base) resolve to one configuration by `canonical_model`.
class FactsTable {
 public:
  static Result<FactsTable> from_csv(const CsvTable& table);
  // A Hugging Face config.json, also of architectures that the engine does not run; facts of a nested text_config count.
  static Result<ModelFacts> from_config_json(std::string_view json, const std::string& model_id,
                                             const std::string& source);
  // Facts of the engine's own reader, for GGUF files.
  static ModelFacts from_config(const std::string& model_id, const ModelConfig& config);

  // The model itself, or the one whose configuration it shares; nullptr when neither is known.
  const ModelFacts* find(std::string_view model_id) const;
  void put(ModelFacts facts);
  const std::map<std::string, ModelFacts, std::less<>>& all() const { return models_; }
  std::vector<std::string> names() const;

 private:
  std::map<std::string, ModelFacts, std::less<>> models_;
};

}  // namespace sextant::advisor
