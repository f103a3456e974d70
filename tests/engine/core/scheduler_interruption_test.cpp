// What the scheduler promises of aborting, finishing, pausing, preemption and failure.
#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/engine/core/scheduler_harness.h"

namespace sextant {
namespace {

TEST(Scheduler, UnknownAndEndedIdsAreIgnored) {
  Harness harness(make_options());
  harness.scheduler.abort(99);
  harness.scheduler.finish(99, 0, FinishReason::kStop);
  harness.scheduler.pause(99, 0);
  harness.scheduler.resume(99, 0);
  const RequestId id = harness.add({.max_tokens = 1});
  harness.scheduler.finish(id, 1, FinishReason::kStop);
  harness.scheduler.finish(id, -1, FinishReason::kStop);
  harness.scheduler.resume(id, 0);
  harness.run_to_end();
  harness.scheduler.abort(id);
  harness.scheduler.pause(id, 0);
  harness.collect();
  harness.terminal(id);
}

TEST(Scheduler, FinishEndsOneChoiceOnly) {
  Harness harness(make_options());
  const RequestId id = harness.add({.num_prompt = 10, .max_tokens = 8, .n = 2});
  harness.turn();
  harness.turn();
  harness.scheduler.finish(id, 0, FinishReason::kStop);
  harness.run_to_end();
  EXPECT_EQ(harness.terminal(id, 0).finish_reason, FinishReason::kStop);
  EXPECT_FALSE(harness.terminal(id, 0).stop_token_id.has_value());
  EXPECT_EQ(harness.tokens[std::make_pair(id, 0)].size(), 2u);
  EXPECT_EQ(harness.tokens[std::make_pair(id, 1)].size(), 8u);
}

TEST(Scheduler, APausedSequenceKeepsItsBlocksAndGivesUpItsPlace) {
  Scheduler::Options options = make_options();
  options.scheduler.max_num_seqs = 1;
  Harness harness(options);
  const RequestId slow = harness.add({.num_prompt = 10, .max_tokens = 4});
  const RequestId other = harness.add({.num_prompt = 10, .max_tokens = 2, .first_token = 50});
  harness.turn();
  harness.scheduler.pause(slow, 0);
  harness.scheduler.pause(slow, 0);
  EXPECT_EQ(harness.scheduler.stats().num_running, 1);
  const StepPtr step = harness.turn();
  ASSERT_EQ(step->new_sequences.size(), 1u);
  EXPECT_EQ(step->new_sequences[0].request->request_id, other);
  harness.turn();
  harness.terminal(other);
  EXPECT_EQ(harness.blocks_used(), 3);
  harness.turn();
  EXPECT_TRUE(harness.schedule()->empty());
  EXPECT_TRUE(harness.scheduler.has_work());
  harness.scheduler.resume(slow, 0);
  const StepPtr resumed = harness.turn();
  EXPECT_EQ(lengths(*resumed), (std::vector<int32_t>{1}));
  EXPECT_FALSE(resumed->sequences[0].restarts_block_table);
  harness.run_to_end();
  EXPECT_EQ(harness.terminal(slow).num_preemptions, 0);
}

TEST(Scheduler, PausedSequencesLoseTheirBlocksBeforeOthersStarve) {
  Scheduler::Options options = make_options();
  options.num_blocks = 11;
  options.cache.enable_prefix_caching = false;
  Harness harness(options);
  const RequestId slow = harness.add({.num_prompt = 24, .max_tokens = 4});
  harness.turn();
  harness.scheduler.pause(slow, 0);
  const RequestId other = harness.add({.num_prompt = 30, .max_tokens = 4, .first_token = 50});
  EXPECT_EQ(lengths(*harness.turn()), (std::vector<int32_t>{30}));
  harness.scheduler.resume(slow, 0);
  harness.run_to_end();
  harness.terminal(other);
  EXPECT_EQ(harness.terminal(slow).num_preemptions, 1);
  EXPECT_EQ(harness.tokens[std::make_pair(slow, 0)].size(), 4u);
}

TEST(Scheduler, TheLatestIsPreemptedAndComesBackFirst) {
  Scheduler::Options options = make_options();
  options.num_blocks = 11;
  options.cache.enable_prefix_caching = false;
  Harness harness(options);
  // 4 + 4 blocks at first; both grow until 10 are not enough.
  const RequestId early = harness.add({.num_prompt = 14, .max_tokens = 16});
  const RequestId late = harness.add({.num_prompt = 14, .max_tokens = 16, .first_token = 50});
  harness.turn();
  const RequestId waiting = harness.add({.num_prompt = 14, .max_tokens = 1, .first_token = 100});
  harness.run_to_end();
  EXPECT_EQ(harness.terminal(early).num_preemptions, 0);
  EXPECT_EQ(harness.terminal(late).num_preemptions, 1);
  EXPECT_EQ(harness.scheduler.stats().num_preemptions, 1u);
  EXPECT_LT(harness.terminal(late).first_scheduled_step, harness.terminal(waiting).first_scheduled_step);
  for (const RequestId id : {early, late}) EXPECT_EQ(harness.tokens[std::make_pair(id, 0)].size(), 16u);
}

TEST(Scheduler, UnderPriorityTheLeastImportantIsPreempted) {
  Scheduler::Options options = make_options();
  options.num_blocks = 11;
  options.cache.enable_prefix_caching = false;
  options.scheduler.scheduling_policy = "priority";
  Harness harness(options);
  const RequestId unimportant = harness.add({.num_prompt = 14, .max_tokens = 16, .priority = 3});
  harness.turn();
  const RequestId important = harness.add({.num_prompt = 14, .max_tokens = 16, .first_token = 50, .priority = 1});
  harness.run_to_end();
  EXPECT_EQ(harness.terminal(unimportant).num_preemptions, 1);
  EXPECT_EQ(harness.terminal(important).num_preemptions, 0);
}

// Blocks of a preempted sequence come with the update of its last step; until then nobody else is preempted.
TEST(Scheduler, WithStepsInFlightAShortageCostsOneSequenceNotAll) {
  Scheduler::Options options = make_options();
  options.num_blocks = 10;
  options.cache.enable_prefix_caching = false;
  options.scheduler.max_steps_in_flight = 2;
  Harness harness(options);
  // 3 blocks each; the first is the first to need a fourth.
  const RequestId first = harness.add({.num_prompt = 11, .max_tokens = 4});
  const RequestId second = harness.add({.num_prompt = 9, .max_tokens = 4, .first_token = 50});
  const RequestId third = harness.add({.num_prompt = 9, .max_tokens = 4, .first_token = 100});
  harness.schedule();
  harness.schedule();
  harness.update();
  EXPECT_EQ(lengths(*harness.schedule()), (std::vector<int32_t>{1})) << "the second has room";
  EXPECT_EQ(harness.scheduler.stats().num_preemptions, 1u);
  harness.update();
  EXPECT_EQ(lengths(*harness.schedule()), (std::vector<int32_t>{1, 1}));
  while (!harness.in_flight.empty()) harness.update();
  harness.run_to_end();
  EXPECT_EQ(harness.terminal(first).num_preemptions, 0);
  EXPECT_EQ(harness.terminal(second).num_preemptions, 0);
  EXPECT_EQ(harness.terminal(third).num_preemptions, 1);
}

// The last one running gives way to one that waits before it and holds the rest; and the engine does not
// stand still.
TEST(Scheduler, TheOnlyRunningOneGivesWayToAnEarlierHolder) {
  Scheduler::Options options = make_options();
  options.num_blocks = 11;
  options.cache.enable_prefix_caching = false;
  options.scheduler.max_num_seqs = 1;
  Harness harness(options);
  const RequestId early = harness.add({.num_prompt = 14, .max_tokens = 8});
  harness.turn();
  harness.scheduler.pause(early, 0);
  const RequestId late = harness.add({.num_prompt = 20, .max_tokens = 16, .first_token = 50});
  harness.turn();
  harness.scheduler.resume(early, 0);
  while (harness.scheduler.stats().num_running + harness.scheduler.stats().num_waiting > 0) {
    ASSERT_FALSE(harness.turn()->empty());
  }
  EXPECT_EQ(harness.terminal(early).num_preemptions, 0);
  EXPECT_EQ(harness.terminal(late).num_preemptions, 1);
}

TEST(Scheduler, OfPausedSequencesTheLatestLosesItsBlocks) {
  Scheduler::Options options = make_options();
  options.num_blocks = 11;
  options.cache.enable_prefix_caching = false;
  Harness harness(options);
  const RequestId first = harness.add({.num_prompt = 14, .max_tokens = 4});
  const RequestId second = harness.add({.num_prompt = 14, .max_tokens = 4, .first_token = 50});
  harness.turn();
  harness.scheduler.pause(first, 0);
  harness.scheduler.pause(second, 0);
  const RequestId third = harness.add({.num_prompt = 22, .max_tokens = 1, .first_token = 100});
  harness.turn();
  harness.terminal(third);
  harness.scheduler.resume(first, 0);
  harness.scheduler.resume(second, 0);
  harness.run_to_end();
  EXPECT_EQ(harness.terminal(first).num_preemptions, 0);
  EXPECT_EQ(harness.terminal(second).num_preemptions, 1);
}

TEST(Scheduler, FailAllEndsEverythingAndForgetsTheCache) {
  Scheduler::Options options = make_options();
  options.scheduler.max_steps_in_flight = 2;
  Harness harness(options);
  const RequestId running = harness.add({.num_prompt = 20, .max_tokens = 20, .n = 2});
  harness.schedule();
  harness.schedule();
  const RequestId waiting = harness.add({.num_prompt = 20, .max_tokens = 20});
  harness.scheduler.fail_all();
  harness.check();
  harness.collect();
  for (const auto& [id, choice_idx] : {std::pair{running, 0}, std::pair{running, 1}, std::pair{waiting, 0}}) {
    EXPECT_EQ(harness.terminal(id, choice_idx).finish_reason, FinishReason::kError);
  }
  EXPECT_EQ(harness.scheduler.num_steps_in_flight(), 0);
  EXPECT_EQ(harness.blocks_used(), 0);
  harness.in_flight.clear();
  harness.outputs.clear();
  const RequestId next = harness.add({.num_prompt = 20, .max_tokens = 1});
  harness.run_to_end();
  EXPECT_EQ(harness.terminal(next).num_cached_tokens, 0);
}

TEST(Scheduler, FinishAllEndsEveryChoiceOnce) {
  Harness harness(make_options());
  const RequestId a = harness.add({.num_prompt = 20, .n = 3});
  harness.turn();
  const RequestId b = harness.add({.num_prompt = 20});
  harness.scheduler.finish_all(FinishReason::kAbort);
  harness.collect();
  for (int32_t i = 0; i < 3; ++i) EXPECT_EQ(harness.terminal(a, i).finish_reason, FinishReason::kAbort);
  EXPECT_EQ(harness.terminal(b).first_scheduled_step, 0u);
  harness.run_to_end();
  EXPECT_EQ(harness.worker.num_known_sequences(), 0);
}

TEST(Scheduler, ResetPrefixCacheWaitsUntilNobodyHoldsBlocks) {
  Harness harness(make_options());
  harness.add({.num_prompt = 20, .max_tokens = 2});
  harness.turn();
  EXPECT_FALSE(harness.scheduler.reset_prefix_cache());
  harness.run_to_end();
  EXPECT_TRUE(harness.scheduler.reset_prefix_cache());
  const RequestId id = harness.add({.num_prompt = 20, .max_tokens = 1});
  harness.run_to_end();
  EXPECT_EQ(harness.terminal(id).num_cached_tokens, 0);
}

TEST(SchedulerDeathTest, StepsAreUpdatedInOrderAndNotMoreThanAllowed) {
  Scheduler::Options options = make_options();
  options.scheduler.max_steps_in_flight = 2;
  Harness harness(options);
  harness.add({.max_tokens = 10});
  harness.schedule();
  harness.schedule();
  EXPECT_DEATH(harness.scheduler.schedule(), "more steps in flight");
  EXPECT_DEATH(harness.scheduler.update(*harness.in_flight.back(), harness.outputs.back()), "in the order");
}

// A device may hold tokens back (the simulator's constant times): the sequence is scheduled again, and says the same in the end.
TEST(Withholding, ASequenceWithoutItsTokenIsScheduledAgain) {
  const auto run = [](bool withhold) {
    Harness harness(make_options());
    for (int32_t i = 0; i < 6; ++i)
      harness.add({.num_prompt = 7 + i, .max_tokens = 9, .first_token = i, .n = 1 + i % 2});
    uint64_t draw = 1;
    if (withhold) {
      harness.worker.withholds = [&draw] {
        draw = draw * 6364136223846793005u + 1442695040888963407u;
        return draw >> 63 != 0;
      };
    }
    harness.run_to_end();
    EXPECT_EQ(harness.blocks_used(), 0);
    return harness.tokens;
  };
  EXPECT_EQ(run(true), run(false));
}

}  // namespace
}  // namespace sextant
