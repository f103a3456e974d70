// ModelRunner: one batch to logits on one rank. Logits are made a few rows at a time, so that their buffer stays small
// however many prompt rows want them. Thread: the worker's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "engine/device/backend.h"
#include "engine/exec/forward_batch.h"
#include "engine/model/model.h"

namespace sextant {

class ModelRunner {
 public:
  static constexpr int64_t kLogitsRows = 64;  // at once

  // `backend` outlives the runner.
  static Result<std::unique_ptr<ModelRunner>> create(Backend& backend, std::unique_ptr<Model> model,
                                                     std::unique_ptr<KvCache> cache, int64_t vocab_size);

  // Calls on_logits(first, logits) with [rows, vocab_size] for logits_indices [first, first + rows) of the batch, in order.
  // The logits may be changed in place and are gone when it returns.
  Status execute(const ForwardBatch& batch, const std::function<void(int64_t first, Tensor logits)>& on_logits);

  const Model& model() const { return *model_; }
  const KvCache& cache() const { return *cache_; }

 private:
  ModelRunner(Backend& backend, std::unique_ptr<Model> model, std::unique_ptr<KvCache> cache)
      : backend_(backend), model_(std::move(model)), cache_(std::move(cache)) {}

  Backend& backend_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<DeviceBuffer> logits_;  // [kLogitsRows, vocab_size]
  int64_t vocab_size_ = 0;
};

}  // namespace sextant
