// Bytes and FLOPs of a model: pure arithmetic over ModelConfig, one definition for the engine's memory plan, the
// advisor and the roof that benchmark lines are held against. Knows no device, no clock and no measured numbers.
// Formulas (s tokens of prompt, B sequences with ctx_i tokens of context, L layers):
//   KV bytes per token   2 * L * n_kv * head_dim * bytes
//   decode step          bytes >= streamed weights + sum(ctx_i) * KV bytes per token; t >= bytes / bandwidth
//   prefill              FLOPs >= 2 * P_matmul * s + 2 * L * d_attn * s^2  (causal: half of 4 L d s^2); LM head: last position
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/base/dtype.h"
#include "engine/base/result.h"
#include "engine/base/weight_type.h"
#include "engine/format/tensor_source.h"
#include "engine/model/model_config.h"

namespace sextant {

// Parameters by what a step does with them.
struct ParameterCounts {
  uint64_t embedding = 0;  // input table: gathered by row, not streamed
  uint64_t lm_head = 0;    // vocab * hidden, whether or not it shares the input table's storage
  uint64_t layers = 0;     // matrices of all layers that every token passes
  uint64_t experts = 0;    // matrices of all experts of all layers
  uint64_t vectors = 0;    // norms and biases
  bool tied = false;       // the head is the input table

  uint64_t stored() const { return embedding + (tied ? 0 : lm_head) + layers + experts + vectors; }
  // Read once per step by a batch that touches all experts.
  uint64_t streamed() const { return lm_head + layers + experts + vectors; }
};
ParameterCounts count_parameters(const ModelConfig& config);

// Weights in memory: matrices as `type` (vectors stay at 4 bytes), or what a file's tensors take as stored.
uint64_t weight_bytes(const ModelConfig& config, WeightType type);
uint64_t weight_bytes(std::span<const TensorInfo> tensors);
// Of the weights above, those a decode step streams.
uint64_t streamed_weight_bytes(const ModelConfig& config, WeightType type);

// Keys and values of one token over all layers, with the scales of a type that has some.
uint64_t kv_bytes_per_token(const ModelConfig& config, DType kv_dtype);

// What one step has to move and compute at least.
struct StepWork {
  double flops = 0;
  double bytes = 0;
};
// One token for each of context_lengths.size() sequences.
StepWork decode_step_work(const ModelConfig& config, WeightType weights, DType kv_dtype,
                          std::span<const int64_t> context_lengths);
// `num_tokens` prompt tokens of one sequence after `num_cached` that are already in the cache; one row of logits.
StepWork prefill_work(const ModelConfig& config, WeightType weights, DType kv_dtype, int64_t num_tokens,
                      int64_t num_cached = 0);
// max(flops / peak, bytes / bandwidth).
double roofline_seconds(const StepWork& work, double peak_flops_per_s, double bytes_per_s);

// Buffers of one step. An estimate of the activations alive at once; a backend that knows better passes its own number.
struct WorkspaceInputs {
  int64_t max_num_batched_tokens = 0;
  int64_t max_num_seqs = 0;  // rows of logits
  DType activation = DType::kFloat32;
};
uint64_t workspace_bytes(const ModelConfig& config, const WorkspaceInputs& inputs);

// What a model cut between ranks says over its collectives, per rank: payload as CollectiveCounters counts it. H hidden size, L
// layers, V vocabulary, n ranks, a bytes of an activation. A step of T tokens with R rows of logits:
//   all_reduce   T * H * 4 (embedding), and 2 L times T * H * a (attention and MLP outputs)
//   all_gather   instead of the latter n * T * H * a, each, where T * H * a <= gathered_reduce_bytes: summed with the residual
//   gather       R * V * 4 (logits, to rank 0)
//   broadcast    R * 4 (sampled tokens), on a device that samples
// On a ring the wires carry 2 (n - 1) / n of an all_reduce's payload and (n - 1) / n of an all_gather's, per rank.
struct TensorParallelInputs {
  int64_t num_ranks = 1;
  DType activation = DType::kFloat32;
  int64_t gathered_reduce_bytes = 0;
  int64_t logits_rows = 64;  // of one gather
  bool shares_samples = false;
  // Of a stage of a pipeline, whose layers alone `config` states: the first embeds, the last has logits, the others pass
  // T * H * 4 (sums of the residual stream) on to the next.
  bool is_first_stage = true;
  bool is_last_stage = true;
};
struct CollectiveTraffic {
  struct OfKind {
    uint64_t calls = 0;
    uint64_t bytes = 0;
    bool operator==(const OfKind&) const = default;
  };
  OfKind all_reduce, all_gather, gather, broadcast, send, receive;
  double ring_bytes = 0;  // that each rank sends when all_reduce and all_gather go round a ring
};
// Whether the last layer ends with the rows alone that logits come from. A quarter: those rows stay in place as float32 then, where
// the step's 16-bit rows were.
inline bool has_few_logits(int64_t num_tokens, int64_t num_logits_rows) { return num_logits_rows <= num_tokens / 4; }
CollectiveTraffic tensor_parallel_traffic(const ModelConfig& config, const TensorParallelInputs& inputs,
                                          int64_t num_tokens, int64_t num_logits_rows);
// The formula with a model's numbers put in, a few lines for a person.
std::string tensor_parallel_formula(const ModelConfig& config, const TensorParallelInputs& inputs);

struct MemoryPlanInputs {
  std::string model;  // for the text
  uint64_t weights_bytes = 0;
  uint64_t workspace_bytes = 0;
  uint64_t kv_bytes_per_token = 0;
  int64_t block_size = 16;    // tokens
  int64_t max_model_len = 0;  // tokens
  int64_t max_num_seqs = 0;
  uint64_t available_bytes = 0;            // all that may be used, weights included
  std::optional<uint64_t> kv_cache_bytes;  // asked for; otherwise what remains of available_bytes
};

struct MemoryPlan {
  std::string model;
  uint64_t weights_bytes = 0;
  uint64_t kv_cache_bytes = 0;  // num_blocks whole blocks
  uint64_t workspace_bytes = 0;
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;
  uint64_t kv_bytes_per_token = 0;
  int64_t block_size = 0;
  int64_t num_blocks = 0;  // with the null block 0, which holds no token
  int64_t max_tokens = 0;  // (num_blocks - 1) * block_size
  int64_t max_model_len = 0;
  int64_t max_num_seqs = 0;

  // How many sequences of `num_tokens` tokens the cache holds at once, each in whole blocks; not capped by max_num_seqs.
  int64_t sequences_of(int64_t num_tokens) const;
};

// kTooLarge when the weights do not fit, or one sequence of max_model_len does not: the message says what would fit.
Result<MemoryPlan> plan_memory(const MemoryPlanInputs& inputs);

// Several lines for a person: weights, KV cache, workspace, total, "fits 12 sequences of 8,192 tokens or 48 of 2,048".
std::string render(const MemoryPlan& plan);

// "1.23 GiB", "512 B": binary units throughout.
std::string format_bytes(uint64_t bytes);
// "8,192"
std::string format_count(int64_t count);

}  // namespace sextant
