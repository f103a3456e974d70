// Reads the input as a config.json and computes with the facts it gives.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/model/memory_model.h"
#include "engine/model/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sextant;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Result<ModelConfig> config = model_config_from_json(text, "config.json");
  if (!config.ok()) return 0;
  if (!validate(*config).ok()) abort();
  (void)supported(*config);
  (void)rope_inverse_frequencies(*config, config->rope, config->max_position_embeddings);
  if (weight_bytes(*config, WeightType::kF32) < count_parameters(*config).stored()) abort();  // would be an overflow
  MemoryPlanInputs inputs;
  inputs.weights_bytes = weight_bytes(*config, WeightType::kF16);
  inputs.workspace_bytes = workspace_bytes(*config, {.max_num_batched_tokens = 2048, .max_num_seqs = 256});
  inputs.kv_bytes_per_token = kv_bytes_per_token(*config, DType::kBFloat16);
  inputs.max_model_len = config->max_position_embeddings;
  inputs.available_bytes = uint64_t{1} << 40;
  const Result<MemoryPlan> plan = plan_memory(inputs);
  if (plan.ok() && plan->total_bytes > inputs.available_bytes) abort();
  return 0;
}
