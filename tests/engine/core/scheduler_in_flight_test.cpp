// What the scheduler promises while several steps are in flight.
#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/engine/core/scheduler_harness.h"

namespace sextant {
namespace {

class StepsInFlight : public ::testing::TestWithParam<int> {
 protected:
  Scheduler::Options options() const {
    Scheduler::Options options = make_options();
    options.scheduler.max_steps_in_flight = GetParam();
    return options;
  }
  // Fills the pipeline: as many steps scheduled as may be.
  static void fill(Harness& harness, int num_steps) {
    while (harness.scheduler.num_steps_in_flight() < num_steps && !harness.schedule()->empty()) {
    }
  }
};

TEST_P(StepsInFlight, DecodingGoesOnBeforeTheHostKnowsTheTokens) {
  Harness harness(options());
  const RequestId id = harness.add({.num_prompt = 10, .max_tokens = 20});
  int num_on_device = 0;
  while (harness.scheduler.stats().num_running + harness.scheduler.stats().num_waiting > 0) {
    while (harness.scheduler.num_steps_in_flight() < GetParam()) {
      const StepPtr step = harness.schedule();
      if (step->empty()) break;
      num_on_device += step->sequences[0].last_token_on_device;
    }
    harness.update();
  }
  EXPECT_EQ(harness.tokens[std::make_pair(id, 0)].size(), 20u);
  EXPECT_EQ(num_on_device, GetParam() == 1 ? 0 : 19) << "never beyond the last token it may have";
  EXPECT_EQ(harness.scheduler.num_steps_in_flight(), 0);
}

TEST_P(StepsInFlight, SurplusTokensOfAStoppedSequenceAreDropped) {
  Harness rehearsal(make_options());
  const RequestId first = rehearsal.add({.max_tokens = 6});
  rehearsal.run_to_end();
  const std::vector<int32_t> answer = rehearsal.tokens[std::make_pair(first, 0)];

  Harness harness(options());
  const auto request = harness.make_request({.max_tokens = 20});
  request->sampling.stop_token_ids = {answer[3]};
  ASSERT_TRUE(harness.scheduler.add(request).ok());
  const size_t num_expected =
      static_cast<size_t>(std::find(answer.begin(), answer.end(), answer[3]) - answer.begin()) + 1;
  while (harness.scheduler.stats().num_running + harness.scheduler.stats().num_waiting > 0) {
    fill(harness, GetParam());
    harness.update();
  }
  EXPECT_EQ(harness.tokens[std::make_pair(request->request_id, 0)].size(), num_expected);
  EXPECT_EQ(harness.scheduler.num_steps_in_flight(), GetParam() - 1);
  EXPECT_EQ(harness.blocks_used() > 0, GetParam() > 1) << "steps in flight still name its blocks";
  while (harness.scheduler.num_steps_in_flight() > 0) harness.update();
  EXPECT_EQ(harness.blocks_used(), 0);
}

// Aborted in any phase, blocks are back before the second schedule() (the k-th with k > 2 steps in flight).
TEST_P(StepsInFlight, AnAbortedRequestsBlocksComeBack) {
  for (int phase = 0; phase < 6; ++phase) {
    SCOPED_TRACE("phase " + std::to_string(phase));
    Harness harness(options());
    const RequestId id = harness.add({.num_prompt = 150, .max_tokens = 20, .n = 2});
    for (int i = 0; i < phase; ++i) {
      fill(harness, GetParam());
      harness.update();
    }
    fill(harness, GetParam() - phase % 2);
    harness.scheduler.abort(id);
    harness.check();
    harness.collect();
    EXPECT_EQ(harness.terminal(id, 0).finish_reason, FinishReason::kAbort);
    EXPECT_EQ(harness.terminal(id, 1).finish_reason, FinishReason::kAbort);
    // An engine's loop: it updates when the pipeline is full or when there was nothing to schedule.
    int num_schedules = 0;
    while (harness.blocks_used() > 0) {
      bool nothing_scheduled = false;
      if (harness.scheduler.num_steps_in_flight() < GetParam()) {
        ASSERT_LT(++num_schedules, std::max(2, GetParam())) << "blocks are not back before this schedule()";
        nothing_scheduled = harness.schedule()->empty();
      }
      if (nothing_scheduled || harness.scheduler.num_steps_in_flight() == GetParam()) harness.update();
    }
    EXPECT_TRUE(harness.scheduler.num_steps_in_flight() == GetParam() || harness.schedule()->empty());
    while (!harness.in_flight.empty()) harness.update();
    EXPECT_FALSE(harness.scheduler.has_work());
    EXPECT_EQ(harness.worker.num_known_sequences(), 0);
  }
}

// Of a pipeline: the parameter is its number of stages, and one step more than that is in flight.
class PipelineStages : public ::testing::TestWithParam<int> {
 protected:
  Scheduler::Options options() const {
    Scheduler::Options options = make_options();
    options.num_pipeline_stages = GetParam();
    options.scheduler.max_steps_in_flight = GetParam() + 1;
    return options;
  }
  // The steps that an engine has in flight before it waits for the oldest.
  std::vector<StepPtr> fill(Harness& harness) const {
    std::vector<StepPtr> steps;
    while (harness.scheduler.num_steps_in_flight() <= GetParam()) {
      const StepPtr step = harness.schedule();
      if (step->empty()) break;
      steps.push_back(step);
    }
    return steps;
  }
};

TEST_P(PipelineStages, EachHasItsShareOfTheRunningSequences) {
  constexpr int kSequences = 7;
  Harness alone(make_options());
  Harness harness(options());
  for (Harness* each : {&alone, &harness}) {
    for (int i = 0; i < kSequences; ++i) each->add({.num_prompt = 3, .max_tokens = 6, .first_token = i * 5});
  }
  alone.run_to_end();
  ASSERT_EQ(fill(harness).size(), 1u) << "all prompts fit into one step";
  harness.update();
  for (int round = 1; round < 6; ++round) {
    const std::vector<StepPtr> steps = fill(harness);
    ASSERT_EQ(steps.size(), static_cast<size_t>(GetParam())) << "no stage idles";
    std::vector<SequenceId> ids;
    for (const StepPtr& step : steps) {
      EXPECT_LE(step->sequences.size(), static_cast<size_t>((kSequences + GetParam() - 1) / GetParam()));
      for (const ScheduledSequence& scheduled : step->sequences) {
        ids.push_back(scheduled.sequence_id);
        EXPECT_FALSE(scheduled.last_token_on_device) << "the first stage does not have it";
      }
    }
    std::ranges::sort(ids);
    EXPECT_EQ(std::ranges::adjacent_find(ids), ids.end()) << "twice under way";
    EXPECT_EQ(ids.size(), static_cast<size_t>(kSequences));
    while (harness.scheduler.num_steps_in_flight() > 0) harness.update();
  }
  EXPECT_EQ(harness.tokens, alone.tokens);
  EXPECT_EQ(harness.blocks_used(), 0);
}

// Chunks of one prompt follow one another from stage to stage; its first token is awaited.
TEST_P(PipelineStages, ALongPromptFillsThem) {
  Harness harness(options());
  Scheduler::Options with_chunks = options();
  const auto num_chunks = static_cast<int32_t>(GetParam() + 1);
  const int32_t budget = static_cast<int32_t>(with_chunks.scheduler.max_num_batched_tokens);
  ASSERT_LT(num_chunks * budget, 2 * with_chunks.max_model_len);
  const int32_t num_prompt = std::min<int32_t>(num_chunks * budget - 1, 190);
  const RequestId id = harness.add({.num_prompt = num_prompt, .max_tokens = 3});
  int32_t computed = 0;
  const std::vector<StepPtr> steps = fill(harness);
  ASSERT_EQ(steps.size(), static_cast<size_t>((num_prompt - 1) / budget + 1));
  for (const StepPtr& step : steps) {
    ASSERT_EQ(step->sequences.size(), 1u);
    EXPECT_EQ(step->sequences[0].num_computed_tokens, computed);
    computed += step->sequences[0].num_scheduled_tokens;
    EXPECT_EQ(step->sequences[0].samples, step == steps.back());
  }
  EXPECT_EQ(computed, num_prompt);
  while (harness.scheduler.num_steps_in_flight() > 1) {
    harness.update();
    EXPECT_TRUE(harness.schedule()->empty()) << "its first token is not known yet";
  }
  harness.update();
  harness.run_to_end();
  EXPECT_EQ(harness.tokens[std::make_pair(id, 0)].size(), 3u);
}

// Whoever comes later gets a step of its own while the others are under way.
TEST_P(PipelineStages, ANewSequenceNeedNotWaitForThoseUnderWay) {
  Harness harness(options());
  harness.add({.num_prompt = 3, .max_tokens = 8});
  ASSERT_EQ(fill(harness).size(), 1u);
  const RequestId late = harness.add({.num_prompt = 4, .max_tokens = 8, .first_token = 20});
  const std::vector<StepPtr> steps = fill(harness);
  ASSERT_EQ(steps.size(), 1u);
  ASSERT_EQ(steps[0]->new_sequences.size(), 1u);
  EXPECT_EQ(steps[0]->new_sequences[0].request->request_id, late);
  while (harness.scheduler.num_steps_in_flight() > 0) harness.update();
  harness.run_to_end();
  EXPECT_EQ(harness.terminal(late).finish_reason, FinishReason::kLength);
}

INSTANTIATE_TEST_SUITE_P(All, PipelineStages, ::testing::Values(2, 3, 4));

INSTANTIATE_TEST_SUITE_P(All, StepsInFlight, ::testing::Values(1, 2, 3));

TEST(Scheduler, WithTwoStepsInFlightAbortedBlocksAreFreeBeforeTheSecondSchedule) {
  Scheduler::Options options = make_options();
  options.scheduler.max_steps_in_flight = 2;
  Harness harness(options);
  const RequestId id = harness.add({.num_prompt = 30, .max_tokens = 20});
  const RequestId other = harness.add({.num_prompt = 1, .max_tokens = 20, .first_token = 50});
  harness.schedule();
  harness.schedule();
  harness.scheduler.abort(id);
  harness.update();
  EXPECT_GT(harness.blocks_used(), 1);
  harness.schedule();  // the first after the abort
  harness.update();
  EXPECT_EQ(harness.blocks_used(), 1);
  harness.schedule();  // the second
  harness.scheduler.abort(other);
  while (!harness.in_flight.empty()) harness.update();
  harness.collect();
  harness.terminal(other);
}

}  // namespace
}  // namespace sextant
