// How a model is cut: for pipeline parallelism into stages of consecutive layers, for tensor parallelism each layer: which heads, inner columns and vocabulary rows a rank holds. Pure arithmetic, the
// same for the loader, the memory plan and the advisor. After Shoeybi et al. 2019 (Megatron-LM, arXiv:1909.08053): q, k, v, gate and up
// are cut by outputs, the attention's output and down by inputs, embedding and head by vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/format/tensor_source.h"
#include "engine/model/model_config.h"

namespace sextant {

struct IndexRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const IndexRange&) const = default;
};

// Consecutive layers of a model, one of the stages that a step goes through. The first has the embedding, the last the final
// norm and the head; a head that is the embedding is on both.
struct PipelineStage {
  int stage = 0;
  int num_stages = 1;
  IndexRange layers;

  bool is_first() const { return stage == 0; }
  bool is_last() const { return stage + 1 == num_stages; }
};

// Layers are shared evenly; those left over go to the stages before the last, which has the head to compute. kInvalidArgument
// (pipeline_parallel_size) for more stages than layers.
Result<PipelineStage> make_pipeline_stage(const ModelConfig& config, int stage, int num_stages);

// One rank's part. Ranks of a stage have equally many heads and inner columns; K and V heads are cut, or, where there are fewer than ranks,
// each is on several of them; the vocabulary's parts may differ by one row.
struct TensorShard {
  int rank = 0;
  int size = 1;
  IndexRange heads;
  IndexRange kv_heads;
  IndexRange inner;  // of intermediate_size
  IndexRange vocab;
  PipelineStage pipeline;

  // Of its stage's layers.
  bool is_whole() const { return size == 1; }
};

// Elements of a row that must stay together in matrices cut by inputs: the blocks of those encodings, and what kernels
// need of any.
int64_t column_block(std::span<const WeightType> matrix_types);

// kInvalidArgument (tensor_parallel_size), with the degrees that would do, when `size` does not divide the model so that cuts
// by inputs fall on multiples of `block` elements.
// The shard is one of all layers; `pipeline` is the caller's to set.
Result<TensorShard> make_tensor_shard(const ModelConfig& config, int64_t block, int rank, int size);
TensorShard whole_shard(const ModelConfig& config);
// Ascending; 1 is always one of them.
std::vector<int64_t> tensor_parallel_degrees(const ModelConfig& config, int64_t block);

// The facts of a model that is this part alone, so that what is derived of a model's facts (KV cache, attention, workspace)
// is the rank's. The vocabulary stays whole: ids are.
ModelConfig shard_config(const ModelConfig& config, const TensorShard& shard);
// What the rank keeps of a file's tensors, in bytes as stored. Names are the file's, Hugging Face's or GGUF's.
uint64_t shard_weight_bytes(const ModelConfig& config, std::span<const TensorInfo> tensors, const TensorShard& shard);

}  // namespace sextant
