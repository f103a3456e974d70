// The engine's thread over a simulated device, with time in the test's hands: it must do what virtual time says, to the nanosecond.
#include "engine/sim_engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include <gtest/gtest.h>

#include "tests/support/collecting_sink.h"
#include "tests/support/sim_times.h"

namespace sextant {
namespace {

using testing_support::CollectingSink;

// Waiting makes time pass at once, and what was to happen on the way happens then: requests arrive while a step runs.
class ScriptedClock final : public SimClock {
 public:
  struct Event {
    int64_t at_ns;
    std::function<void()> action;
  };
  int64_t now_ns() const override { return now_ns_.load(); }
  void wait_until(int64_t ns) override {
    while (next_ < events.size() && events[next_].at_ns <= ns) {
      now_ns_.store(std::max(now_ns_.load(), events[next_].at_ns));
      events[next_++].action();
    }
    now_ns_.store(ns);
  }
  std::vector<Event> events;  // ascending; filled in before the engine starts

 private:
  std::atomic<int64_t> now_ns_{0};
  size_t next_ = 0;
};

TEST(SimEngine, KeepsTheTimesOfVirtualTime) {
  for (const bool is_constant : {false, true}) {
    SCOPED_TRACE(is_constant ? "constant times" : "times of a model");
    sim::SimTiming timing = testing_support::linear_timing();
    timing.jitter_cv = 0.1;
    if (is_constant) timing.constant = sim::ConstantTimes{0.02, 0.005};
    sim::SimServer server = testing_support::sim_server();
    server.num_blocks = 400;  // some are preempted
    sim::SimWorkload workload = testing_support::random_workload(3, 150, 120);
    // The first keeps the device at work until all have come: an idle engine would have nobody to make time pass.
    workload.requests[0].output_tokens = 1000;
    for (sim::SimRequest& request : workload.requests) request.prefix_group = 0;
    const Result<sim::SimResult> expected = sim::simulate(workload, timing, server);
    ASSERT_TRUE(expected.ok()) << expected.status().message();

    const auto clock = std::make_shared<ScriptedClock>();
    const auto sink = std::make_shared<CollectingSink>();
    SimEngineOptions options;
    options.config.model.max_model_len = server.max_model_len;
    options.config.scheduler = server.scheduler;
    options.config.cache = server.cache;
    options.timing = timing;
    options.info.vocab_size = 1 << 30;
    options.num_blocks = server.num_blocks;
    const sim::CannedText text = {{7}, false};
    options.choose_text = [&text](const Request&, int32_t) { return &text; };
    options.clock = clock;
    std::unique_ptr<Engine> engine;
    std::vector<RequestId> ids(workload.requests.size());
    const auto submit = [&](size_t i) {
      Request request;
      for (int32_t t = 0; t < workload.requests[i].prompt_tokens; ++t) {
        request.prompt_token_ids.push_back(static_cast<int32_t>(i) * 10'000 + t);
      }
      request.sampling.max_tokens = workload.requests[i].output_tokens;
      request.sampling.ignore_eos = true;
      Result<RequestId> id = engine->submit(std::move(request), sink);
      ASSERT_TRUE(id.ok()) << id.status().message();
      ids[i] = *id;
    };
    for (size_t i = 1; i < workload.requests.size(); ++i) {
      clock->events.push_back({std::llround(workload.requests[i].arrival_s * 1e9), [&submit, i] { submit(i); }});
    }
    Result<std::unique_ptr<Engine>> made = make_sim_engine(std::move(options));
    ASSERT_TRUE(made.ok()) << made.status().message();
    engine = std::move(made).value();
    submit(0);
    ASSERT_TRUE(sink->wait_ended(workload.requests.size()));
    ASSERT_TRUE(engine->check_integrity().ok());
    for (size_t i = 0; i < ids.size(); ++i) {
      const CollectingSink::Choice choice = sink->choice(ids[i]);
      const sim::SimOutcome& outcome = expected->outcomes[i];
      EXPECT_EQ(choice.token_ids.size(), static_cast<size_t>(outcome.num_output_tokens)) << i;
      EXPECT_EQ(choice.last.step_end_ns, std::llround(outcome.end_s * 1e9)) << i;
      EXPECT_EQ(choice.last.first_scheduled_ns, std::llround(outcome.first_scheduled_s * 1e9)) << i;
      EXPECT_EQ(choice.last.num_preemptions, outcome.num_preemptions) << i;
    }
    EXPECT_EQ(engine->stats().num_steps, expected->num_steps);
    engine.reset();
  }
}

TEST(SimEngine, AnswersWithItsTextAndEndsWhereTheTextEnds) {
  sim::SimTiming timing;
  timing.constant = sim::ConstantTimes{0, 0};
  SimEngineOptions options;
  options.config.model.max_model_len = 64;
  options.timing = timing;
  options.info.vocab_size = 300;
  options.info.eos_token_ids = {299};
  options.num_blocks = 100;
  const sim::CannedText text = {{10, 11, 12}, true};
  options.choose_text = [&text](const Request&, int32_t) { return &text; };
  Result<std::unique_ptr<Engine>> engine = make_sim_engine(std::move(options));
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const auto ask = [&](const std::function<void(SamplingParams&)>& change) {
    Request request;
    request.prompt_token_ids = {1, 2, 3};
    request.sampling.max_tokens = 8;
    change(request.sampling);
    const auto sink = std::make_shared<CollectingSink>();
    const int32_t n = request.sampling.n;
    const Result<RequestId> id = (*engine)->submit(std::move(request), sink);
    EXPECT_TRUE(id.ok()) << id.status().message();
    EXPECT_TRUE(sink->wait_ended(static_cast<size_t>(n)));
    return sink->choice(*id, n - 1);
  };
  const auto plain = ask([](SamplingParams&) {});
  EXPECT_EQ(plain.token_ids, (std::vector<int32_t>{10, 11, 12, 299}));
  EXPECT_EQ(plain.finish_reason, FinishReason::kStop);
  const auto longer = ask([](SamplingParams& sampling) { sampling.ignore_eos = true; });
  EXPECT_EQ(longer.token_ids, (std::vector<int32_t>{10, 11, 12, 10, 11, 12, 10, 11}));
  EXPECT_EQ(longer.finish_reason, FinishReason::kLength);
  const auto at_least = ask([](SamplingParams& sampling) { sampling.min_tokens = 5; });
  EXPECT_EQ(at_least.token_ids, (std::vector<int32_t>{10, 11, 12, 10, 11, 299}));
  const auto second = ask([](SamplingParams& sampling) { sampling.n = 2; });
  EXPECT_EQ(second.token_ids, (std::vector<int32_t>{10, 11, 12, 299}));
  const auto logprobs = ask([](SamplingParams& sampling) { sampling.logprobs = 1, sampling.prompt_logprobs = 1; });
  EXPECT_EQ(logprobs.logprobs.size(), 4u);
  EXPECT_EQ(logprobs.prompt_logprobs.size(), 2u);
  EXPECT_EQ(logprobs.prompt_logprobs[1].chosen.token_id, 3);
}

TEST(SimEngine, RefusesWhatItCannotBe) {
  SimEngineOptions options;
  options.timing.constant = sim::ConstantTimes{0, 0};
  options.num_blocks = 10;
  EXPECT_EQ(make_sim_engine(options).status().param(), "max_model_len");
  options.config.model.max_model_len = 100;
  options.config.scheduler.max_steps_in_flight = 2;
  EXPECT_EQ(make_sim_engine(options).status().param(), "max_steps_in_flight");
  options.config.scheduler.max_steps_in_flight = 0;
  options.num_blocks = 0;
  EXPECT_FALSE(make_sim_engine(options).ok());
}

}  // namespace
}  // namespace sextant
