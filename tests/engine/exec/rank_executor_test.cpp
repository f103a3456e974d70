// Ranks on threads: results are rank 0's, the first failure ends the step on all and is named.
#include "engine/exec/rank_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <stdexcept>

#include "engine/device/thread_communicator.h"

namespace sextant {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Sums a number with the other ranks in each step; `trouble` decides what else happens.
class SummingWorker final : public StepExecutor {
 public:
  enum class Trouble { kNone, kError, kThrow, kOtherSize, kStaysAway };
  SummingWorker(Communicator& group, Trouble trouble) : group_(group), trouble_(trouble) {}
  ~SummingWorker() override { EXPECT_EQ(std::this_thread::get_id(), thread_); }

  Status submit(std::shared_ptr<const SchedulerOutput> step) override {
    if (thread_ == std::thread::id()) thread_ = std::this_thread::get_id();
    EXPECT_EQ(std::this_thread::get_id(), thread_);
    if (step->step_id == 2 && trouble_ == Trouble::kError) return Status(StatusCode::kDeviceError, "no memory left");
    if (step->step_id == 2 && trouble_ == Trouble::kThrow) throw std::runtime_error("something else");
    outputs_.push_back(step->step_id);
    if (step->step_id == 2 && trouble_ == Trouble::kStaysAway) return ok_status();
    std::vector<float> data(4, static_cast<float>(group_.rank()));
    const bool other = step->step_id == 2 && trouble_ == Trouble::kOtherSize;
    return group_.all_reduce(data.data(), other ? 3 : 4, DType::kFloat32);
  }
  Result<ModelOutput> collect() override {
    ModelOutput output;
    output.step_id = outputs_.front() * 10 + static_cast<uint64_t>(group_.rank());
    outputs_.pop_front();
    return output;
  }
  double device_busy_s() const override { return 1 + group_.rank(); }

 private:
  Communicator& group_;
  const Trouble trouble_;
  std::thread::id thread_;
  std::deque<uint64_t> outputs_;
};
using Trouble = SummingWorker::Trouble;

// Three ranks, with `trouble` on rank 1.
std::unique_ptr<RankExecutor> make_executor(Trouble trouble, double timeout_s = 0) {
  auto communicators = make_thread_communicators(3, timeout_s);
  std::vector<std::unique_ptr<RankThread>> threads;
  std::vector<RankExecutor::Rank> ranks(3);
  for (size_t i = 0; i < 3; ++i) {
    threads.push_back(std::make_unique<RankThread>());
    ranks[i].worker = std::make_unique<SummingWorker>(*communicators[i], i == 1 ? trouble : Trouble::kNone);
    ranks[i].communicators.push_back(std::move(communicators[i]));
  }
  return std::make_unique<RankExecutor>(std::move(threads), std::move(ranks));
}
std::shared_ptr<const SchedulerOutput> step(uint64_t id) {
  auto made = std::make_shared<SchedulerOutput>();
  made->step_id = id;
  return made;
}

TEST(RankExecutor, EveryRankRunsEveryStepAndRankZeroAnswers) {
  const auto executor = make_executor(Trouble::kNone);
  for (uint64_t id = 1; id < 20; id += 2) {  // two in flight
    ASSERT_TRUE(executor->submit(step(id)).ok());
    ASSERT_TRUE(executor->submit(step(id + 1)).ok());
    for (const uint64_t expected : {id, id + 1}) {
      const Result<ModelOutput> output = executor->collect();
      ASSERT_TRUE(output.ok()) << output.status().message();
      EXPECT_EQ(output->step_id, expected * 10);
    }
  }
  EXPECT_EQ(executor->device_busy_s(), 1);
  const CollectiveCounters counters = executor->collective_counters();
  EXPECT_EQ(counters.of(CollectiveKind::kAllReduce).calls, 3 * 20u);
  EXPECT_EQ(counters.of(CollectiveKind::kAllReduce).bytes, 3 * 20 * 16u);
}

TEST(RankExecutor, TheRankThatFailsIsNamedAndNobodyWaitsForIt) {
  struct Case {
    Trouble trouble;
    const char* said;
  };
  for (const Case& each :
       {Case{Trouble::kError, "rank 1: no memory left"}, Case{Trouble::kThrow, "rank 1: something else"},
        Case{Trouble::kOtherSize, "rank 1 calls all_reduce of 3 float32"}}) {
    SCOPED_TRACE(each.said);
    const auto executor = make_executor(each.trouble);  // without a time-out: only the abort lets the others go
    ASSERT_TRUE(executor->submit(step(1)).ok());
    ASSERT_TRUE(executor->collect().ok());
    ASSERT_TRUE(executor->submit(step(2)).ok());
    const Result<ModelOutput> output = executor->collect();
    ASSERT_FALSE(output.ok());
    EXPECT_THAT(output.status().message(), HasSubstr(each.said));
    // For good.
    EXPECT_EQ(executor->submit(step(3)).message(), output.status().message());
  }
}

TEST(RankExecutor, ARankThatStaysAwayIsNamedAfterTheTimeOut) {
  const auto executor = make_executor(Trouble::kStaysAway, 0.2);
  ASSERT_TRUE(executor->submit(step(2)).ok());
  const Result<ModelOutput> output = executor->collect();
  ASSERT_FALSE(output.ok());
  EXPECT_EQ(output.status().code(), StatusCode::kDeviceError);
  EXPECT_THAT(output.status().message(), AllOf(HasSubstr("collective 0 (all_reduce of 4 float32): "), HasSubstr("1"),
                                               HasSubstr("of 3 did not arrive within 0.2 s")));
}

TEST(RunOnRanks, RunsOnEachThreadAndTellsTheFirstErrorAtOnce) {
  std::vector<std::unique_ptr<RankThread>> threads;
  for (int i = 0; i < 3; ++i) threads.push_back(std::make_unique<RankThread>());
  std::array<std::thread::id, 3> ids;
  ASSERT_TRUE(run_on_ranks(threads,
                           [&](size_t rank) {
                             ids[rank] = std::this_thread::get_id();
                             return ok_status();
                           },
                           {})
                  .ok());
  EXPECT_EQ(std::set<std::thread::id>(ids.begin(), ids.end()).size(), 3u);
  // Rank 2 waits until it is told.
  std::atomic<bool> told = false;
  const Status status = run_on_ranks(
      threads,
      [&](size_t rank) -> Status {
        if (rank == 0) return Status(StatusCode::kTooLarge, "does not fit", "model");
        while (!told.load()) std::this_thread::yield();
        return rank == 1 ? Status(StatusCode::kDeviceError, "later") : ok_status();
      },
      [&](const Status& first) {
        EXPECT_EQ(first.message(), "rank 0: does not fit");
        told.store(true);
      });
  EXPECT_EQ(status.message(), "rank 0: does not fit");
  EXPECT_EQ(status.code(), StatusCode::kTooLarge);
  EXPECT_EQ(status.param(), "model");
}

}  // namespace
}  // namespace sextant
