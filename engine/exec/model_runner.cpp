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
  const StepInputs inputs = batch.inputs();
  backend_.plan(inputs, model_->attention());
  const Tensor hidden = model_->forward(static_cast<int64_t>(inputs.token_ids.size()),
                                        static_cast<int64_t>(inputs.logits_indices.size()), *cache_);
  for (int64_t first = 0; first < hidden.rows; first += kLogitsRows) {
    const int64_t rows = std::min(kLogitsRows, hidden.rows - first);
    const Tensor logits{logits_->data(), DType::kFloat32, rows, vocab_size_, vocab_size_};
    model_->compute_logits(hidden.row_range(first, rows), logits);
    RETURN_IF_ERROR(backend_.synchronize());
    on_logits(first, logits);
  }
  return backend_.synchronize();
}

}  // namespace sextant
