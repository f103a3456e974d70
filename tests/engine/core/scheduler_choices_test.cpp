// What the scheduler promises of n > 1 and of how a sequence ends.
#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/engine/core/scheduler_harness.h"

namespace sextant {
namespace {

class Choices : public ::testing::TestWithParam<bool> {};

TEST_P(Choices, SiblingsShareTheFullBlocksOfThePrompt) {
  Scheduler::Options options = make_options();
  options.cache.enable_prefix_caching = GetParam();
  Harness harness(options);
  const RequestId id = harness.add({.num_prompt = 18, .max_tokens = 3, .n = 4});
  EXPECT_EQ(lengths(*harness.turn()), (std::vector<int32_t>{18}));
  const StepPtr second = harness.turn();
  EXPECT_EQ(lengths(*second), (std::vector<int32_t>{1, 2, 2, 2})) << "2 of 18 tokens are in no full block";
  EXPECT_EQ(harness.blocks_used(), 4 + 4) << "4 shared, and a tail each";
  harness.run_to_end();
  std::vector<std::vector<int32_t>> answers;
  for (int32_t i = 0; i < 4; ++i) {
    const SequenceEvent event = harness.terminal(id, i);
    EXPECT_EQ(event.sequence_id, harness.terminal(id, 0).sequence_id + static_cast<SequenceId>(i));
    answers.push_back(harness.tokens[std::make_pair(id, i)]);
    EXPECT_EQ(answers.back().size(), 3u);
  }
  EXPECT_NE(answers[0], answers[1]);
  EXPECT_EQ(harness.blocks_used(), 0);
}

TEST_P(Choices, ShortPromptsHaveNothingToShare) {
  Scheduler::Options options = make_options();
  options.cache.enable_prefix_caching = GetParam();
  Harness harness(options);
  harness.add({.num_prompt = 4, .max_tokens = 1, .n = 3});
  EXPECT_EQ(lengths(*harness.turn()), (std::vector<int32_t>{4, 4, 4}));
}

TEST_P(Choices, WhenTheFirstEndsBeforeThePromptIsComputedTheNextTakesOver) {
  Scheduler::Options options = make_options();
  options.cache.enable_prefix_caching = GetParam();
  Harness harness(options);
  const RequestId id = harness.add({.num_prompt = 100, .max_tokens = 2, .n = 3});
  EXPECT_EQ(lengths(*harness.turn()), (std::vector<int32_t>{64}));
  harness.scheduler.finish(id, 0, FinishReason::kStop);
  EXPECT_EQ(lengths(*harness.turn()), (std::vector<int32_t>{GetParam() ? 36 : 64}));
  harness.run_to_end();
  EXPECT_EQ(harness.terminal(id, 0).finish_reason, FinishReason::kStop);
  EXPECT_EQ(harness.terminal(id, 1).finish_reason, FinishReason::kLength);
  EXPECT_EQ(harness.terminal(id, 2).finish_reason, FinishReason::kLength);
}

TEST_P(Choices, MoreThanThereArePlacesQueueUpWithTheirSharedBlocks) {
  Scheduler::Options options = make_options();
  options.cache.enable_prefix_caching = GetParam();
  options.scheduler.max_num_seqs = 2;
  Harness harness(options);
  const RequestId id = harness.add({.num_prompt = 17, .max_tokens = 2, .n = 5});
  int64_t num_computed = 0;
  for (int i = 0; i < 20; ++i) num_computed += harness.turn()->num_tokens();
  EXPECT_EQ(num_computed, 17 + 4 * 1 + 5) << "each sibling computes one prompt token, each choice its first output";
  for (int32_t i = 0; i < 5; ++i) harness.terminal(id, i);
}

INSTANTIATE_TEST_SUITE_P(PrefixCaching, Choices, ::testing::Bool());

TEST(Scheduler, StopTokensEndASequenceOnceMinTokensAreReached) {
  // What the model will say is known beforehand: take its third token as the stop token.
  Harness rehearsal(make_options());
  const RequestId first = rehearsal.add({.max_tokens = 12});
  rehearsal.run_to_end();
  const std::vector<int32_t> answer = rehearsal.tokens[std::make_pair(first, 0)];
  const int32_t stop = answer[2];
  const auto nth = [&](size_t from) {
    const auto it = std::find(answer.begin() + static_cast<int64_t>(from), answer.end(), stop);
    return static_cast<size_t>(it - answer.begin()) + 1;
  };

  struct Variant {
    bool as_eos;
    bool ignore_eos;
    int64_t min_tokens;
    bool stops;
  };
  for (const Variant& variant :
       {Variant{false, false, 0, true}, Variant{true, false, 0, true}, Variant{true, true, 0, false},
        Variant{false, true, 0, true}, Variant{false, false, 3, true}, Variant{false, false, 4, false}}) {
    Scheduler::Options options = make_options();
    if (variant.as_eos) options.eos_token_ids = {1000, stop};
    Harness harness(options);
    const auto request = harness.make_request({.max_tokens = 12});
    if (!variant.as_eos) request->sampling.stop_token_ids = {1000, stop};
    request->sampling.ignore_eos = variant.ignore_eos;
    request->sampling.min_tokens = variant.min_tokens;
    ASSERT_TRUE(harness.scheduler.add(request).ok());
    harness.run_to_end();
    const SequenceEvent last = harness.terminal(request->request_id);
    const size_t num_tokens = harness.tokens[std::make_pair(request->request_id, 0)].size();
    if (variant.stops) {
      EXPECT_EQ(last.finish_reason, FinishReason::kStop);
      EXPECT_EQ(last.stop_token_id, stop);
      EXPECT_EQ(num_tokens, nth(0));
    } else if (variant.min_tokens > 0 && nth(3) <= answer.size()) {
      EXPECT_EQ(num_tokens, nth(3));
    } else {
      EXPECT_EQ(last.finish_reason, FinishReason::kLength);
      EXPECT_EQ(num_tokens, 12u);
    }
  }
}

TEST(Scheduler, TheContextLengthEndsASequence) {
  Scheduler::Options options = make_options();
  options.max_model_len = 14;
  Harness harness(options);
  const RequestId id = harness.add({.num_prompt = 10, .max_tokens = 100});
  harness.run_to_end();
  EXPECT_EQ(harness.terminal(id).finish_reason, FinishReason::kLength);
  EXPECT_EQ(harness.tokens[std::make_pair(id, 0)].size(), 4u);
}

}  // namespace
}  // namespace sextant
