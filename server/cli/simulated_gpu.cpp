#include "server/cli/simulated_gpu.h"

#include "advisor/catalog.h"
#include "engine/base/nearest.h"

namespace sextant::cli {

Result<sim::SimGpu> find_simulated_gpu(const std::string& name) {
  const advisor::GpuTable& table = advisor::shipped_gpus();
  const advisor::GpuProfile* found = table.find(name);
  if (found == nullptr) {
    const auto nearest = nearest_name(name, table.names());
    std::string list;
    for (const auto& [known, profile] : table.all()) list += (list.empty() ? "" : ", ") + known;
    return invalid_argument("gpu_type '" + name + "' is not known" +
                                (nearest ? "; did you mean " + *nearest + "?" : std::string(".")) + " Known are " +
                                list,
                            "gpu_type");
  }
  sim::SimGpu gpu;
  gpu.name = found->name;
  gpu.memory_gib = found->memory_gib;
  gpu.bytes_per_s = found->memory_gb_per_s * 1e9;
  gpu.flops_per_s = found->bf16_tflops.value_or(found->fp16_tflops.value_or(0)) * 1e12;
  gpu.link_bytes_per_s = found->link_gb_per_s() * 1e9;
  if (gpu.flops_per_s == 0) return unsupported("gpu_type " + gpu.name + " has no 16-bit matrix units", "gpu_type");
  return gpu;
}

Result<std::optional<ModelConfig>> find_listed_model(const std::string& model_id) {
  const advisor::ModelFacts* facts = advisor::shipped_facts().find(model_id);
  if (facts == nullptr) return std::optional<ModelConfig>();
  if (facts->latent() || facts->num_dense_layers > 0 || facts->shared_intermediate_size > 0 ||
      facts->full_attention_share != 1) {
    return unsupported("model '" + model_id + "' has layers whose roofline is not known here (" + facts->architecture +
                           "); record times work for it",
                       "model");
  }
  const auto whole = [](double value) { return static_cast<int64_t>(value); };
  ModelConfig config;
  config.source = facts->source;
  config.architecture = facts->architecture;
  config.family = ModelFamily::kLlama;
  config.vocab_size = whole(facts->vocab_size);
  config.hidden_size = whole(facts->hidden_size);
  config.intermediate_size =
      whole(facts->moe() && facts->moe_intermediate_size > 0 ? facts->moe_intermediate_size : facts->intermediate_size);
  config.num_hidden_layers = whole(facts->num_hidden_layers);
  config.num_attention_heads = whole(facts->num_attention_heads);
  config.num_key_value_heads = whole(facts->num_key_value_heads);
  config.head_dim = whole(facts->head_dim);
  config.max_position_embeddings = whole(facts->max_position_embeddings);
  config.rms_norm_eps = 1e-5;
  config.rope.rotary_dim = config.head_dim;
  config.tie_word_embeddings = facts->tie_word_embeddings;
  config.num_experts = whole(facts->num_experts);
  config.num_experts_per_token = whole(facts->num_experts_per_token);
  RETURN_IF_ERROR(validate(config));
  return std::optional(config);
}

}  // namespace sextant::cli
