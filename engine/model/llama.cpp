#include "engine/model/llama.h"

#include <string>
#include <utility>
#include <vector>

#include "engine/model/decoder.h"

namespace sextant {
namespace {

// Norms before attention and before the feed-forward layer. The sum with the residual stream is one op with the norm that follows.
class Llama final : public Decoder {
 public:
  using Decoder::Decoder;

 private:
  struct Norms {
    FloatBuffer input, post_attention;  // [H]
  };

  Status load_norms(WeightLoader& loader, const std::string& prefix, size_t i) override {
    norms_.resize(static_cast<size_t>(num_layers()));
    RETURN_IF_ERROR(load_norm(loader, prefix + "input_layernorm.weight", hidden_size(), norms_[i].input));
    return load_norm(loader, prefix + "post_attention_layernorm.weight", hidden_size(), norms_[i].post_attention);
  }

  void begin_layers(Backend& ops, Tensor residual, Tensor normed) override {
    ops.rms_norm(residual, norms_[0].input.data(), norm_eps(), normed);
  }

  void finish_layer(Backend& ops, size_t i, const Rows& rows) override {
    project_attended(ops, i, rows);
    add_and_norm(ops, rows, norms_[i].post_attention);
    feed_forward(ops, i, rows);
    if (hands_on(i)) {
      reduce(ops, rows.projected);
      return ops.add(rows.residual, rows.projected);
    }
    add_and_norm(ops, rows, is_last(i) ? final_norm() : norms_[i + 1].input);
  }

  std::vector<Norms> norms_;
};

}  // namespace

Result<std::unique_ptr<Model>> load_llama(const ModelConfig& config, WeightLoader& loader, Backend& backend,
                                          const ModelLoadOptions& options) {
  auto model = std::make_unique<Llama>(config, backend, options);
  RETURN_IF_ERROR(model->load(loader, options));
  return std::unique_ptr<Model>(std::move(model));
}

}  // namespace sextant
