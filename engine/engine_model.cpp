#include "engine/engine_model.h"

#include <openssl/evp.h>
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <numeric>
#include <utility>

#include "engine/model/memory_model.h"

namespace sextant {
namespace {

bool is_dummy(const EngineConfig& config) { return config.model.load_format == "dummy"; }

WeightType dummy_type(const EngineConfig& config) {
  return asked_dtype(config) == DType::kFloat32 ? WeightType::kF32 : WeightType::kBF16;
}

DType resolved_dtype(const EngineConfig& config, const OpenedModel& opened) {
  if (const std::optional<DType> asked = asked_dtype(config)) return *asked;
  const bool says_nothing = !opened.config.torch_dtype && !is_dummy(config) && !opened.files->is_gguf();
  const bool is_f16 =
      opened.config.torch_dtype == DType::kFloat16 || (says_nothing && opened.main_type == WeightType::kF16);
  return is_f16 ? DType::kFloat16 : DType::kBFloat16;
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
  opened.as_bfloat16 = asked_dtype(config) == DType::kBFloat16;
  const WeightLoader loader = make_weight_loader(config, opened);
  opened.weight_types = loader.matrix_types();
  if (is_dummy(config)) {
    opened.main_type = dummy_type(config);
    opened.dtype = resolved_dtype(config, opened);
    return opened;
  }
  const std::vector<TensorInfo>& tensors = opened.files->tensors()->tensors();
  std::vector<uint64_t> bytes_by_type(kNumWeightTypes);
  for (const TensorInfo& tensor : tensors) bytes_by_type[static_cast<size_t>(tensor.type)] += tensor.num_bytes;
  opened.main_type =
      static_cast<WeightType>(std::max_element(bytes_by_type.begin(), bytes_by_type.end()) - bytes_by_type.begin());
  opened.dtype = resolved_dtype(config, opened);
  return opened;
}

uint64_t OpenedModel::shard_bytes(const TensorShard& shard, const Backend& backend) const {
  // Dummy weights have no tensors to look at; their vocabulary is cut evenly, give or take a row.
  if (files == nullptr || files->tensors() == nullptr) {
    ModelConfig part = shard_config(config, shard);
    part.vocab_size = shard.vocab.size();
    const ParameterCounts counts = count_parameters(part);
    const BlockGeometry block = block_geometry(main_type);
    const auto bytes_of = [&](uint64_t elements) { return elements / block.elements * block.bytes; };
    uint64_t bytes = sextant::weight_bytes(part, main_type);
    const PipelineStage& stage = shard.pipeline;
    if (!stage.is_first() && !(stage.is_last() && counts.tied)) bytes -= bytes_of(counts.embedding);
    if (!stage.is_last() && !counts.tied) bytes -= bytes_of(counts.lm_head);
    return bytes;
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
  const bool is_all = shard.is_whole() && shard.pipeline.num_stages == 1;
  return is_all ? weight_bytes(loaded) : shard_weight_bytes(config, loaded, shard);
}

std::string OpenedModel::held_types_text(const Backend& backend) const {
  if (files == nullptr || files->tensors() == nullptr) return {};
  struct Bytes {
    uint64_t stored = 0;
    uint64_t held = 0;
  };
  std::map<WeightType, Bytes> by_type;
  for (const TensorInfo& tensor : files->tensors()->tensors()) {
    if (tensor.shape.size() != 2 || is_scale_name(tensor.name)) continue;
    const bool rounds = as_bfloat16 && (tensor.type == WeightType::kF32 || tensor.type == WeightType::kF16);
    if (rounds || backend.held_type(tensor.type) == tensor.type) continue;
    Bytes& bytes = by_type[tensor.type];
    bytes.stored += tensor.num_bytes;
    bytes.held += backend.matrix_bytes(tensor.type, tensor.shape[0], tensor.shape[1]);
  }
  std::string text;
  const auto mb = [](uint64_t bytes) { return std::to_string((bytes + 500'000) / 1'000'000); };
  for (const auto& [type, bytes] : by_type) {
    text += (text.empty() ? "" : ", ") + std::string(weight_type_name(type)) + " as " +
            std::string(weight_type_name(backend.held_type(type))) + " (" + mb(bytes.stored) + " MB in the file, " +
            mb(bytes.held) + " MB held)";
  }
  return text;
}

int64_t cut_block(const OpenedModel& opened) {
  return std::lcm(column_block(opened.weight_types), std::max<int64_t>(1, opened.config.fp8_scale_block));
}

std::optional<DType> asked_dtype(const EngineConfig& config) { return parse_dtype(config.model.dtype); }

DType kv_cache_dtype(const EngineConfig& config, DType activation) {
  if (const std::optional<DType> asked = parse_dtype(config.cache.kv_cache_dtype)) return *asked;
  return activation == DType::kFloat16 ? DType::kFloat16 : DType::kBFloat16;
}

Result<std::string> model_revision(const EngineConfig& config, const OpenedModel& opened) {
  const ModelConfig& facts = opened.config;
  std::string text = facts.architecture;
  for (const int64_t number :
       {facts.vocab_size, facts.hidden_size, facts.intermediate_size, facts.num_hidden_layers,
        facts.num_attention_heads, facts.num_key_value_heads, facts.head_dim, static_cast<int64_t>(opened.main_type)}) {
    text += " " + std::to_string(number);
  }
  text += " " + std::to_string(facts.rope.theta) + " " + std::to_string(facts.rms_norm_eps);
  if (is_dummy(config)) {
    text += " dummy " + std::to_string(config.model.seed);
  } else {
    // The list alone would be the same for a model that was trained further.
    constexpr size_t kSamples = 64;
    constexpr uint64_t kSampleBytes = 1024;
    const TensorSource& source = *opened.files->tensors();
    const std::vector<TensorInfo>& tensors = source.tensors();
    for (size_t i = 0; i < tensors.size(); ++i) {
      text += "\n" + tensors[i].name + " " + TensorSource::describe(tensors[i]);
      if (i % (tensors.size() / kSamples + 1) != 0) continue;
      std::vector<std::byte> bytes(std::min(kSampleBytes, tensors[i].num_bytes));
      RETURN_IF_ERROR(source.read_range(tensors[i], 0, bytes));
      text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
  }
  std::array<unsigned char, 32> digest = {};
  CHECK_EQ(EVP_Digest(text.data(), text.size(), digest.data(), nullptr, EVP_sha256(), nullptr), 1);
  std::string hex;
  for (size_t i = 0; i < 16; ++i) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", digest[i]);
    hex += digits;
  }
  return hex;
}

}  // namespace sextant
