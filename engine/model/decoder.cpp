#include "engine/model/decoder.h"

#include <cmath>
#include <utility>

#include "engine/base/activation.h"
#include "engine/base/check.h"
#include "engine/model/memory_model.h"

namespace sextant {
namespace {

MatrixPart rows_of(const IndexRange& range) { return {.row_begin = range.begin, .row_end = range.end}; }
MatrixPart columns_of(const IndexRange& range) { return {.col_begin = range.begin, .col_end = range.end}; }

}  // namespace

Status FloatBuffer::upload(Backend& backend, const std::vector<float>& values) {
  ASSIGN_OR_RETURN(buffer_, backend.allocate(values.size() * sizeof(float)));
  return backend.upload(std::as_bytes(std::span(values)), *buffer_);
}

Status ActivationBuffer::allocate(Backend& backend, DType dtype, int64_t count) {
  dtype_ = dtype;
  ASSIGN_OR_RETURN(buffer_, backend.allocate(static_cast<size_t>(count) * dtype_size(dtype)));
  return ok_status();
}

Decoder::Decoder(const ModelConfig& config, Backend& backend, const ModelLoadOptions& options)
    : whole_(config),
      shard_(options.shard.pipeline.layers.size() == 0 ? whole_shard(config) : options.shard),
      group_(options.tensor_group),
      config_(shard_config(config, shard_)),
      backend_(backend),
      attention_kinds_(make_attention_kinds(config_)),
      activation_(activation_of_name(config.hidden_act).value_or(Activation::kSilu)),
      // The residual stream holds h / m, m = residual_multiplier: then h += m f is one sum like any other. A norm of h is a norm of
      // h / m with eps / m^2.
      norm_eps_(static_cast<float>(config.rms_norm_eps / (config.residual_multiplier * config.residual_multiplier))),
      ropes_(attention_kinds_.size()) {}

Status Decoder::stack(const std::vector<HostTensor>& parts, std::unique_ptr<WeightMatrix>& matrix) {
  std::vector<HostMatrix> views;
  for (const HostTensor& part : parts) {
    views.push_back(part.view());
    num_parameters_ += part.rows * part.cols;
  }
  ASSIGN_OR_RETURN(matrix, backend_.make_matrix(views));
  weight_bytes_ += static_cast<int64_t>(matrix->size_bytes());
  return ok_status();
}

Status Decoder::load_matrix(WeightLoader& loader, const std::string& name, int64_t rows, int64_t cols,
                            const MatrixPart& part, std::unique_ptr<WeightMatrix>& matrix) {
  std::vector<HostTensor> parts(1);
  ASSIGN_OR_RETURN(parts[0], loader.read_matrix(name, rows, cols, part));
  return stack(parts, matrix);
}

Status Decoder::read_stacked(WeightLoader& loader, const std::string& prefix, const char* fused,
                             const std::vector<RowsPart>& parts, std::vector<HostTensor>& matrices) const {
  int64_t fused_rows = 0;
  for (const RowsPart& part : parts) fused_rows += part.size;
  int64_t before = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const IndexRange& rows = parts[i].part;
    if (fused == nullptr) {
      ASSIGN_OR_RETURN(matrices[i],
                       loader.read_matrix(prefix + parts[i].name, parts[i].size, whole_.hidden_size, rows_of(rows)));
    } else {
      ASSIGN_OR_RETURN(matrices[i], loader.read_matrix(prefix + fused, fused_rows, whole_.hidden_size,
                                                       rows_of({before + rows.begin, before + rows.end})));
    }
    before += parts[i].size;
  }
  return ok_status();
}

Status Decoder::load_norm(WeightLoader& loader, const std::string& name, int64_t size, FloatBuffer& buffer,
                          double factor) {
  ASSIGN_OR_RETURN(std::vector<float> values, loader.read_vector(name, size));
  num_parameters_ += size;
  weight_bytes_ += size * static_cast<int64_t>(sizeof(float));
  for (float& value : values) {
    value = static_cast<float>(factor * (static_cast<double>(value) + (whole_.norm_weights_minus_one ? 1.0 : 0.0)));
  }
  return buffer.upload(backend_, values);
}

Status Decoder::load_biases(WeightLoader& loader, const std::string& prefix, const std::vector<RowsPart>& parts,
                            FloatBuffer& buffer) {
  std::vector<float> stacked;
  for (const RowsPart& bias : parts) {
    ASSIGN_OR_RETURN(const std::vector<float> values, loader.read_vector(prefix + bias.name, bias.size));
    stacked.insert(stacked.end(), values.begin() + bias.part.begin, values.begin() + bias.part.end);
  }
  num_parameters_ += static_cast<int64_t>(stacked.size());
  weight_bytes_ += static_cast<int64_t>(stacked.size() * sizeof(float));
  return buffer.upload(backend_, stacked);
}

Status Decoder::load_layer(WeightLoader& loader, const std::string& prefix, Layer& layer) {
  const int64_t hidden = whole_.hidden_size;
  const int64_t inner = whole_.intermediate_size;
  const int64_t q_size = whole_.q_size();
  const int64_t kv_size = whole_.kv_size();
  const int64_t head_dim = whole_.head_dim;
  const IndexRange q_part = {shard_.heads.begin * head_dim, shard_.heads.end * head_dim};
  const IndexRange kv_part = {shard_.kv_heads.begin * head_dim, shard_.kv_heads.end * head_dim};
  const IndexRange all = {0, hidden};

  std::vector<HostTensor> qkv(3);
  RETURN_IF_ERROR(read_stacked(
      loader, prefix + "self_attn.", whole_.fused_qkv ? "qkv_proj.weight" : nullptr,
      {{"q_proj.weight", q_size, q_part}, {"k_proj.weight", kv_size, kv_part}, {"v_proj.weight", kv_size, kv_part}},
      qkv));
  if (config_.rope.interleaved) {
    uninterleave_rope_rows(qkv[0], config_.num_attention_heads, head_dim);
    uninterleave_rope_rows(qkv[1], config_.num_key_value_heads, head_dim);
  }
  RETURN_IF_ERROR(stack(qkv, layer.qkv));
  RETURN_IF_ERROR(load_matrix(loader, prefix + "self_attn.o_proj.weight", hidden, q_size, columns_of(q_part),
                              layer.attention_output));
  if (config_.qkv_bias) {
    RETURN_IF_ERROR(load_biases(loader, prefix,
                                {{"self_attn.q_proj.bias", q_size, q_part},
                                 {"self_attn.k_proj.bias", kv_size, kv_part},
                                 {"self_attn.v_proj.bias", kv_size, kv_part}},
                                layer.qkv_bias));
  }
  if (config_.attention_output_bias) {
    RETURN_IF_ERROR(load_biases(loader, prefix, {{"self_attn.o_proj.bias", hidden, all}}, layer.attention_output_bias));
  }
  if (config_.qk_norm != QkNorm::kNone) {
    const bool of_heads = config_.qk_norm == QkNorm::kHead;
    RETURN_IF_ERROR(load_norm(loader, prefix + "self_attn.q_norm.weight", of_heads ? head_dim : q_size, layer.q_norm));
    RETURN_IF_ERROR(load_norm(loader, prefix + "self_attn.k_norm.weight", of_heads ? head_dim : kv_size, layer.k_norm));
  }
  std::vector<HostTensor> gate_up(2);
  RETURN_IF_ERROR(read_stacked(loader, prefix + "mlp.", whole_.fused_gate_up ? "gate_up_proj.weight" : nullptr,
                               {{"gate_proj.weight", inner, shard_.inner}, {"up_proj.weight", inner, shard_.inner}},
                               gate_up));
  RETURN_IF_ERROR(stack(gate_up, layer.gate_up));
  RETURN_IF_ERROR(
      load_matrix(loader, prefix + "mlp.down_proj.weight", hidden, inner, columns_of(shard_.inner), layer.down));
  if (config_.mlp_bias) {
    RETURN_IF_ERROR(load_biases(
        loader, prefix, {{"mlp.gate_proj.bias", inner, shard_.inner}, {"mlp.up_proj.bias", inner, shard_.inner}},
        layer.gate_up_bias));
    RETURN_IF_ERROR(load_biases(loader, prefix, {{"mlp.down_proj.bias", hidden, all}}, layer.down_bias));
  }
  return ok_status();
}

Status Decoder::make_rope_table(const RopeConfig& config, int64_t num_positions, Rope& rope) {
  const std::vector<double> inverse_frequencies = rope_inverse_frequencies(config_, config, num_positions);
  const double factor = rope_attention_factor(config_, config);
  std::vector<float> cosines, sines;
  cosines.reserve(static_cast<size_t>(num_positions) * inverse_frequencies.size());
  sines.reserve(cosines.capacity());
  for (int64_t position = 0; position < num_positions; ++position) {
    for (const double frequency : inverse_frequencies) {
      const double angle = static_cast<double>(position) * frequency;
      cosines.push_back(static_cast<float>(factor * std::cos(angle)));
      sines.push_back(static_cast<float>(factor * std::sin(angle)));
    }
  }
  RETURN_IF_ERROR(rope.cos.upload(backend_, cosines));
  RETURN_IF_ERROR(rope.sin.upload(backend_, sines));
  rope.table = {static_cast<int32_t>(2 * inverse_frequencies.size()), num_positions, rope.cos.data(), rope.sin.data()};
  return ok_status();
}

Status Decoder::load(WeightLoader& loader, const ModelLoadOptions& options) {
  const int64_t hidden = config_.hidden_size;
  const int64_t vocab_size = config_.vocab_size;
  const MatrixPart vocab_rows = rows_of(shard_.vocab);
  const PipelineStage& stage = shard_.pipeline;
  if (stage.is_first() || (stage.is_last() && config_.tie_word_embeddings)) {
    RETURN_IF_ERROR(load_matrix(loader, "model.embed_tokens.weight", vocab_size, hidden, vocab_rows, embedding_));
  }
  layers_.resize(static_cast<size_t>(config_.num_hidden_layers));
  for (size_t i = 0; i < layers_.size(); ++i) {
    const std::string prefix = "model.layers." + std::to_string(stage.layers.begin + static_cast<int64_t>(i)) + ".";
    RETURN_IF_ERROR(load_layer(loader, prefix, layers_[i]));
    RETURN_IF_ERROR(load_norms(loader, prefix, i));
  }
  if (stage.is_last()) {
    RETURN_IF_ERROR(load_norm(loader, "model.norm.weight", hidden, final_norm_, 1 / config_.logits_scaling));
    if (!config_.tie_word_embeddings) {
      RETURN_IF_ERROR(load_matrix(loader, "lm_head.weight", vocab_size, hidden, vocab_rows, lm_head_));
    }
  }
  for (size_t kind = 0; kind < ropes_.size(); ++kind) {
    const bool slides = config_.sliding_window && kind == 0;
    RETURN_IF_ERROR(make_rope_table(slides && config_.sliding_rope ? *config_.sliding_rope : config_.rope,
                                    options.max_model_len, ropes_[kind]));
  }

  const int64_t rows = options.max_num_batched_tokens;
  const DType act = backend_.activation_dtype();
  RETURN_IF_ERROR(residual_.allocate(backend_, DType::kFloat32, rows * hidden));
  RETURN_IF_ERROR(normed_.allocate(backend_, act, rows * hidden));
  RETURN_IF_ERROR(qkv_.allocate(backend_, act, rows * (config_.q_size() + 2 * config_.kv_size())));
  RETURN_IF_ERROR(attended_.allocate(backend_, act, rows * config_.q_size()));
  RETURN_IF_ERROR(projected_.allocate(backend_, act, rows * hidden));
  RETURN_IF_ERROR(gate_up_.allocate(backend_, act, rows * 2 * config_.intermediate_size));
  RETURN_IF_ERROR(activated_.allocate(backend_, act, rows * config_.intermediate_size));
  if (!stage.is_last()) return ok_status();
  RETURN_IF_ERROR(logits_input_.allocate(backend_, act, rows * hidden));
  if (group_ == nullptr) return ok_status();
  for (int rank = 0; rank < group_->size(); ++rank) {
    vocab_sizes_.push_back(vocab_size * (rank + 1) / group_->size() - vocab_size * rank / group_->size());
  }
  CHECK_EQ(vocab_sizes_[static_cast<size_t>(group_->rank())], shard_.vocab.size());
  const int64_t logits_rows = options.max_logits_rows;
  RETURN_IF_ERROR(logits_part_.allocate(backend_, DType::kFloat32, logits_rows * shard_.vocab.size()));
  if (group_->rank() != 0) return ok_status();
  return gathered_logits_.allocate(backend_, DType::kFloat32, logits_rows * vocab_size);
}

void Decoder::compute_logits(Tensor hidden_rows, Tensor logits) {
  const WeightMatrix& head = lm_head_ ? *lm_head_ : *embedding_;
  const auto cap = static_cast<float>(config_.final_logit_softcap);
  if (group_ == nullptr) {
    backend_.matmul(head, hidden_rows, logits);
    if (cap > 0) backend_.softcap(logits, cap);
    return;
  }
  const Tensor part = logits_part_.rows(hidden_rows.rows, shard_.vocab.size());
  backend_.matmul(head, hidden_rows, part);
  const Tensor gathered = group_->rank() == 0 ? gathered_logits_.rows(hidden_rows.rows, config_.vocab_size) : Tensor();
  backend_.gather_columns(*group_, part, vocab_sizes_, gathered, logits);
  if (cap > 0 && group_->rank() == 0) backend_.softcap(logits, cap);
}

void Decoder::reduce(Backend& ops, Tensor x) {
  if (group_ != nullptr) ops.all_reduce(*group_, x);
}

void Decoder::add_and_norm(Backend& ops, const Rows& rows, const FloatBuffer& weight) {
  if (group_ == nullptr) {
    ops.add_rms_norm(rows.residual, rows.projected, weight.data(), norm_eps(), rows.normed);
  } else {
    ops.all_reduce_add_rms_norm(*group_, rows.residual, rows.projected, weight.data(), norm_eps(), rows.normed);
  }
}

void Decoder::norm_projected(Backend& ops, const Rows& rows, const FloatBuffer& weight) {
  reduce(ops, rows.projected);
  ops.rms_norm_heads(rows.projected, config_.hidden_size, weight.data(), norm_eps());
}

void Decoder::by_rows(int64_t num_rows, const Backend::RowsBody& body) {
  if (group_ != nullptr) return body(backend_, 0, num_rows, 0);
  backend_.by_rows(num_rows, body);
}

void Decoder::project_qkv(Backend& ops, size_t i, Tensor normed, Tensor qkv, KvCache& cache) {
  const Layer& layer = layers_[i];
  ops.matmul(*layer.qkv, normed, qkv);
  if (config_.qkv_bias) ops.add_bias(qkv, layer.qkv_bias.data());
  if (config_.qk_norm != QkNorm::kNone) {
    const auto eps = static_cast<float>(config_.rms_norm_eps);
    const bool of_heads = config_.qk_norm == QkNorm::kHead;
    const int64_t q_size = config_.q_size(), kv_size = config_.kv_size();
    ops.rms_norm_heads(qkv.column_range(0, q_size), of_heads ? config_.head_dim : q_size, layer.q_norm.data(), eps);
    ops.rms_norm_heads(qkv.column_range(q_size, kv_size), of_heads ? config_.head_dim : kv_size, layer.k_norm.data(),
                       eps);
  }
  ops.rope_and_cache(qkv, ropes_[kind_of(i)].table, attention_kinds_[kind_of(i)], cache, static_cast<int32_t>(i));
}

void Decoder::project_attended(Backend& ops, size_t i, const Rows& rows) {
  const Layer& layer = layers_[i];
  ops.matmul(*layer.attention_output, rows.attended, rows.projected);
  if (config_.attention_output_bias && adds_bias()) ops.add_bias(rows.projected, layer.attention_output_bias.data());
}

void Decoder::feed_forward(Backend& ops, size_t i, const Rows& rows) {
  const Layer& layer = layers_[i];
  ops.matmul(*layer.gate_up, rows.normed, rows.gate_up);
  if (config_.mlp_bias) ops.add_bias(rows.gate_up, layer.gate_up_bias.data());
  ops.activation_mul(rows.gate_up, activation_, rows.activated);
  ops.matmul(*layer.down, rows.activated, rows.projected);
  if (config_.mlp_bias && adds_bias()) ops.add_bias(rows.projected, layer.down_bias.data());
}

void Decoder::finish(Backend& ops, size_t i, Tensor residual, Tensor attended, Tensor normed, int64_t place) {
  const int64_t rows = residual.rows, inner = config_.intermediate_size;
  finish_layer(ops, i,
               {residual, attended, normed, projected_.rows(place + rows, config_.hidden_size).row_range(place, rows),
                gate_up_.rows(place + rows, 2 * inner).row_range(place, rows),
                activated_.rows(place + rows, inner).row_range(place, rows)});
}

void Decoder::finish_last_layer(Tensor qkv, Tensor residual, Tensor attended, Tensor rows, const KvCache& cache) {
  if (rows.rows == 0) return;
  const size_t last = layers_.size() - 1;
  backend_.attention(qkv, attention_kinds_[kind_of(last)], cache, static_cast<int32_t>(last), attended);
  // qkv_ and normed_ have been read for the last time.
  const Tensor few_residual = normed_.rows(rows.rows, config_.hidden_size, DType::kFloat32);
  const Tensor few_attended = qkv_.rows(rows.rows, config_.q_size());
  backend_.gather_logits_rows(residual, few_residual);
  backend_.gather_logits_rows(attended, few_attended);
  by_rows(rows.rows, [&](Backend& ops, int64_t first, int64_t count, int64_t place) {
    finish(ops, last, few_residual.row_range(first, count), few_attended.row_range(first, count),
           rows.row_range(first, count), place);
  });
}

Tensor Decoder::forward(int64_t num_tokens, int64_t num_logits_rows, KvCache& cache) {
  const int64_t hidden = config_.hidden_size;
  const Tensor residual = residual_.rows(num_tokens, hidden);
  const Tensor normed = normed_.rows(num_tokens, hidden);
  const Tensor qkv = qkv_.rows(num_tokens, config_.q_size() + 2 * config_.kv_size());
  const Tensor attended = attended_.rows(num_tokens, config_.q_size());

  const auto embedding_factor = static_cast<float>(config_.embedding_multiplier / config_.residual_multiplier);
  const PipelineStage& stage = shard_.pipeline;
  if (!stage.is_first()) {
    // The stage before has put its sums there.
  } else if (group_ == nullptr) {
    backend_.embed(*embedding_, embedding_factor, residual);
  } else {
    backend_.embed_part(*embedding_, shard_.vocab.begin, embedding_factor, residual);
    backend_.all_reduce(*group_, residual);
  }
  by_rows(num_tokens, [&](Backend& ops, int64_t first, int64_t count, int64_t place) {
    const Tensor part = normed.row_range(place, count);
    begin_layers(ops, residual.row_range(first, count), part);
    project_qkv(ops, 0, part, qkv.row_range(first, count), cache);
  });
  // Of rows whose logits nobody wants the last layer makes keys and values alone.
  const bool few_logits = stage.is_last() && has_few_logits(num_tokens, num_logits_rows);
  const Tensor rows = stage.is_last() ? logits_input_.rows(num_logits_rows, hidden) : Tensor();
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (few_logits && i + 1 == layers_.size()) {
      finish_last_layer(qkv, residual, attended, rows, cache);
      return rows;
    }
    backend_.attention(qkv, attention_kinds_[kind_of(i)], cache, static_cast<int32_t>(i), attended);
    const bool last = i + 1 == layers_.size();
    by_rows(num_tokens, [&](Backend& ops, int64_t first, int64_t count, int64_t place) {
      // The last layer's are what logits come from.
      const Tensor part = normed.row_range(last ? first : place, count);
      finish(ops, i, residual.row_range(first, count), attended.row_range(first, count), part, place);
      if (!last) project_qkv(ops, i + 1, part, qkv.row_range(first, count), cache);
    });
  }
  if (!stage.is_last()) return {};
  backend_.gather_logits_rows(normed, rows);
  return rows;
}

}  // namespace sextant
