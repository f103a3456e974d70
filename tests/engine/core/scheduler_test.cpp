// What the scheduler promises, one promise at a time, with a worker that checks every slot (fake_worker.h).
#include "engine/core/scheduler.h"

#include <algorithm>
#include <deque>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <vector>

#include "tests/engine/core/fake_worker.h"

namespace sextant {
namespace {

using StepPtr = std::shared_ptr<const SchedulerOutput>;

Scheduler::Options make_options() {
  Scheduler::Options options;
  options.spec.block_size = 4;
  options.spec.groups.resize(1);
  options.num_blocks = 101;
  options.max_model_len = 200;
  options.scheduler.max_num_seqs = 8;
  options.scheduler.max_num_batched_tokens = 64;
  options.scheduler.max_num_queued_reqs = 100;
  options.cache_root = "fake";
  return options;
}

struct Ask {
  int32_t num_prompt = 10;
  int64_t max_tokens = 4;
  int32_t first_token = 0;
  int32_t n = 1;
  int32_t priority = 0;
};

class Harness {
 public:
  explicit Harness(const Scheduler::Options& options)
      : scheduler(options), worker(1, options.num_blocks, options.spec.block_size) {}

  std::shared_ptr<Request> make_request(const Ask& ask) {
    auto request = std::make_shared<Request>();
    request->request_id = ++num_requests;
    for (int32_t i = 0; i < ask.num_prompt; ++i) request->prompt_token_ids.push_back(ask.first_token + i);
    request->sampling.max_tokens = ask.max_tokens;
    request->sampling.n = ask.n;
    request->priority = ask.priority;
    request->arrival_ns = static_cast<int64_t>(num_requests);
    return request;
  }
  RequestId add(const Ask& ask) {
    const auto request = make_request(ask);
    const Status status = scheduler.add(request);
    EXPECT_TRUE(status.ok()) << status.message();
    return request->request_id;
  }
  StepPtr schedule() {
    const StepPtr step = scheduler.schedule();
    check();
    if (!step->empty()) in_flight.push_back(step);
    if (!step->empty() || !step->finished_sequences.empty()) {
      ModelOutput output = worker.execute(*step);
      if (!step->empty()) outputs.push_back(std::move(output));
    }
    return step;
  }
  void update() {
    ASSERT_FALSE(in_flight.empty());
    scheduler.update(*in_flight.front(), std::move(outputs.front()));
    in_flight.pop_front();
    outputs.pop_front();
    check();
    collect();
  }
  StepPtr turn() {
    const StepPtr step = schedule();
    if (!step->empty()) update();
    return step;
  }
  void run_to_end() {
    for (int turns = 0; scheduler.has_work(); ++turns) {
      ASSERT_LT(turns, 1000);
      turn();
    }
  }
  void collect() {
    std::vector<SequenceEvent> taken;
    scheduler.take_events(taken);
    for (SequenceEvent& event : taken) {
      std::vector<int32_t>& token_ids = tokens[{event.request_id, event.choice_idx}];
      token_ids.insert(token_ids.end(), event.new_token_ids.begin(), event.new_token_ids.end());
      events.push_back(std::move(event));
    }
  }
  void check() {
    const Status status = scheduler.check_integrity();
    ASSERT_TRUE(status.ok()) << status.message();
  }
  // The terminal event of a choice; fails unless there is exactly one.
  SequenceEvent terminal(RequestId request_id, int32_t choice_idx = 0) {
    SequenceEvent found;
    int count = 0;
    for (const SequenceEvent& event : events) {
      if (event.request_id == request_id && event.choice_idx == choice_idx && event.finish_reason) {
        found = event;
        ++count;
      }
    }
    EXPECT_EQ(count, 1) << "terminal events of request " << request_id << " choice " << choice_idx;
    return found;
  }
  int64_t blocks_used() const { return scheduler.stats().num_blocks_used; }

  Scheduler scheduler;
  FakeWorker worker;
  uint64_t num_requests = 0;
  std::deque<StepPtr> in_flight;
  std::deque<ModelOutput> outputs;
  std::vector<SequenceEvent> events;
  std::map<std::pair<RequestId, int32_t>, std::vector<int32_t>> tokens;
};

std::vector<int32_t> lengths(const SchedulerOutput& step) {
  std::vector<int32_t> counts;
  for (const ScheduledSequence& scheduled : step.sequences) counts.push_back(scheduled.num_scheduled_tokens);
  return counts;
}

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
  EXPECT_EQ(harness.scheduler.add(harness.make_request({.num_prompt = 65})).code(),
            StatusCode::kInvalidArgument);
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
  EXPECT_EQ(harness.scheduler.add(harness.make_request({.first_token = 100})).code(),
            StatusCode::kUnavailable);
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
  EXPECT_EQ(num_computed, 17 + 4 * 1 + 5)
      << "each sibling computes one prompt token, each choice its first output";
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
  const RequestId important =
      harness.add({.num_prompt = 14, .max_tokens = 16, .first_token = 50, .priority = 1});
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

}  // namespace
}  // namespace sextant
