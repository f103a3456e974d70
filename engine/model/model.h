// Model: one family's forward pass as a straight list of Backend calls. It knows neither requests nor sampling: token ids
// and positions in, hidden rows out, logits of chosen rows on demand.
// Thread: the rank's. forward() may be called again only after the step's logits were used.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/base/result.h"
#include "engine/core/kv_cache_spec.h"
#include "engine/device/backend.h"
#include "engine/device/communicator.h"
#include "engine/model/model_config.h"
#include "engine/model/model_config_shard.h"
#include "engine/model/weight_loader.h"

namespace sextant {

class Model {
 public:
  virtual ~Model() = default;

  // Every way in which its layers attend.
  virtual const AttentionKinds& attention() const = 0;

  // Backend::plan was called for this step of T tokens and R logits_indices. Returns the final-norm hidden rows of
  // logits_indices, [R, H]; valid until the next forward().
  virtual Tensor forward(int64_t num_tokens, int64_t num_logits_rows, KvCache& cache) = 0;
  // Of one stage of several: forward() of all but the last returns no rows and leaves the stage's sums in stage_rows(), f32 [T, H],
  // where those of the stage before have to be when forward() of all but the first begins.
  virtual Tensor stage_rows(int64_t num_tokens) const = 0;
  virtual const PipelineStage& stage() const = 0;
  // logits [rows, vocab_size] of hidden rows that forward() returned. Of a model cut between ranks: every rank calls, and they
  // come together on rank 0; elsewhere `logits` is not touched.
  virtual void compute_logits(Tensor hidden_rows, Tensor logits) = 0;
  // Of the ranks between which the model's layers are cut; null for a whole model.
  virtual Communicator* tensor_group() const { return nullptr; }

  virtual int64_t weight_bytes() const = 0;  // as laid out by the backend
  virtual int64_t num_parameters() const = 0;
};

struct ModelLoadOptions {
  int64_t max_num_batched_tokens = 0;  // rows of the activation buffers
  int64_t max_model_len = 0;           // positions of the RoPE table
  int64_t max_logits_rows = 64;        // rows of one compute_logits()
  // This rank's part, and the group of all ranks of its stage, which outlives the model; null: alone. By default all of it.
  TensorShard shard = {};
  Communicator* tensor_group = nullptr;
};

// Reads the weights of `config.family` from `loader` into `backend`. `config` states the whole model's facts. Errors name file and tensor.
Result<std::unique_ptr<Model>> load_model(const ModelConfig& config, WeightLoader& loader, Backend& backend,
                                          const ModelLoadOptions& options);

// The cache that a model of these facts needs.
KvCacheSpec make_kv_cache_spec(const ModelConfig& config, DType kv_dtype, int32_t block_size);
// Those of layers with a sliding window first, then of those without; one where all are alike.
AttentionKinds make_attention_kinds(const ModelConfig& config);

}  // namespace sextant
