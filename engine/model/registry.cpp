// The one place that knows which file serves which family.
#include <cmath>
#include <numeric>

#include "engine/model/gemma.h"
#include "engine/model/llama.h"
#include "engine/model/model.h"
#include "engine/model/olmo2.h"

namespace sextant {

Result<std::unique_ptr<Model>> load_model(const ModelConfig& config, WeightLoader& loader, Backend& backend,
                                          const ModelLoadOptions& options) {
  RETURN_IF_ERROR(supported(config));
  switch (config.family) {
    case ModelFamily::kLlama: return load_llama(config, loader, backend, options);
    case ModelFamily::kGemma: return load_gemma(config, loader, backend, options);
    case ModelFamily::kOlmo2: return load_olmo2(config, loader, backend, options);
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

AttentionKinds make_attention_kinds(const ModelConfig& config) {
  AttentionParams params;
  params.num_heads = static_cast<int32_t>(config.num_attention_heads);
  params.num_kv_heads = static_cast<int32_t>(config.num_key_value_heads);
  params.head_dim = static_cast<int32_t>(config.head_dim);
  params.scale =
      static_cast<float>(config.attention_scale.value_or(1.0 / std::sqrt(static_cast<double>(config.head_dim))));
  params.logit_softcap = static_cast<float>(config.attention_logit_softcap);
  AttentionParams sliding = params;
  if (config.sliding_window && *config.sliding_window < config.max_position_embeddings) {
    sliding.sliding_window = static_cast<int32_t>(*config.sliding_window);
  }
  if (config.sliding_layers.empty()) return sliding;
  return AttentionKinds({sliding, params});
}

}  // namespace sextant
