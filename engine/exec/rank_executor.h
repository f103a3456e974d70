// RankExecutor: the steps of several ranks of one process, each on its thread. Every rank gets every step; rank 0's results
// are the step's. The first rank that fails fails the step, and the communicators are aborted so that nobody waits for it.
// Thread: the engine's.
#pragma once

#include <memory>
#include <vector>

#include "engine/device/backend.h"
#include "engine/device/communicator.h"
#include "engine/exec/rank_thread.h"
#include "engine/exec/step_executor.h"

namespace sextant {

class RankExecutor final : public StepExecutor {
 public:
  // What one rank is made of, on its thread; destroyed there, from the last member to the first.
  struct Rank {
    std::unique_ptr<Backend> backend;
    std::vector<std::unique_ptr<Communicator>> communicators;
    std::unique_ptr<StepExecutor> worker;
  };
  // As many threads as ranks, at least one.
  RankExecutor(std::vector<std::unique_ptr<RankThread>> threads, std::vector<Rank> ranks);
  ~RankExecutor() override;

  Status submit(std::shared_ptr<const SchedulerOutput> step) override;
  Result<ModelOutput> collect() override;
  double device_busy_s() const override { return device_busy_s_; }
  CollectiveCounters collective_counters() const override;

 private:
  void abort(const std::string& reason);

  std::vector<std::unique_ptr<RankThread>> threads_;
  std::vector<Rank> ranks_;
  double device_busy_s_ = 0;
  struct Failure;
  std::shared_ptr<Failure> failure_;
};

}  // namespace sextant
