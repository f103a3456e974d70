// The one place that knows which file serves which family.
#include <cmath>
#include <numeric>

#include "engine/model/llama.h"
#include "engine/model/model.h"

namespace sextant {

Result<std::unique_ptr<Model>> load_model(const ModelConfig& config, WeightLoader& loader, Backend& backend,
                                          const ModelLoadOptions& options) {
  RETURN_IF_ERROR(supported(config));
  switch (config.family) {
    case ModelFamily::kLlama: return load_llama(config, loader, backend, options);
    case ModelFamily::kUnknown: break;
  }
  return unsupported(config.source + ": no family serves " + config.architecture);
}

KvCacheSpec make_kv_cache_spec(const ModelConfig& config, DType kv_dtype, int32_t block_size) {
  KvCacheGroup group;
  group.kind = KvCacheKind::kFull;
  group.layers.resize(static_cast<size_t>(config.num_hidden_layers));
  std::iota(group.layers.begin(), group.layers.end(), 0);
  group.num_kv_heads = static_cast<int32_t>(config.num_key_value_heads);
  group.head_dim = static_cast<int32_t>(config.head_dim);
  group.v_head_dim = group.head_dim;
  group.dtype = kv_dtype;
  return {block_size, {group}};
}

AttentionParams make_attention_params(const ModelConfig& config) {
  AttentionParams params;
  params.num_heads = static_cast<int32_t>(config.num_attention_heads);
  params.num_kv_heads = static_cast<int32_t>(config.num_key_value_heads);
  params.head_dim = static_cast<int32_t>(config.head_dim);
  params.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));
  if (config.sliding_window && *config.sliding_window < config.max_position_embeddings) {
    params.sliding_window = static_cast<int32_t>(*config.sliding_window);
  }
  return params;
}

}  // namespace sextant
