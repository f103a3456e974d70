// ModelRunner: one batch to logits on one rank; of a model cut between ranks, all of them run the same batches. Logits are made a few rows at a time, so that their buffer stays small
// however many prompt rows want them. Thread: the worker's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "engine/device/backend.h"
#include "engine/exec/forward_batch.h"
#include "engine/model/model.h"

namespace sextant {

class ModelRunner {
 public:
  // `backend` outlives the runner. `logits_rows` of them at once.
  static Result<std::unique_ptr<ModelRunner>> create(Backend& backend, std::unique_ptr<Model> model, int64_t vocab_size,
                                                     int64_t logits_rows);

  // Before the first step, and before record_steps(): records hold the cache's address.
  void set_cache(std::unique_ptr<KvCache> cache) { cache_ = std::move(cache); }
  // Runs a prompt of so many tokens over the null block alone, so that all that is allocated at first use is.
  Status warm_up(int64_t num_tokens);
  // Records a decode step of each of the backend's sizes, so that no request waits for it.
  Status record_steps();

  // Of a model in several stages, before the first step: the ranks that pass rows on to one another, by stage. It outlives the
  // runner.
  void set_pipeline_group(Communicator* group) { pipeline_group_ = group; }

  // Whether logits come together on this rank: a whole model, or rank 0 of a cut one's last stage.
  bool has_logits() const {
    return model_->stage().is_last() && (model_->tensor_group() == nullptr || model_->tensor_group()->rank() == 0);
  }

  // On a rank that has logits calls on_logits(first, logits) with [rows, vocab_size] for logits_indices [first, first + rows) of the batch, in order.
  // The logits are host memory, may be changed in place and are gone when it returns.
  Status execute(const ForwardBatch& batch, const std::function<void(int64_t first, Tensor logits)>& on_logits);

  // For a backend that samples: enqueues the step with its sampling and returns; the backend's collect_samples() has what
  // came of it. A decode step is filled up to a size that the backend records. `inputs` of the batch, with what the worker adds.
  Status enqueue(ForwardBatch& batch, SampleBatch& sampling, std::span<const int32_t> previous_rows,
                 std::span<const int32_t> previous_places);

  const Model& model() const { return *model_; }
  const KvCache& cache() const { return *cache_; }

 private:
  ModelRunner(Backend& backend, std::unique_ptr<Model> model) : backend_(backend), model_(std::move(model)) {}

  Backend& backend_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<KvCache> cache_;
  Communicator* pipeline_group_ = nullptr;

  Tensor logits_of(Tensor hidden, int64_t first);
  void receive_rows(int64_t num_tokens);
  void send_rows(int64_t num_tokens);
  void run_recordable(int64_t num_tokens, int64_t num_rows);

  std::unique_ptr<DeviceBuffer> logits_;  // [logits_rows_, vocab_size_]
  int64_t vocab_size_ = 0;
  int64_t logits_rows_ = 0;
};

}  // namespace sextant
