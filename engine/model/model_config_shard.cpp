#include "engine/model/model_config_shard.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>
#include <string>
#include <string_view>

namespace sextant {
namespace {

// What a row of plain elements must be a multiple of: 16 bytes, the width of a vector load.
constexpr int64_t kLeastColumnBlock = 8;
// Kernels read e4m3 in tiles of so many columns.
constexpr int64_t kF8ColumnBlock = 32;

bool divides(const ModelConfig& config, int64_t block, int64_t size) {
  if (size > 1 && config.qk_norm == QkNorm::kRow) return false;  // a norm over heads that no rank has all of
  const int64_t heads = config.num_attention_heads, kv_heads = config.num_key_value_heads;
  return size >= 1 && heads % size == 0 && (kv_heads % size == 0 || size % kv_heads == 0) &&
         config.intermediate_size % (size * block) == 0 && heads / size * config.head_dim % block == 0 &&
         config.vocab_size >= size;
}

IndexRange part_of(int64_t whole, int64_t rank, int64_t size) {
  return {whole * rank / size, whole * (rank + 1) / size};
}

enum class Cut : uint8_t { kWhole, kHeads, kKvHeads, kInner, kVocab };
struct NamedCut {
  std::string_view part;  // of the tensor's name
  Cut matrix;
  Cut bias;  // outputs of row-parallel matrices are whole, and so are their biases
};
constexpr std::array kCuts = {
    NamedCut{".q_proj.", Cut::kHeads, Cut::kHeads},       NamedCut{".attn_q.", Cut::kHeads, Cut::kHeads},
    NamedCut{".k_proj.", Cut::kKvHeads, Cut::kKvHeads},   NamedCut{".attn_k.", Cut::kKvHeads, Cut::kKvHeads},
    NamedCut{".v_proj.", Cut::kKvHeads, Cut::kKvHeads},   NamedCut{".attn_v.", Cut::kKvHeads, Cut::kKvHeads},
    NamedCut{".o_proj.", Cut::kHeads, Cut::kWhole},       NamedCut{".attn_output.", Cut::kHeads, Cut::kWhole},
    NamedCut{".gate_proj.", Cut::kInner, Cut::kInner},    NamedCut{".ffn_gate.", Cut::kInner, Cut::kInner},
    NamedCut{".up_proj.", Cut::kInner, Cut::kInner},      NamedCut{".ffn_up.", Cut::kInner, Cut::kInner},
    NamedCut{".down_proj.", Cut::kInner, Cut::kWhole},    NamedCut{".ffn_down.", Cut::kInner, Cut::kWhole},
    NamedCut{".embed_tokens.", Cut::kVocab, Cut::kVocab}, NamedCut{"token_embd.", Cut::kVocab, Cut::kVocab},
    NamedCut{"lm_head.", Cut::kVocab, Cut::kVocab},
};

Cut cut_of(std::string_view name) {
  if (name == "output.weight") return Cut::kVocab;
  for (const NamedCut& cut : kCuts) {
    if (name.find(cut.part) != std::string_view::npos) return name.ends_with(".bias") ? cut.bias : cut.matrix;
  }
  return Cut::kWhole;
}

// Names are Hugging Face's ("model.layers.7.") or GGUF's ("blk.7.").
bool is_of_stage(std::string_view name, const ModelConfig& config, const PipelineStage& stage) {
  for (const std::string_view prefix : {"model.layers.", "blk."}) {
    if (!name.starts_with(prefix)) continue;
    int64_t layer = 0;
    const std::string_view rest = name.substr(prefix.size());
    std::from_chars(rest.data(), rest.data() + rest.size(), layer);
    return layer >= stage.layers.begin && layer < stage.layers.end;
  }
  if (name.find("embed_tokens.") != std::string_view::npos || name.starts_with("token_embd.")) {
    return stage.is_first() || (stage.is_last() && config.tie_word_embeddings);
  }
  if (name == "model.norm.weight" || name == "lm_head.weight" || name.starts_with("output")) return stage.is_last();
  return true;
}

}  // namespace

int64_t column_block(std::span<const WeightType> matrix_types) {
  int64_t block = kLeastColumnBlock;
  for (const WeightType type : matrix_types) {
    const int64_t elements = type == WeightType::kF8E4M3 ? kF8ColumnBlock : block_geometry(type).elements;
    block = std::lcm(block, elements);
  }
  return block;
}

std::vector<int64_t> tensor_parallel_degrees(const ModelConfig& config, int64_t block) {
  std::vector<int64_t> degrees = {1};
  for (int64_t size = 2; size <= config.num_attention_heads; ++size) {
    if (divides(config, block, size)) degrees.push_back(size);
  }
  return degrees;
}

TensorShard whole_shard(const ModelConfig& config) {
  return {0,
          1,
          {0, config.num_attention_heads},
          {0, config.num_key_value_heads},
          {0, config.intermediate_size},
          {0, config.vocab_size},
          {0, 1, {0, config.num_hidden_layers}}};
}

Result<PipelineStage> make_pipeline_stage(const ModelConfig& config, int stage, int num_stages) {
  const int64_t layers = config.num_hidden_layers;
  if (num_stages > layers) {
    return invalid_argument("pipeline_parallel_size " + std::to_string(num_stages) + " is more than the " +
                                std::to_string(layers) + " layers of " + config.source,
                            "pipeline_parallel_size");
  }
  const int64_t each = layers / num_stages, left = layers % num_stages;
  PipelineStage made{stage, num_stages, {}};
  for (int s = 0; s <= stage; ++s) {
    const bool has_one_more = s + 1 < num_stages && s + 1 + left >= num_stages;
    made.layers = {made.layers.end, made.layers.end + each + (has_one_more ? 1 : 0)};
  }
  return made;
}

Result<TensorShard> make_tensor_shard(const ModelConfig& config, int64_t block, int rank, int size) {
  if (size == 1) return whole_shard(config);
  if (!divides(config, block, size)) {
    std::string degrees;
    for (const int64_t degree : tensor_parallel_degrees(config, block))
      degrees += (degrees.empty() ? "" : ", ") + std::to_string(degree);
    return invalid_argument("tensor_parallel_size " + std::to_string(size) + " does not divide " + config.source +
                                ": " + std::to_string(config.num_attention_heads) + " query heads of " +
                                std::to_string(config.head_dim) + ", " + std::to_string(config.num_key_value_heads) +
                                " key and value heads, " + std::to_string(config.intermediate_size) +
                                " inner columns, cut at multiples of " + std::to_string(block) +
                                (config.qk_norm == QkNorm::kRow ? ", norms over all heads of q and k" : "") +
                                "; degrees that do: " + degrees,
                            "tensor_parallel_size");
  }
  TensorShard shard;
  shard.rank = rank;
  shard.size = size;
  shard.heads = part_of(config.num_attention_heads, rank, size);
  shard.inner = part_of(config.intermediate_size, rank, size);
  shard.vocab = part_of(config.vocab_size, rank, size);
  shard.pipeline.layers = {0, config.num_hidden_layers};
  // Fewer heads than ranks: the one that this rank's query heads belong to.
  const int64_t kv_heads = config.num_key_value_heads;
  shard.kv_heads =
      kv_heads >= size ? part_of(kv_heads, rank, size) : IndexRange{kv_heads * rank / size, kv_heads * rank / size + 1};
  return shard;
}

ModelConfig shard_config(const ModelConfig& config, const TensorShard& shard) {
  ModelConfig part = config;
  part.num_attention_heads = shard.heads.size();
  part.num_key_value_heads = shard.kv_heads.size();
  part.intermediate_size = shard.inner.size();
  part.num_hidden_layers = shard.pipeline.layers.size();
  if (!config.sliding_layers.empty()) {
    const auto& [begin, end] = shard.pipeline.layers;
    part.sliding_layers.assign(config.sliding_layers.begin() + begin, config.sliding_layers.begin() + end);
    // One kind may be all that a stage has.
    const auto sliding = std::count(part.sliding_layers.begin(), part.sliding_layers.end(), true);
    if (sliding == 0) part.sliding_window.reset();
    if (sliding == 0 || sliding == end - begin) {
      if (sliding > 0 && config.sliding_rope) part.rope = *config.sliding_rope;
      part.sliding_layers.clear();
    }
  }
  return part;
}

uint64_t shard_weight_bytes(const ModelConfig& config, std::span<const TensorInfo> tensors, const TensorShard& shard) {
  uint64_t bytes = 0;
  for (const TensorInfo& info : tensors) {
    if (!is_of_stage(info.name, config, shard.pipeline)) continue;
    IndexRange range = {0, 1};
    int64_t whole = 1;
    switch (cut_of(info.name)) {
      case Cut::kWhole: break;
      case Cut::kHeads: range = shard.heads, whole = config.num_attention_heads; break;
      case Cut::kKvHeads: range = shard.kv_heads, whole = config.num_key_value_heads; break;
      case Cut::kInner: range = shard.inner, whole = config.intermediate_size; break;
      case Cut::kVocab: range = shard.vocab, whole = config.vocab_size; break;
    }
    bytes += info.num_bytes / static_cast<uint64_t>(whole) * static_cast<uint64_t>(range.size());
  }
  return bytes;
}

}  // namespace sextant
