#include "engine/exec/model_runner.h"

#include <algorithm>
#include <utility>

namespace sextant {

Result<std::unique_ptr<ModelRunner>> ModelRunner::create(Backend& backend, std::unique_ptr<Model> model,
                                                         std::unique_ptr<KvCache> cache, int64_t vocab_size) {
  std::unique_ptr<ModelRunner> runner(new ModelRunner(backend, std::move(model), std::move(cache)));
  runner->vocab_size_ = vocab_size;
  ASSIGN_OR_RETURN(runner->logits_, backend.allocate(static_cast<size_t>(kLogitsRows * vocab_size) * sizeof(float)));
  return runner;
}

Status ModelRunner::execute(const ForwardBatch& batch, const std::function<void(int64_t, Tensor)>& on_logits) {
  backend_.plan(batch.attention(), model_->attention());
  const Tensor hidden = model_->forward({batch.token_ids(), batch.logits_indices()}, *cache_);
  for (int64_t first = 0; first < hidden.rows; first += kLogitsRows) {
    const int64_t rows = std::min(kLogitsRows, hidden.rows - first);
    Tensor part = hidden;
    part.data = hidden.f32() + first * hidden.row_stride;
    part.rows = rows;
    const Tensor logits{logits_->data(), DType::kFloat32, rows, vocab_size_, vocab_size_};
    model_->compute_logits(part, logits);
    RETURN_IF_ERROR(backend_.synchronize());
    on_logits(first, logits);
  }
  return backend_.synchronize();
}

}  // namespace sextant
