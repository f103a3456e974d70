// Decoder: what the families of decoder-only transformers have in common: embedding, projections of q, k and v, attention over the
// paged cache, a gated feed-forward layer, final norm and head; how they are loaded, cut between ranks and stages, and run. A family
// says where its norms stand: the straight list of ops between one layer's attention and the next's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/model/model.h"

namespace sextant {

// fp32 values in device memory: norm weights, biases, tables.
class FloatBuffer {
 public:
  Status upload(Backend& backend, const std::vector<float>& values);
  float* data() const { return buffer_ ? static_cast<float*>(buffer_->data()) : nullptr; }

 private:
  std::unique_ptr<DeviceBuffer> buffer_;
};

// Activations of one step in device memory.
class ActivationBuffer {
 public:
  Status allocate(Backend& backend, DType dtype, int64_t count);
  Tensor rows(int64_t num_rows, int64_t cols) const { return rows(num_rows, cols, dtype_); }
  // As another type: the caller knows that they fit.
  Tensor rows(int64_t num_rows, int64_t cols, DType dtype) const {
    return {buffer_->data(), dtype, num_rows, cols, cols};
  }

 private:
  DType dtype_ = DType::kFloat32;
  std::unique_ptr<DeviceBuffer> buffer_;
};

class Decoder : public Model {
 public:
  Decoder(const ModelConfig& config, Backend& backend, const ModelLoadOptions& options);

  Status load(WeightLoader& loader, const ModelLoadOptions& options);

  const AttentionKinds& attention() const override { return attention_kinds_; }
  Tensor forward(int64_t num_tokens, int64_t num_logits_rows, KvCache& cache) override;
  Tensor stage_rows(int64_t num_tokens) const override { return residual_.rows(num_tokens, config_.hidden_size); }
  const PipelineStage& stage() const override { return shard_.pipeline; }
  void compute_logits(Tensor hidden_rows, Tensor logits) override;
  Communicator* tensor_group() const override { return group_; }
  int64_t weight_bytes() const override { return weight_bytes_; }
  int64_t num_parameters() const override { return num_parameters_; }

 protected:
  // Rows of a step, or a part of them, and buffers for as many.
  struct Rows {
    Tensor residual;   // f32 [T, H]: the stream that layers add to
    Tensor attended;   // act [T, heads * D]: what this layer's attention gave
    Tensor normed;     // act [T, H]
    Tensor projected;  // act [T, H]
    Tensor gate_up;    // act [T, 2 * I]
    Tensor activated;  // act [T, I]
  };

  // What a family adds.
  // Reads the norms of layer `layer_idx` of the model, the i-th of this stage; called once for each, in order.
  virtual Status load_norms(WeightLoader& loader, const std::string& prefix, size_t i) = 0;
  // normed = what q, k and v of the stage's first layer are made of.
  virtual void begin_layers(Backend& ops, Tensor residual, Tensor normed) = 0;
  // From attended rows of layer i to its sums in `residual` and, in `normed`, what q, k and v of the layer after it are made of, or the
  // head. After the last layer of a stage that hands its rows on `normed` stays as it is.
  virtual void finish_layer(Backend& ops, size_t i, const Rows& rows) = 0;

  // Its parts. Outputs of the two are this rank's share of a sum over the ranks.
  void project_attended(Backend& ops, size_t i, const Rows& rows);  // attended -> projected
  void feed_forward(Backend& ops, size_t i, const Rows& rows);      // normed -> projected
  // x = sum over ranks of x.
  void reduce(Backend& ops, Tensor x);
  // residual += projected, summed over the ranks; normed = rms_norm(residual).
  void add_and_norm(Backend& ops, const Rows& rows, const FloatBuffer& weight);
  // projected = rms_norm(projected, summed over the ranks).
  void norm_projected(Backend& ops, const Rows& rows, const FloatBuffer& weight);
  bool hands_on(size_t i) const { return i + 1 == layers_.size() && !shard_.pipeline.is_last(); }
  bool is_last(size_t i) const { return i + 1 == layers_.size(); }

  // A norm's weights as they multiply, times `factor`.
  Status load_norm(WeightLoader& loader, const std::string& name, int64_t size, FloatBuffer& buffer,
                   double factor = 1.0);

  int64_t hidden_size() const { return config_.hidden_size; }
  int64_t num_layers() const { return config_.num_hidden_layers; }  // of this stage
  // Of rows of the residual stream, which holds hidden states divided by residual_multiplier (`load`).
  float norm_eps() const { return norm_eps_; }
  const FloatBuffer& final_norm() const { return final_norm_; }

 private:
  struct Layer {
    std::unique_ptr<WeightMatrix> qkv;               // [(heads + 2 * kv heads) * D, H]
    FloatBuffer qkv_bias;                            // empty where there is none
    std::unique_ptr<WeightMatrix> attention_output;  // [H, heads * D]
    FloatBuffer attention_output_bias;
    FloatBuffer q_norm, k_norm;             // [D] or of the whole row; empty without qk_norm
    std::unique_ptr<WeightMatrix> gate_up;  // [2 * I, H]
    FloatBuffer gate_up_bias;               // empty without mlp_bias
    std::unique_ptr<WeightMatrix> down;     // [H, I]
    FloatBuffer down_bias;
  };

  Status load_layer(WeightLoader& loader, const std::string& prefix, Layer& layer);
  Status load_matrix(WeightLoader& loader, const std::string& name, int64_t rows, int64_t cols, const MatrixPart& part,
                     std::unique_ptr<WeightMatrix>& matrix);
  // Of a matrix or bias of `size` rows, those that this rank keeps.
  struct RowsPart {
    const char* name;
    int64_t size;
    IndexRange part;
  };
  // Matrices of their own, or rows of the one named `fused`, which holds them in this order.
  Status read_stacked(WeightLoader& loader, const std::string& prefix, const char* fused,
                      const std::vector<RowsPart>& parts, std::vector<HostTensor>& matrices) const;
  Status stack(const std::vector<HostTensor>& parts, std::unique_ptr<WeightMatrix>& matrix);
  Status load_biases(WeightLoader& loader, const std::string& prefix, const std::vector<RowsPart>& parts,
                     FloatBuffer& buffer);
  struct Rope {
    FloatBuffer cos, sin;
    RopeTable table;
  };
  Status make_rope_table(const RopeConfig& config, int64_t num_positions, Rope& rope);
  // Which of attention_kinds_ layer i of the stage is of.
  size_t kind_of(size_t i) const {
    return attention_kinds_.size() == 1 || config_.slides(static_cast<int64_t>(i)) ? 0 : 1;
  }
  // Layer i's q, k and v of normed rows, k and v into the cache.
  void project_qkv(Backend& ops, size_t i, Tensor normed, Tensor qkv, KvCache& cache);
  // finish_layer() with the buffers' rows from `place` on.
  void finish(Backend& ops, size_t i, Tensor residual, Tensor attended, Tensor normed, int64_t place);
  // All of the last layer but its keys and values, for the rows that logits come from, normed into `rows`.
  void finish_last_layer(Tensor qkv, Tensor residual, Tensor attended, Tensor rows, const KvCache& cache);
  // Backend::by_rows where rows need no other rank; else one part.
  void by_rows(int64_t num_rows, const Backend::RowsBody& body);
  // Biases of outputs that are summed over the ranks are added on one of them.
  bool adds_bias() const { return group_ == nullptr || group_->rank() == 0; }

  const ModelConfig whole_;
  const TensorShard shard_;
  Communicator* const group_;
  const ModelConfig config_;  // of this rank's part
  Backend& backend_;
  const AttentionKinds attention_kinds_;
  const Activation activation_;
  const float norm_eps_;
  std::vector<Rope> ropes_;  // one for each of attention_kinds_

  std::unique_ptr<WeightMatrix> embedding_;  // [V, H], of the part V's rows; the head too when tied
  std::unique_ptr<WeightMatrix> lm_head_;    // [V, H]; null when tied
  FloatBuffer final_norm_;
  std::vector<Layer> layers_;
  int64_t weight_bytes_ = 0;
  int64_t num_parameters_ = 0;

  // Activations of one step, [max_num_batched_tokens, ...].
  ActivationBuffer residual_, normed_, qkv_, attended_, gate_up_, activated_, projected_, logits_input_;
  // Of a part: this rank's columns of the logits, and all ranks' on rank 0.
  ActivationBuffer logits_part_, gathered_logits_;
  std::vector<int64_t> vocab_sizes_;  // by rank
};

}  // namespace sextant
