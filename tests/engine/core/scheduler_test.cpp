// What the scheduler promises of admission, budget, order and the prefix cache, one promise at a time.
#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/engine/core/scheduler_harness.h"

namespace sextant {
namespace {

TEST(Scheduler, OneRequestFromPromptToLastToken) {
  Harness harness(make_options());
  EXPECT_FALSE(harness.scheduler.has_work());
  const RequestId id = harness.add({.num_prompt = 10, .max_tokens = 3});
  EXPECT_TRUE(harness.scheduler.has_work());
  const StepPtr first = harness.turn();
  ASSERT_EQ(first->sequences.size(), 1u);
  EXPECT_EQ(first->step_id, 1u);
  EXPECT_EQ(first->new_sequences.size(), 1u);
  EXPECT_EQ(first->sequences[0].num_scheduled_tokens, 10);
  EXPECT_TRUE(first->sequences[0].samples);
  EXPECT_TRUE(first->sequences[0].restarts_block_table);
  EXPECT_EQ(first->new_blocks[0].block_ids.size(), 3u);
  const StepPtr second = harness.turn();
  EXPECT_EQ(second->step_id, 2u);
  EXPECT_TRUE(second->new_sequences.empty());
  EXPECT_FALSE(second->sequences[0].restarts_block_table);
  EXPECT_TRUE(second->new_blocks[0].block_ids.empty());
  harness.turn();
  const SequenceEvent last = harness.terminal(id);
  EXPECT_EQ(last.finish_reason, FinishReason::kLength);
  EXPECT_FALSE(last.stop_token_id.has_value());
  EXPECT_EQ(last.first_scheduled_step, 1u);
  EXPECT_EQ(harness.tokens[std::make_pair(id, 0)].size(), 3u);
  EXPECT_EQ(harness.blocks_used(), 0);
  EXPECT_TRUE(harness.scheduler.has_work()) << "the worker does not know yet";
  const StepPtr farewell = harness.schedule();
  EXPECT_TRUE(farewell->empty());
  EXPECT_EQ(farewell->finished_sequences, (std::vector<SequenceId>{last.sequence_id}));
  EXPECT_FALSE(harness.scheduler.has_work());
  EXPECT_TRUE(harness.schedule()->finished_sequences.empty());
}

TEST(Scheduler, RefusesWhatCanNeverRun) {
  Scheduler::Options options = make_options();
  options.num_blocks = 11;
  Harness harness(options);
  const auto refused = [&](const Ask& ask) { return harness.scheduler.add(harness.make_request(ask)); };
  EXPECT_EQ(refused({.num_prompt = 0}).code(), StatusCode::kInvalidArgument);
  const Status too_long = refused({.num_prompt = 200});
  EXPECT_EQ(too_long.error_code(), "context_length_exceeded");
  EXPECT_NE(too_long.message().find("200"), std::string::npos) << too_long.message();
  EXPECT_EQ(refused({.n = 0}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(refused({.max_tokens = 0}).code(), StatusCode::kInvalidArgument);
  // 10 blocks of 4: 40 tokens with keys and values, and one that needs none.
  EXPECT_TRUE(refused({.num_prompt = 30, .max_tokens = 11}).ok());
  const Status too_big = refused({.num_prompt = 30, .max_tokens = 12});
  EXPECT_EQ(too_big.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(too_big.message().find("11"), std::string::npos) << too_big.message();
  EXPECT_NE(too_big.message().find("10"), std::string::npos) << too_big.message();
  harness.run_to_end();
}

TEST(Scheduler, WithoutChunkedPrefillAPromptMustFitAStep) {
  Scheduler::Options options = make_options();
  options.scheduler.enable_chunked_prefill = false;
  Harness harness(options);
  EXPECT_EQ(harness.scheduler.add(harness.make_request({.num_prompt = 65})).code(), StatusCode::kInvalidArgument);
  harness.add({.num_prompt = 40});
  harness.add({.num_prompt = 40, .first_token = 100});
  EXPECT_EQ(lengths(*harness.turn()), (std::vector<int32_t>{40}));
  EXPECT_EQ(lengths(*harness.turn()), (std::vector<int32_t>{1, 40}));
  harness.run_to_end();
}

TEST(Scheduler, LongPromptsAreComputedInChunksBesideRunningOnes) {
  Harness harness(make_options());
  harness.add({.num_prompt = 4, .max_tokens = 10});
  harness.turn();
  harness.add({.num_prompt = 150, .first_token = 100});
  EXPECT_EQ(lengths(*harness.turn()), (std::vector<int32_t>{1, 63}));
  const StepPtr second = harness.turn();
  EXPECT_EQ(lengths(*second), (std::vector<int32_t>{1, 63}));
  EXPECT_FALSE(second->sequences[1].samples);
  const StepPtr third = harness.turn();
  EXPECT_EQ(lengths(*third), (std::vector<int32_t>{1, 24}));
  EXPECT_TRUE(third->sequences[1].samples);
  harness.run_to_end();
}

// An earlier prompt in the batch does not starve the tokens of those behind it.
TEST(Scheduler, EveryRunningSequenceGetsATokenBeforeAPromptTakesTheRest) {
  Scheduler::Options options = make_options();
  options.scheduler.scheduling_policy = "priority";
  Harness harness(options);
  for (int i = 0; i < 3; ++i) harness.add({.num_prompt = 4, .max_tokens = 10, .first_token = 10 * i});
  harness.turn();
  harness.add({.num_prompt = 150, .first_token = 100, .priority = -1});
  harness.turn();
  EXPECT_EQ(lengths(*harness.turn()), (std::vector<int32_t>{61, 1, 1, 1}));
  harness.run_to_end();
}

TEST(Scheduler, PriorityGoesFirstThenArrival) {
  Scheduler::Options options = make_options();
  options.scheduler.max_num_seqs = 1;
  options.scheduler.scheduling_policy = "priority";
  Harness harness(options);
  const RequestId late = harness.add({.max_tokens = 1, .first_token = 0, .priority = 5});
  const RequestId first = harness.add({.max_tokens = 1, .first_token = 20, .priority = 1});
  const RequestId second = harness.add({.max_tokens = 1, .first_token = 40, .priority = 1});
  harness.run_to_end();
  std::vector<RequestId> order;
  for (const SequenceEvent& event : harness.events) order.push_back(event.request_id);
  EXPECT_EQ(order, (std::vector<RequestId>{first, second, late}));
}

TEST(Scheduler, UnderFcfsPriorityIsIgnored) {
  Scheduler::Options options = make_options();
  options.scheduler.max_num_seqs = 1;
  Harness harness(options);
  const RequestId first = harness.add({.max_tokens = 1, .priority = 5});
  harness.add({.max_tokens = 1, .first_token = 20, .priority = 0});
  harness.turn();
  EXPECT_EQ(harness.events.front().request_id, first);
  harness.run_to_end();
}

TEST(Scheduler, TheQueueHasALimit) {
  Scheduler::Options options = make_options();
  options.scheduler.max_num_seqs = 2;
  options.scheduler.max_num_queued_reqs = 3;
  Harness harness(options);
  for (int i = 0; i < 5; ++i) harness.add({.num_prompt = 4, .first_token = 10 * i});
  const Status full = harness.scheduler.add(harness.make_request({.first_token = 100}));
  EXPECT_EQ(full.code(), StatusCode::kUnavailable);
  EXPECT_NE(full.message().find("max_num_queued_reqs is 3"), std::string::npos) << full.message();
  // The answer is the same whether or not those with a place were scheduled in between.
  harness.turn();
  EXPECT_EQ(harness.scheduler.add(harness.make_request({.first_token = 100})).code(), StatusCode::kUnavailable);
  harness.scheduler.abort(5);
  harness.add({.first_token = 100});
  harness.collect();
  harness.run_to_end();
}

TEST(Scheduler, AQueueOfNoneStillTakesWhatHasAPlace) {
  Scheduler::Options options = make_options();
  options.scheduler.max_num_seqs = 1;
  options.scheduler.max_num_queued_reqs = 0;
  Harness harness(options);
  harness.add({});
  EXPECT_EQ(harness.scheduler.add(harness.make_request({})).code(), StatusCode::kUnavailable);
  harness.run_to_end();
  harness.add({});
  harness.run_to_end();
}

TEST(Scheduler, APrefixIsTakenFromTheCacheButNeverTheLastToken) {
  Harness harness(make_options());
  harness.add({.num_prompt = 16, .max_tokens = 1});
  harness.run_to_end();
  const RequestId same = harness.add({.num_prompt = 16, .max_tokens = 1});
  EXPECT_EQ(lengths(*harness.turn()), (std::vector<int32_t>{4}));
  EXPECT_EQ(harness.terminal(same).num_cached_tokens, 12);
  const RequestId longer = harness.add({.num_prompt = 17, .max_tokens = 1});
  EXPECT_EQ(lengths(*harness.turn()), (std::vector<int32_t>{1}));
  EXPECT_EQ(harness.terminal(longer).num_cached_tokens, 16);
  const SchedulerStats stats = harness.scheduler.stats();
  EXPECT_EQ(stats.prefix_cache_queries, 16u + 16 + 17);
  EXPECT_EQ(stats.prefix_cache_hits, 12u + 16);
}

TEST(Scheduler, OutputIsCachedForTheNextTurnOfAConversation) {
  Harness harness(make_options());
  const auto first = harness.make_request({.num_prompt = 10, .max_tokens = 10});
  ASSERT_TRUE(harness.scheduler.add(first).ok());
  harness.run_to_end();
  const auto second = harness.make_request({.num_prompt = 10, .max_tokens = 1});
  const std::vector<int32_t>& answer = harness.tokens[std::make_pair(first->request_id, 0)];
  second->prompt_token_ids.insert(second->prompt_token_ids.end(), answer.begin(), answer.end());
  second->prompt_token_ids.push_back(3);
  ASSERT_TRUE(harness.scheduler.add(second).ok());
  harness.run_to_end();
  // 19 tokens had keys and values: 4 full blocks.
  EXPECT_EQ(harness.terminal(second->request_id).num_cached_tokens, 16);
}

TEST(Scheduler, SaltsAndTenantsShareNothing) {
  Harness harness(make_options());
  harness.add({.num_prompt = 16, .max_tokens = 1});
  harness.run_to_end();
  for (const auto& [salt, tenant] : {std::pair{"x", ""}, std::pair{"", "x"}}) {
    const auto request = harness.make_request({.num_prompt = 16, .max_tokens = 1});
    request->cache_salt = salt;
    request->tenant = tenant;
    ASSERT_TRUE(harness.scheduler.add(request).ok());
    harness.run_to_end();
    EXPECT_EQ(harness.terminal(request->request_id).num_cached_tokens, 0);
  }
}

TEST(Scheduler, PromptLogprobsDoNotReadTheCacheAndComeOnceAndWhole) {
  Harness harness(make_options());
  harness.add({.num_prompt = 100, .max_tokens = 1});
  harness.run_to_end();
  const auto request = harness.make_request({.num_prompt = 100, .max_tokens = 3, .n = 2});
  request->sampling.prompt_logprobs = 2;
  ASSERT_TRUE(harness.scheduler.add(request).ok());
  harness.events.clear();
  harness.run_to_end();
  for (const SequenceEvent& event : harness.events) EXPECT_EQ(event.num_cached_tokens, 0);
  ASSERT_EQ(harness.events.front().choice_idx, 0);
  ASSERT_EQ(harness.events.front().prompt_logprobs.size(), 99u);
  EXPECT_EQ(harness.events.front().prompt_logprobs[98].chosen.token_id, 99);
  for (size_t i = 1; i < harness.events.size(); ++i) EXPECT_TRUE(harness.events[i].prompt_logprobs.empty());
}

// Equal prompts in one step: neither may find what the other computes in that very step (FakeWorker reads
// before it writes).
TEST(Scheduler, NothingIsFoundInTheStepThatComputesIt) {
  Harness harness(make_options());
  harness.add({.num_prompt = 16});
  harness.add({.num_prompt = 16});
  EXPECT_EQ(lengths(*harness.turn()), (std::vector<int32_t>{16, 16}));
  harness.add({.num_prompt = 16});
  EXPECT_EQ(lengths(*harness.turn()), (std::vector<int32_t>{1, 1, 4}));
  harness.run_to_end();
}

}  // namespace
}  // namespace sextant
