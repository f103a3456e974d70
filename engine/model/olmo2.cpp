#include "engine/model/olmo2.h"

#include <string>
#include <utility>
#include <vector>

#include "engine/model/decoder.h"

namespace sextant {
namespace {

class Olmo2 final : public Decoder {
 public:
  using Decoder::Decoder;

 private:
  struct Norms {
    FloatBuffer post_attention, post_feedforward;  // [H]
  };

  Status load_norms(WeightLoader& loader, const std::string& prefix, size_t i) override {
    norms_.resize(static_cast<size_t>(num_layers()));
    RETURN_IF_ERROR(
        load_norm(loader, prefix + "post_attention_layernorm.weight", hidden_size(), norms_[i].post_attention));
    return load_norm(loader, prefix + "post_feedforward_layernorm.weight", hidden_size(), norms_[i].post_feedforward);
  }

  void begin_layers(Backend& ops, Tensor residual, Tensor normed) override { ops.round(residual, normed); }

  void finish_layer(Backend& ops, size_t i, const Rows& rows) override {
    project_attended(ops, i, rows);
    norm_projected(ops, rows, norms_[i].post_attention);
    ops.add(rows.residual, rows.projected);
    ops.round(rows.residual, rows.normed);
    feed_forward(ops, i, rows);
    norm_projected(ops, rows, norms_[i].post_feedforward);
    if (is_last(i) && !hands_on(i)) {
      return ops.add_rms_norm(rows.residual, rows.projected, final_norm().data(), norm_eps(), rows.normed);
    }
    ops.add(rows.residual, rows.projected);
    if (!hands_on(i)) ops.round(rows.residual, rows.normed);
  }

  std::vector<Norms> norms_;
};

}  // namespace

Result<std::unique_ptr<Model>> load_olmo2(const ModelConfig& config, WeightLoader& loader, Backend& backend,
                                          const ModelLoadOptions& options) {
  auto model = std::make_unique<Olmo2>(config, backend, options);
  RETURN_IF_ERROR(model->load(loader, options));
  return std::unique_ptr<Model>(std::move(model));
}

}  // namespace sextant
