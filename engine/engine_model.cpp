#include "engine/engine_model.h"

#include <algorithm>
#include <utility>

#include "engine/model/memory_model.h"

namespace sextant {
namespace {

bool is_dummy(const EngineConfig& config) { return config.model.load_format == "dummy"; }

WeightType dummy_type(const EngineConfig& config) {
  return config.model.dtype == "float32" ? WeightType::kF32 : WeightType::kBF16;
}

Result<int64_t> context_length(const EngineConfig& config, const ModelConfig& model) {
  if (config.model.max_model_len == 0) return model.max_position_embeddings;
  if (config.model.max_model_len > model.max_position_embeddings) {
    return invalid_argument("max_model_len " + std::to_string(config.model.max_model_len) + " is above the " +
                                std::to_string(model.max_position_embeddings) + " positions that " + model.source +
                                " was made for",
                            "max_model_len");
  }
  return config.model.max_model_len;
}

}  // namespace

WeightLoader make_weight_loader(const EngineConfig& config, const OpenedModel& opened) {
  if (is_dummy(config)) return WeightLoader::dummy(dummy_type(config), config.model.seed);
  WeightLoader::Options options;
  options.gguf_names = opened.files->is_gguf();
  options.as_bfloat16 = opened.as_bfloat16;
  options.fp8_scale_block = opened.config.fp8_scale_block;
  return WeightLoader(*opened.files->tensors(), options);
}

Result<OpenedModel> open_engine_model(const EngineConfig& config) {
  OpenedModel opened;
  ASSIGN_OR_RETURN(opened.files, open_model(config.model.model, {.need_weights = !is_dummy(config)}));
  ASSIGN_OR_RETURN(opened.config, model_config_from_files(*opened.files));
  RETURN_IF_ERROR(supported(opened.config));
  ASSIGN_OR_RETURN(opened.max_model_len, context_length(config, opened.config));
  opened.as_bfloat16 = config.model.dtype == "bfloat16";
  const WeightLoader loader = make_weight_loader(config, opened);
  opened.weight_types = loader.matrix_types();
  if (is_dummy(config)) {
    opened.main_type = dummy_type(config);
    return opened;
  }
  const std::vector<TensorInfo>& tensors = opened.files->tensors()->tensors();
  std::vector<uint64_t> bytes_by_type(kNumWeightTypes);
  for (const TensorInfo& tensor : tensors) bytes_by_type[static_cast<size_t>(tensor.type)] += tensor.num_bytes;
  opened.main_type =
      static_cast<WeightType>(std::max_element(bytes_by_type.begin(), bytes_by_type.end()) - bytes_by_type.begin());
  return opened;
}

uint64_t OpenedModel::shard_bytes(const TensorShard& shard, const Backend& backend) const {
  // Dummy weights have no tensors to look at; their vocabulary is cut evenly, give or take a row.
  if (files == nullptr || files->tensors() == nullptr) {
    ModelConfig part = shard_config(config, shard);
    part.vocab_size = shard.vocab.size();
    return weight_bytes(part, main_type);
  }
  std::vector<TensorInfo> loaded = files->tensors()->tensors();
  for (TensorInfo& tensor : loaded) {
    const bool rounds = as_bfloat16 && (tensor.type == WeightType::kF32 || tensor.type == WeightType::kF16);
    if (is_scale_name(tensor.name)) {
      tensor.num_bytes = 0;  // part of their matrix
    } else if (tensor.shape.size() == 2) {
      tensor.num_bytes =
          backend.matrix_bytes(rounds ? WeightType::kBF16 : tensor.type, tensor.shape[0], tensor.shape[1]);
    } else {
      tensor.num_bytes = tensor.num_elements() * sizeof(float);
    }
  }
  return shard.is_whole() ? weight_bytes(loaded) : shard_weight_bytes(config, loaded, shard);
}

DType kv_cache_dtype(const EngineConfig& config) {
  return config.cache.kv_cache_dtype == "float32" ? DType::kFloat32 : DType::kBFloat16;
}

}  // namespace sextant
