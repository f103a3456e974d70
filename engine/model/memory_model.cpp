#include "engine/model/memory_model.h"

#include <algorithm>
#include <cmath>

namespace sextant {
namespace {

enum class MatrixUse { kEmbedding, kHead, kLayer, kExpert };

// `count` matrices of `rows` outputs by `cols` inputs.
struct Matrices {
  MatrixUse use;
  uint64_t rows;
  uint64_t cols;
  uint64_t count;

  uint64_t parameters() const { return rows * cols * count; }
  // A row is rounded up to whole blocks.
  uint64_t bytes(WeightType type) const {
    const BlockGeometry block = block_geometry(type);
    return rows * ((cols + block.elements - 1) / block.elements) * block.bytes * count;
  }
};

uint64_t u64(int64_t value) { return static_cast<uint64_t>(value); }

std::vector<Matrices> matrices_of(const ModelConfig& config) {
  const uint64_t layers = u64(config.num_hidden_layers);
  const uint64_t hidden = u64(config.hidden_size);
  const uint64_t inner = u64(config.intermediate_size);
  std::vector<Matrices> list = {
      {MatrixUse::kEmbedding, u64(config.vocab_size), hidden, 1},
      {MatrixUse::kHead, u64(config.vocab_size), hidden, 1},
      {MatrixUse::kLayer, u64(config.q_size()), hidden, layers},
      {MatrixUse::kLayer, u64(config.kv_size()), hidden, 2 * layers},
      {MatrixUse::kLayer, hidden, u64(config.q_size()), layers},
  };
  if (config.num_experts == 0) {
    list.push_back({MatrixUse::kLayer, inner, hidden, 2 * layers});
    list.push_back({MatrixUse::kLayer, hidden, inner, layers});
  } else {
    const uint64_t experts = u64(config.num_experts);
    list.push_back({MatrixUse::kLayer, experts, hidden, layers});  // the router
    list.push_back({MatrixUse::kExpert, inner, hidden, 2 * experts * layers});
    list.push_back({MatrixUse::kExpert, hidden, inner, experts * layers});
  }
  return list;
}

uint64_t vector_parameters(const ModelConfig& config) {
  uint64_t per_layer = (config.family == ModelFamily::kGemma ? 4 : 2) * u64(config.hidden_size);
  if (config.qkv_bias) per_layer += u64(config.q_size() + 2 * config.kv_size());
  if (config.attention_output_bias) per_layer += u64(config.hidden_size);
  if (config.qk_norm == QkNorm::kHead) per_layer += 2 * u64(config.head_dim);
  if (config.qk_norm == QkNorm::kRow) per_layer += u64(config.q_size() + config.kv_size());
  if (config.mlp_bias) per_layer += u64(2 * config.intermediate_size + config.hidden_size);
  return u64(config.num_hidden_layers) * per_layer + u64(config.hidden_size);
}

constexpr uint64_t kVectorElementBytes = 4;

// Bytes that a step streams when `expert_share` of the experts are hit.
double streamed_bytes(const ModelConfig& config, WeightType type, double expert_share) {
  double bytes = static_cast<double>(vector_parameters(config) * kVectorElementBytes);
  for (const Matrices& matrices : matrices_of(config)) {
    if (matrices.use == MatrixUse::kEmbedding) continue;
    const double share = matrices.use == MatrixUse::kExpert ? expert_share : 1.0;
    bytes += share * static_cast<double>(matrices.bytes(type));
  }
  return bytes;
}

// The expected share of experts that `num_tokens` tokens hit when each picks its experts evenly at random.
double expert_share(const ModelConfig& config, double num_tokens) {
  if (config.num_experts == 0) return 0.0;
  const double picked = static_cast<double>(config.num_experts_per_token) / static_cast<double>(config.num_experts);
  return 1.0 - std::pow(1.0 - picked, num_tokens);
}

// Parameters of matrices that one token passes, the head not counted.
double active_layer_parameters(const ModelConfig& config) {
  const ParameterCounts counts = count_parameters(config);
  double active = static_cast<double>(counts.layers);
  if (config.num_experts > 0) {
    active += static_cast<double>(counts.experts) * static_cast<double>(config.num_experts_per_token) /
              static_cast<double>(config.num_experts);
  }
  return active;
}

// Of q.k and of probabilities times v, for one query over one key, all layers and heads: 2 multiply-adds per
// element.
double attention_flops_per_pair(const ModelConfig& config) {
  return 4.0 * static_cast<double>(config.num_hidden_layers) * static_cast<double>(config.q_size());
}

}  // namespace

ParameterCounts count_parameters(const ModelConfig& config) {
  ParameterCounts counts;
  for (const Matrices& matrices : matrices_of(config)) {
    switch (matrices.use) {
      case MatrixUse::kEmbedding: counts.embedding += matrices.parameters(); break;
      case MatrixUse::kHead: counts.lm_head += matrices.parameters(); break;
      case MatrixUse::kLayer: counts.layers += matrices.parameters(); break;
      case MatrixUse::kExpert: counts.experts += matrices.parameters(); break;
    }
  }
  counts.vectors = vector_parameters(config);
  counts.tied = config.tie_word_embeddings;
  return counts;
}

uint64_t weight_bytes(const ModelConfig& config, WeightType type) {
  uint64_t bytes = vector_parameters(config) * kVectorElementBytes;
  for (const Matrices& matrices : matrices_of(config)) {
    if (matrices.use == MatrixUse::kHead && config.tie_word_embeddings) continue;
    bytes += matrices.bytes(type);
  }
  return bytes;
}

uint64_t weight_bytes(std::span<const TensorInfo> tensors) {
  uint64_t bytes = 0;
  for (const TensorInfo& info : tensors) bytes += info.num_bytes;
  return bytes;
}

uint64_t streamed_weight_bytes(const ModelConfig& config, WeightType type) {
  uint64_t bytes = vector_parameters(config) * kVectorElementBytes;
  for (const Matrices& matrices : matrices_of(config)) {
    if (matrices.use != MatrixUse::kEmbedding) bytes += matrices.bytes(type);
  }
  return bytes;
}

uint64_t kv_bytes_per_token(const ModelConfig& config, DType kv_dtype) {
  return u64(config.num_hidden_layers) * (2 * u64(config.kv_size()) * dtype_size(kv_dtype) +
                                          u64(config.num_key_value_heads) * kv_scale_bytes(kv_dtype));
}

StepWork decode_step_work(const ModelConfig& config, WeightType weights, DType kv_dtype,
                          std::span<const int64_t> context_lengths) {
  double num_context_tokens = 0;
  for (int64_t length : context_lengths) num_context_tokens += static_cast<double>(length);
  const double batch = static_cast<double>(context_lengths.size());
  StepWork work;
  if (context_lengths.empty()) return work;
  work.bytes = streamed_bytes(config, weights, expert_share(config, batch)) +
               num_context_tokens * static_cast<double>(kv_bytes_per_token(config, kv_dtype));
  work.flops = batch * 2.0 * (active_layer_parameters(config) + static_cast<double>(count_parameters(config).lm_head)) +
               num_context_tokens * attention_flops_per_pair(config);
  return work;
}

StepWork prefill_work(const ModelConfig& config, WeightType weights, DType kv_dtype, int64_t num_tokens,
                      int64_t num_cached) {
  StepWork work;
  if (num_tokens <= 0) return work;
  const double tokens = static_cast<double>(num_tokens);
  const double cached = static_cast<double>(num_cached);
  work.flops = 2.0 * active_layer_parameters(config) * tokens +
               2.0 * static_cast<double>(count_parameters(config).lm_head) +
               attention_flops_per_pair(config) * (tokens * cached + tokens * tokens / 2.0);
  work.bytes = streamed_bytes(config, weights, expert_share(config, tokens)) +
               (tokens + cached) * static_cast<double>(kv_bytes_per_token(config, kv_dtype));
  return work;
}

double roofline_seconds(const StepWork& work, double peak_flops_per_s, double bytes_per_s) {
  return std::max(work.flops / peak_flops_per_s, work.bytes / bytes_per_s);
}

uint64_t workspace_bytes(const ModelConfig& config, const WorkspaceInputs& inputs) {
  // Alive at once at the widest place: residual stream, normed input, q, k and v, attention output, gate and
  // up, and their product; then the logits of one row per sequence.
  const uint64_t per_token = u64(3 * config.hidden_size + 2 * config.q_size() + 2 * config.kv_size() +
                                 3 * config.intermediate_size * std::max<int64_t>(1, config.num_experts_per_token));
  const uint64_t logits = u64(inputs.max_num_seqs) * u64(config.vocab_size) * dtype_size(DType::kFloat32);
  return u64(inputs.max_num_batched_tokens) * per_token * dtype_size(inputs.activation) + logits;
}

}  // namespace sextant
