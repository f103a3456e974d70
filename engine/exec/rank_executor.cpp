#include "engine/exec/rank_executor.h"

#include <exception>
#include <mutex>
#include <string>
#include <utility>

#include "engine/base/check.h"

namespace sextant {

// The first error of any rank; the ranks' threads write it.
struct RankExecutor::Failure {
  std::mutex mutex;
  Status status;

  // Whether this was the first.
  bool note(size_t rank, const Status& error) {
    const std::lock_guard lock(mutex);
    if (!status.ok()) return false;
    status = Status(error.code(), "rank " + std::to_string(rank) + ": " + error.message());
    return true;
  }
  Status first() {
    const std::lock_guard lock(mutex);
    return status;
  }
};

RankExecutor::RankExecutor(std::vector<std::unique_ptr<RankThread>> threads, std::vector<Rank> ranks)
    : threads_(std::move(threads)), ranks_(std::move(ranks)), failure_(std::make_shared<Failure>()) {
  CHECK(!ranks_.empty() && threads_.size() == ranks_.size());
}

RankExecutor::~RankExecutor() {
  // All at once: a communicator's end may be a collective.
  for (size_t i = 0; i < ranks_.size(); ++i) {
    threads_[i]->post([rank = &ranks_[i]] {
      rank->worker.reset();
      if (rank->backend) static_cast<void>(rank->backend->synchronize());
      rank->communicators.clear();
      rank->backend.reset();
    });
  }
  threads_.clear();  // joins
}

void RankExecutor::abort(const std::string& reason) {
  for (const Rank& rank : ranks_) {
    for (const auto& communicator : rank.communicators) communicator->abort(reason);
  }
}

Status RankExecutor::submit(std::shared_ptr<const SchedulerOutput> step) {
  RETURN_IF_ERROR(failure_->first());
  for (size_t i = 0; i < ranks_.size(); ++i) {
    threads_[i]->post([this, i, step] {
      if (!failure_->first().ok()) return;
      Status status;
      try {
        status = ranks_[i].worker->submit(step);
      } catch (const std::exception& error) {
        status = internal_error(error.what());
      }
      if (!status.ok() && failure_->note(i, status)) abort(failure_->first().message());
    });
  }
  return ok_status();
}

Result<ModelOutput> RankExecutor::collect() {
  ModelOutput output;
  const Status status = run_on_ranks(threads_,
                                     [&](size_t i) -> Status {
                                       RETURN_IF_ERROR(failure_->first());
                                       Result<ModelOutput> result = ranks_[i].worker->collect();
                                       if (!result.ok()) {
                                         if (failure_->note(i, result.status())) abort(failure_->first().message());
                                         return result.status();
                                       }
                                       if (i == 0) {
                                         output = std::move(result).value();
                                         device_busy_s_ = ranks_[0].worker->device_busy_s();
                                       }
                                       return ok_status();
                                     },
                                     {});
  RETURN_IF_ERROR(failure_->first());
  RETURN_IF_ERROR(status);
  return output;
}

CollectiveCounters RankExecutor::collective_counters() const {
  CollectiveCounters all;
  for (const Rank& rank : ranks_) {
    for (const auto& communicator : rank.communicators) all.add(communicator->counters());
  }
  return all;
}

}  // namespace sextant
