#include "engine/exec/model_runner.h"

#include <algorithm>
#include <utility>

namespace sextant {

Result<std::unique_ptr<ModelRunner>> ModelRunner::create(Backend& backend, std::unique_ptr<Model> model,
                                                         int64_t vocab_size, int64_t logits_rows) {
  std::unique_ptr<ModelRunner> runner(new ModelRunner(backend, std::move(model)));
  runner->vocab_size_ = vocab_size;
  runner->logits_rows_ = logits_rows;
  if (!runner->has_logits()) return runner;
  ASSIGN_OR_RETURN(runner->logits_, backend.allocate(static_cast<size_t>(logits_rows * vocab_size) * sizeof(float)));
  return runner;
}

// The logits of hidden rows from `first` on, as many as the buffer holds.
Tensor ModelRunner::logits_of(Tensor hidden, int64_t first) {
  const int64_t rows = std::min(logits_rows_, hidden.rows - first);
  const Tensor logits{logits_ ? logits_->data() : nullptr, DType::kFloat32, rows, vocab_size_, vocab_size_};
  model_->compute_logits(hidden.row_range(first, rows), logits);
  return logits;
}

Status ModelRunner::execute(const ForwardBatch& batch, const std::function<void(int64_t, Tensor)>& on_logits) {
  const StepInputs inputs = batch.inputs();
  backend_.plan(inputs, model_->attention());
  const auto num_tokens = static_cast<int64_t>(inputs.token_ids.size());
  receive_rows(num_tokens);
  const Tensor hidden = model_->forward(num_tokens, static_cast<int64_t>(inputs.logits_indices.size()), *cache_);
  send_rows(num_tokens);
  for (int64_t first = 0; first < hidden.rows; first += logits_rows_) {
    const Tensor logits = logits_of(hidden, first);
    if (!has_logits()) continue;
    ASSIGN_OR_RETURN(const Tensor on_host, backend_.host_rows(logits));
    on_logits(first, on_host);
  }
  return backend_.synchronize();
}

Status ModelRunner::warm_up(int64_t num_tokens) {
  ForwardBatch batch;
  batch.build_null_prompt(static_cast<int32_t>(num_tokens));
  backend_.plan(batch.inputs(), model_->attention());
  receive_rows(num_tokens);
  const Tensor hidden = model_->forward(num_tokens, 1, *cache_);
  send_rows(num_tokens);
  if (hidden.rows > 0) logits_of(hidden, 0);
  return backend_.synchronize();
}

void ModelRunner::receive_rows(int64_t num_tokens) {
  const PipelineStage& stage = model_->stage();
  if (!stage.is_first()) backend_.receive(*pipeline_group_, model_->stage_rows(num_tokens), stage.stage - 1);
}

void ModelRunner::send_rows(int64_t num_tokens) {
  const PipelineStage& stage = model_->stage();
  if (!stage.is_last()) backend_.send(*pipeline_group_, model_->stage_rows(num_tokens), stage.stage + 1);
}

Status ModelRunner::record_steps() {
  for (const int32_t size : backend_.recorded_batch_sizes()) {
    ForwardBatch batch;
    batch.build_null_decodes(size);
    StepInputs inputs = batch.inputs();
    inputs.recorded = true;
    backend_.plan(inputs, model_->attention());
    backend_.record([&] { run_recordable(size, size); });
  }
  return backend_.synchronize();
}

// What a record holds: neither transfer, because those wait for other processes.
void ModelRunner::run_recordable(int64_t num_tokens, int64_t num_rows) {
  const Tensor hidden = model_->forward(num_tokens, num_rows, *cache_);
  if (hidden.rows > 0) logits_of(hidden, 0);
}

Status ModelRunner::enqueue(ForwardBatch& batch, SampleBatch& sampling, std::span<const int32_t> previous_rows,
                            std::span<const int32_t> previous_places) {
  const std::span<const int32_t> sizes = backend_.recorded_batch_sizes();
  const auto num_sequences = static_cast<int32_t>(batch.inputs().attention.seq_lens.size());
  const auto size = std::lower_bound(sizes.begin(), sizes.end(), num_sequences);
  const bool recorded = batch.is_decode() && size != sizes.end();
  if (recorded) {
    batch.pad(*size);
    sampling.rows.resize(static_cast<size_t>(*size), greedy_row());
  }
  StepInputs inputs = batch.inputs();
  inputs.sampling = &sampling;
  inputs.previous_rows = previous_rows;
  inputs.previous_places = previous_places;
  inputs.recorded = recorded;
  const auto num_tokens = static_cast<int64_t>(inputs.token_ids.size());
  const auto num_rows = static_cast<int64_t>(inputs.logits_indices.size());
  backend_.plan(inputs, model_->attention());
  receive_rows(num_tokens);
  if (recorded) {
    backend_.run_recorded([&] { run_recordable(num_tokens, num_rows); });
    send_rows(num_tokens);
    if (has_logits()) backend_.sample({logits_->data(), DType::kFloat32, num_rows, vocab_size_, vocab_size_}, 0);
  } else {
    const Tensor hidden = model_->forward(num_tokens, num_rows, *cache_);
    send_rows(num_tokens);
    for (int64_t first = 0; first < hidden.rows; first += logits_rows_) {
      const Tensor logits = logits_of(hidden, first);
      if (has_logits()) backend_.sample(logits, first);
    }
  }
  backend_.end_step();
  if (model_->tensor_group() != nullptr && model_->stage().is_last()) backend_.share_samples(*model_->tensor_group());
  return ok_status();
}

}  // namespace sextant
