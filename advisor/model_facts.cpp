#include "advisor/model_facts.h"

#include <algorithm>
#include <array>

namespace sextant::advisor {
namespace {

// Names under which models were measured whose configuration the catalogue holds under another. R1 and V3 are one
// architecture with one set of shapes; a quantised copy has its base's.
constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kSameConfiguration = {{
    {"meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B"},
    {"meta-llama/Llama-3.1-70B", "meta-llama/Meta-Llama-3.1-70B"},
    {"nvidia/Llama-3.1-8B-Instruct-FP8", "meta-llama/Meta-Llama-3.1-8B"},
    {"nvidia/Qwen3-32B-NVFP4", "Qwen/Qwen3-32B"},
    {"nvidia/DeepSeek-R1-NVFP4", "deepseek-ai/DeepSeek-R1"},
    {"nvidia/DeepSeek-V3.1-NVFP4", "deepseek-ai/DeepSeek-R1"},
    {"deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-R1"},
    {"zhipuai/GLM-5", "nvidia/GLM-5-NVFP4"},
}};

Result<double> optional_number(const CsvTable& table, size_t row, std::string_view name, double missing) {
  const int column = table.column(name);
  if (column < 0 || table.rows[row][static_cast<size_t>(column)].empty()) return missing;
  auto value = parse_number(table.rows[row][static_cast<size_t>(column)], name, 0, 1e9);
  if (!value.ok())
    return invalid_argument(table.source + ", line " + std::to_string(table.lines[row]) + ": " +
                            value.status().message());
  return value;
}

std::string text(const CsvTable& table, size_t row, std::string_view name) {
  const int column = table.column(name);
  return column < 0 ? std::string() : table.rows[row][static_cast<size_t>(column)];
}

// Share of layers with a cache of the whole context, where the architecture mixes kinds: Qwen3.5 has full attention in
// every fourth layer, gpt-oss in every second (the published configurations' layer_types).
double full_attention_share(std::string_view architecture) {
  if (architecture.starts_with("Qwen3_5")) return 0.25;
  if (architecture.starts_with("GptOss")) return 0.5;
  return 1.0;
}

}  // namespace

FactCounts count(const ModelFacts& f) {
  FactCounts counts;
  const double heads = f.num_attention_heads;
  double attention = 0;
  if (f.latent()) {
    const double query = f.qk_nope_head_dim + f.qk_rope_head_dim;
    attention = f.q_lora_rank > 0 ? f.hidden_size * f.q_lora_rank + f.q_lora_rank * heads * query
                                  : f.hidden_size * heads * query;
    attention += f.hidden_size * (f.kv_lora_rank + f.qk_rope_head_dim) +
                 f.kv_lora_rank * heads * (f.qk_nope_head_dim + f.v_head_dim) + heads * f.v_head_dim * f.hidden_size;
  } else {
    attention = 2 * f.hidden_size * heads * f.head_dim + 2 * f.hidden_size * f.num_key_value_heads * f.head_dim;
  }
  counts.attention = attention * f.num_hidden_layers;
  if (f.moe()) {
    const double moe_layers = f.num_hidden_layers - f.num_dense_layers;
    const double expert = 3 * f.hidden_size * f.moe_intermediate_size * moe_layers;
    counts.experts = expert * f.num_experts;
    counts.active_experts = expert * f.num_experts_per_token;
    counts.shared = (3 * f.hidden_size * f.shared_intermediate_size + f.hidden_size * f.num_experts) * moe_layers +
                    3 * f.hidden_size * f.intermediate_size * f.num_dense_layers;
  } else {
    counts.shared = 3 * f.hidden_size * f.intermediate_size * f.num_hidden_layers;
  }
  counts.head = f.vocab_size * f.hidden_size;
  counts.embedding = f.tie_word_embeddings ? 0 : counts.head;
  return counts;
}

double kv_elements_per_token(const ModelFacts& f) {
  const double layers = f.num_hidden_layers * f.full_attention_share;
  return f.latent() ? (f.kv_lora_rank + f.qk_rope_head_dim) * layers : 2 * f.num_key_value_heads * f.head_dim * layers;
}

double attention_width(const ModelFacts& f) {
  return f.latent() ? f.num_attention_heads * (f.qk_nope_head_dim + f.qk_rope_head_dim + f.v_head_dim) / 2
                    : f.num_attention_heads * f.head_dim;
}

std::optional<double> bytes_per_parameter(std::string_view q) {
  if (q == "fp32" || q == "float32") return 4;
  if (q == "bf16" || q == "fp16" || q == "bfloat16" || q == "float16") return 2;
  if (q == "fp8" || q == "fp8_block" || q == "int8") return 1;
  if (q == "q8_0") return 34.0 / 32;
  if (q == "nvfp4") return 0.5625;   // 4 bits and one byte of scale per 16
  if (q == "int4_wo") return 0.53;   // 4 bits and two bytes of scale per 64 to 128
  if (q == "mxfp4") return 0.53125;  // 4 bits and one byte of scale per 32
  if (q == "q4_1") return 20.0 / 32;
  if (q == "q4_0") return 18.0 / 32;
  if (q == "q4_k_m") return 0.6;
  return std::nullopt;
}

Result<FactsTable> FactsTable::from_csv(const CsvTable& table) {
  for (const char* needed :
       {"model_id", "architecture", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"})
    if (table.column(needed) < 0) return invalid_argument(table.source + ": no column " + needed);
  FactsTable facts_table;
  for (size_t i = 0; i < table.rows.size(); ++i) {
    ModelFacts f;
    f.model_id = text(table, i, "model_id");
    f.architecture = text(table, i, "architecture");
    f.source = text(table, i, "source");
    f.torch_dtype = text(table, i, "torch_dtype");
    f.quantization = text(table, i, "quant_method");
    f.tie_word_embeddings = text(table, i, "tie_word_embeddings") == "True";
    double window = 0;
    double shared_experts = 0;
    double shared_size = 0;
    Status bad;
    const auto read = [&](std::string_view column, double& target) {
      auto value = optional_number(table, i, column, 0);
      if (!value.ok() && bad.ok()) bad = value.status();
      if (value.ok()) target = *value;
    };
    // Columns are named as transformers names them.
    visit_numbers(
        [&](std::string_view name, double& fact) {
          if (name == "shared_intermediate_size") return;
          read(name == "num_experts_per_token" ? "num_experts_per_tok"
               : name == "num_dense_layers"    ? "first_k_dense_replace"
                                               : name,
               fact);
        },
        f);
    read("n_shared_experts", shared_experts);
    read("shared_expert_intermediate_size", shared_size);
    read("sliding_window", window);
    RETURN_IF_ERROR(bad);
    // What a configuration without a feature leaves out; a model that lacks what it must have is not usable and left out.
    if (f.hidden_size == 0 || f.num_hidden_layers == 0 || f.num_attention_heads == 0 || f.vocab_size == 0) continue;
    if (f.num_key_value_heads == 0) f.num_key_value_heads = f.num_attention_heads;
    if (f.head_dim == 0) f.head_dim = f.hidden_size / f.num_attention_heads;
    if (f.latent()) {
      if (f.qk_nope_head_dim == 0) f.qk_nope_head_dim = 128;
      if (f.qk_rope_head_dim == 0) f.qk_rope_head_dim = 64;
      if (f.v_head_dim == 0) f.v_head_dim = 128;
    }
    if (f.moe() && f.moe_intermediate_size == 0) f.moe_intermediate_size = f.intermediate_size;
    f.shared_intermediate_size = shared_experts * f.moe_intermediate_size + shared_size;
    if (window > 0) f.sliding_window = window;
    f.full_attention_share = full_attention_share(f.architecture);
    facts_table.put(std::move(f));
  }
  return facts_table;
}

ModelFacts FactsTable::from_config(const std::string& model_id, const ModelConfig& c) {
  ModelFacts f;
  f.model_id = model_id;
  f.architecture = c.architecture;
  f.source = c.source;
  f.quantization = c.quantization;
  f.hidden_size = static_cast<double>(c.hidden_size);
  f.num_hidden_layers = static_cast<double>(c.num_hidden_layers);
  f.num_attention_heads = static_cast<double>(c.num_attention_heads);
  f.num_key_value_heads = static_cast<double>(c.num_key_value_heads);
  f.head_dim = static_cast<double>(c.head_dim);
  f.intermediate_size = static_cast<double>(c.intermediate_size);
  f.vocab_size = static_cast<double>(c.vocab_size);
  f.max_position_embeddings = static_cast<double>(c.max_position_embeddings);
  f.tie_word_embeddings = c.tie_word_embeddings;
  f.num_experts = static_cast<double>(c.num_experts);
  f.num_experts_per_token = static_cast<double>(c.num_experts_per_token);
  f.moe_intermediate_size = f.intermediate_size;
  if (c.sliding_window) f.sliding_window = static_cast<double>(*c.sliding_window);
  f.full_attention_share = full_attention_share(f.architecture);
  return f;
}

const ModelFacts* FactsTable::find(std::string_view model_id) const {
  const auto found = models_.find(model_id);
  if (found != models_.end()) return &found->second;
  for (const auto& [name, same] : kSameConfiguration)
    if (name == model_id) return find(same);
  return nullptr;
}

void FactsTable::put(ModelFacts facts) {
  std::string id = facts.model_id;
  models_.insert_or_assign(std::move(id), std::move(facts));
}

std::vector<std::string> FactsTable::names() const {
  std::vector<std::string> names;
  for (const auto& [name, facts] : models_) names.push_back(name);
  for (const auto& [name, same] : kSameConfiguration)
    if (models_.count(same) > 0 && models_.count(name) == 0) names.emplace_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace sextant::advisor
