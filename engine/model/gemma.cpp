#include "engine/model/gemma.h"

#include <string>
#include <utility>
#include <vector>

#include "engine/model/decoder.h"

namespace sextant {
namespace {

class Gemma final : public Decoder {
 public:
  using Decoder::Decoder;

 private:
  struct Norms {
    FloatBuffer input, post_attention, pre_feedforward, post_feedforward;  // [H]
  };

  Status load_norms(WeightLoader& loader, const std::string& prefix, size_t i) override {
    norms_.resize(static_cast<size_t>(num_layers()));
    Norms& norms = norms_[i];
    const int64_t hidden = hidden_size();
    RETURN_IF_ERROR(load_norm(loader, prefix + "input_layernorm.weight", hidden, norms.input));
    RETURN_IF_ERROR(load_norm(loader, prefix + "post_attention_layernorm.weight", hidden, norms.post_attention));
    RETURN_IF_ERROR(load_norm(loader, prefix + "pre_feedforward_layernorm.weight", hidden, norms.pre_feedforward));
    return load_norm(loader, prefix + "post_feedforward_layernorm.weight", hidden, norms.post_feedforward);
  }

  void begin_layers(Backend& ops, Tensor residual, Tensor normed) override {
    ops.rms_norm(residual, norms_[0].input.data(), norm_eps(), normed);
  }

  void finish_layer(Backend& ops, size_t i, const Rows& rows) override {
    const Norms& norms = norms_[i];
    project_attended(ops, i, rows);
    norm_projected(ops, rows, norms.post_attention);
    ops.add_rms_norm(rows.residual, rows.projected, norms.pre_feedforward.data(), norm_eps(), rows.normed);
    feed_forward(ops, i, rows);
    norm_projected(ops, rows, norms.post_feedforward);
    if (hands_on(i)) return ops.add(rows.residual, rows.projected);
    const FloatBuffer& next = is_last(i) ? final_norm() : norms_[i + 1].input;
    ops.add_rms_norm(rows.residual, rows.projected, next.data(), norm_eps(), rows.normed);
  }

  std::vector<Norms> norms_;
};

}  // namespace

Result<std::unique_ptr<Model>> load_gemma(const ModelConfig& config, WeightLoader& loader, Backend& backend,
                                          const ModelLoadOptions& options) {
  auto model = std::make_unique<Gemma>(config, backend, options);
  RETURN_IF_ERROR(model->load(loader, options));
  return std::unique_ptr<Model>(std::move(model));
}

}  // namespace sextant
