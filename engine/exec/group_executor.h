// GroupExecutor: the steps of ranks that are in several stages of a pipeline, several processes, or both. On the leader each
// step goes to every process and there to every rank; the results are those of the last stage's first rank, wherever it is.
// Steps of different stages run at once: a rank takes the next as soon as it is done. Whoever fails fails the group, and the
// communicators are aborted so that nobody waits for him.
// Threads: the engine's (follow(): the caller's), one per rank, and the group's for failures.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/exec/rank_executor.h"
#include "engine/exec/rank_thread.h"
#include "engine/exec/step_executor.h"
#include "engine/group/process_group.h"
#include "engine/group/step_message.h"

namespace sextant {

class GroupExecutor final : public StepExecutor {
 public:
  struct Rank {
    RankExecutor::Rank parts;
    int world_rank = 0;
    bool gives_output = false;
    // Of each communicator, the world ranks of its members.
    std::vector<std::vector<int32_t>> members;
  };
  struct Options {
    std::shared_ptr<ProcessGroup> group;  // of one process, too
    bool output_is_here = true;
    int64_t steps_in_flight = 1;
    int32_t num_stages = 1;
    StepBounds bounds;
  };
  GroupExecutor(std::vector<std::unique_ptr<RankThread>> threads, std::vector<Rank> ranks, Options options);
  ~GroupExecutor() override;

  Status submit(std::shared_ptr<const SchedulerOutput> step) override;
  Result<ModelOutput> collect() override;
  double device_busy_s() const override { return device_busy_s_.load(); }
  CollectiveCounters collective_counters() const override;
  std::vector<RankReading> rank_readings() const override { return options_.group->readings(); }
  void set_failure_handler(std::function<void(const std::string&)> handler) override;

  // A follower's work: the leader's steps, until it leaves (ok) or the group fails.
  Status follow();

 private:
  struct LocalRank;

  void dispatch(const std::shared_ptr<const SchedulerOutput>& step);
  void run_step(LocalRank& rank, const std::shared_ptr<const SchedulerOutput>& step);
  void run_collect(LocalRank& rank);
  Status collect_one(LocalRank& rank);
  size_t num_left_in_flight(const LocalRank& rank) const;
  void fail(LocalRank& rank, const Status& error);
  void on_group_failure(const std::string& message);
  Result<std::vector<RankProgress>> progress();

  const Options options_;
  std::vector<std::unique_ptr<RankThread>> threads_;
  std::vector<std::unique_ptr<LocalRank>> ranks_;
  std::atomic<double> device_busy_s_{0};

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<ModelOutput> outputs_;
  bool failed_ = false;
  std::mutex handler_mutex_;  // held while the handler runs
  std::function<void(const std::string&)> handler_;
};

}  // namespace sextant
