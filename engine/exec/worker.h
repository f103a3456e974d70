// Worker: carries out SchedulerOutputs on one rank. It keeps each sequence's block table and sampler state between steps and
// learns of changes only from SchedulerOutput. Thread: the engine's; one step at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/core/scheduler_output.h"
#include "engine/exec/forward_batch.h"
#include "engine/exec/model_runner.h"
#include "engine/exec/sample_rows.h"
#include "engine/exec/sampler.h"
#include "engine/exec/step_executor.h"

namespace sextant {

class Worker final : public StepExecutor {
 public:
  // `backend` outlives the worker.
  Worker(Backend& backend, std::unique_ptr<ModelRunner> runner, std::vector<int32_t> eos_token_ids, int32_t block_size)
      : backend_(backend), runner_(std::move(runner)), sampler_(std::move(eos_token_ids)), block_size_(block_size) {}

  Status submit(std::shared_ptr<const SchedulerOutput> step) override;
  Result<ModelOutput> collect() override;
  double device_busy_s() const override { return backend_.device_busy_s(); }

  const ModelRunner& runner() const { return *runner_; }
  size_t num_sequences() const { return sequences_.size(); }

 private:
  struct SequenceState {
    SequenceState(std::shared_ptr<const Request> request, int32_t choice_idx)
        : sampler(std::move(request), choice_idx) {}
    std::vector<BlockId> block_table;
    SamplerState sampler;
    int32_t last_row = -1;  // of the step before: the logits row that chose this sequence's newest token
  };
  // A step whose tokens the backend chooses, until they are collected.
  struct SampledStep {
    std::shared_ptr<const SchedulerOutput> step;
    std::vector<LogitsRows> rows;
  };

  void apply_changes(const SchedulerOutput& step);
  void choose_tokens(const SchedulerOutput& step, int64_t first, Tensor logits, ModelOutput& output);
  Status compute_and_sample(const SchedulerOutput& step);
  Status enqueue(std::shared_ptr<const SchedulerOutput> step);
  Result<ModelOutput> collect_sampled();

  Backend& backend_;
  std::unique_ptr<ModelRunner> runner_;
  Sampler sampler_;
  int32_t block_size_;
  std::unordered_map<SequenceId, SequenceState> sequences_;
  std::vector<SequenceState*> scheduled_;  // of the current step, in its order
  ForwardBatch batch_;
  std::deque<ModelOutput> outputs_;  // of submitted steps, where the host samples
  std::deque<SampledStep> sampled_steps_;
  SampleBatch sampling_;
  std::vector<int32_t> previous_rows_, previous_places_;
};

}  // namespace sextant
