// The model that an engine was asked for, opened and understood but not loaded. Shared by all ranks, which only read it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/config.h"
#include "engine/format/hf_directory.h"
#include "engine/model/model_config.h"
#include "engine/model/model_config_shard.h"
#include "engine/model/weight_loader.h"

namespace sextant {

struct OpenedModel {
  std::unique_ptr<ModelFiles> files;
  ModelConfig config;
  std::vector<WeightType> weight_types;  // of matrices, as they will be loaded
  WeightType main_type = WeightType::kF32;
  // What activations are held in where they have 16 bits: what --dtype says or, with auto, float16 when the checkpoint says that
  // it is (torch_dtype; without one, most of its bytes), else bfloat16. vLLM's rule; a GGUF file does not say.
  DType dtype = DType::kBFloat16;
  bool as_bfloat16 = false;  // F32 and F16 matrices are rounded when they are loaded
  int64_t max_model_len = 0;

  // What a rank's part takes in the backend's layouts. Stacked parts may share a tile: then it is a little less.
  uint64_t shard_bytes(const TensorShard& shard, const Backend& backend) const;
  // Which types of matrices `backend` holds as others, and what the whole model's take in the file and held; empty where none is.
  std::string held_types_text(const Backend& backend) const;
};

Result<OpenedModel> open_engine_model(const EngineConfig& config);
// A loader of one's own; any thread.
WeightLoader make_weight_loader(const EngineConfig& config, const OpenedModel& opened);
// What --dtype asks for; nothing with auto.
std::optional<DType> asked_dtype(const EngineConfig& config);
// With auto that of `activation`, or bfloat16 where that is fp32.
DType kv_cache_dtype(const EngineConfig& config, DType activation);
// What cuts by inputs must be a multiple of: the blocks of all encodings and of FP8 scales.
int64_t cut_block(const OpenedModel& opened);
// Equal for equal weights as far as that can be told soon: SHA-256, in hex, of the facts, the list of tensors and the first
// bytes of some of them.
Result<std::string> model_revision(const EngineConfig& config, const OpenedModel& opened);

}  // namespace sextant
