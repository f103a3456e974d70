#include "engine/sim/virtual_time.h"

#include <cstring>

#include <gtest/gtest.h>

#include "tests/support/sim_times.h"

namespace sextant::sim {
namespace {

using testing_support::linear_timing;
using testing_support::random_workload;
using testing_support::sim_server;

SimResult run(const SimWorkload& workload, const SimTiming& timing, const SimServer& server,
              const OnToken& on_token = {}) {
  Result<SimResult> result = simulate(workload, timing, server, on_token);
  EXPECT_TRUE(result.ok()) << result.status().message();
  return result.ok() ? std::move(result).value() : SimResult();
}

SimTiming constant(double ttft_s, double tpot_s) {
  SimTiming timing;
  timing.constant = ConstantTimes{ttft_s, tpot_s};
  return timing;
}

SimServer roomy_server() {
  SimServer server = sim_server();
  server.scheduler.max_num_seqs = 4096;
  server.scheduler.max_num_batched_tokens = 1 << 20;
  server.num_blocks = 1 << 17;
  return server;
}

// One alone: a step for the prompt, then one per token; two are in flight, so none waits for the host.
TEST(VirtualTime, OneRequestTakesTheStepsItNeeds) {
  SimWorkload workload;
  workload.requests.push_back({.arrival_s = 1.5, .prompt_tokens = 100, .output_tokens = 11});
  const SimResult result = run(workload, linear_timing(5e-3, 0, 10e-6), sim_server());
  const SimOutcome& outcome = result.outcomes[0];
  EXPECT_DOUBLE_EQ(outcome.queue_s(), 0);
  EXPECT_NEAR(outcome.ttft_s(), 5e-3 + 100 * 10e-6, 1e-9);
  EXPECT_NEAR(outcome.tpot_s(), 5e-3 + 10e-6, 1e-9);
  EXPECT_NEAR(outcome.e2e_s(), outcome.ttft_s() + 10 * outcome.tpot_s(), 1e-9);
  EXPECT_EQ(outcome.num_output_tokens, 11);
  EXPECT_EQ(result.num_steps, 11u);
  EXPECT_NEAR(result.busy_s, outcome.e2e_s(), 1e-9);
}

TEST(VirtualTime, ALongPromptTakesAStepPerChunk) {
  SimWorkload workload;
  workload.requests.push_back({.prompt_tokens = 1200, .output_tokens = 1});
  const SimResult result = run(workload, linear_timing(5e-3, 0, 10e-6), sim_server());  // 512 tokens a step
  EXPECT_EQ(result.num_steps, 3u);
  EXPECT_NEAR(result.outcomes[0].ttft_s(), 3 * 5e-3 + 1200 * 10e-6, 1e-9);
}

// Every request ends once with its tokens; nothing happens before its cause; time is the sum of steps where the device never idles.
TEST(VirtualTime, RequestsAreConservedAndCausesComeFirst) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    SimServer server = sim_server();
    server.num_blocks = seed % 2 == 0 ? 4096 : 120;  // odd: preemptions
    server.cache.enable_prefix_caching = seed % 3 != 0;
    server.scheduler.max_num_seqs = 8 + static_cast<int64_t>(seed);
    const double rate = seed % 4 == 0 ? 1000 : 20;
    const SimWorkload workload = random_workload(seed, 200, rate);
    std::vector<int32_t> num_tokens(workload.requests.size());
    std::vector<double> last_s(workload.requests.size());
    double previous_s = 0;
    const SimResult result = run(workload, linear_timing(), server, [&](size_t idx, double time_s, int32_t num) {
      EXPECT_GE(time_s, previous_s);
      EXPECT_GE(time_s, last_s[idx]);
      EXPECT_GT(time_s, workload.requests[idx].arrival_s);
      previous_s = last_s[idx] = time_s;
      num_tokens[idx] += num;
    });
    uint64_t num_preemptions = 0;
    for (size_t i = 0; i < workload.requests.size(); ++i) {
      const SimRequest& asked = workload.requests[i];
      const SimOutcome& outcome = result.outcomes[i];
      EXPECT_FALSE(outcome.rejected);
      EXPECT_EQ(outcome.num_output_tokens, asked.output_tokens);
      EXPECT_EQ(num_tokens[i], asked.output_tokens);
      EXPECT_NEAR(outcome.arrival_s, asked.arrival_s, 1e-9);
      EXPECT_GE(outcome.first_scheduled_s, outcome.arrival_s);
      EXPECT_GT(outcome.first_token_s, outcome.first_scheduled_s);
      EXPECT_GE(outcome.end_s, outcome.first_token_s);
      EXPECT_DOUBLE_EQ(outcome.end_s, last_s[i]);
      EXPECT_LE(outcome.num_cached_tokens, asked.prompt_tokens - 1);
      // No token faster than the shortest step.
      EXPECT_GE(outcome.e2e_s(), 5e-3 * asked.output_tokens);
      num_preemptions += static_cast<uint64_t>(outcome.num_preemptions);
    }
    EXPECT_EQ(num_preemptions, result.scheduler.num_preemptions);
    if (seed == 1) {
      EXPECT_GT(num_preemptions, 0u);
    }
    EXPECT_LE(result.busy_s, result.end_s + 1e-9);
    EXPECT_LE(result.max_running, server.scheduler.max_num_seqs);
    EXPECT_EQ(result.scheduler.num_blocks_used, 0);
    EXPECT_EQ(result.scheduler.num_running + result.scheduler.num_waiting, 0);
  }
}

TEST(VirtualTime, TheSameSeedGivesTheSameBytes) {
  const SimWorkload workload = random_workload(7, 300, 50);
  SimTiming timing = linear_timing();
  timing.jitter_cv = 0.2;
  timing.seed = 3;
  const auto bytes = [&] {
    std::string text;
    for (const SimOutcome& outcome : run(workload, timing, sim_server()).outcomes) {
      for (const double value : {outcome.first_scheduled_s, outcome.first_token_s, outcome.end_s}) {
        text.append(reinterpret_cast<const char*>(&value), sizeof value);
      }
    }
    return text;
  };
  const std::string first = bytes();
  EXPECT_EQ(first, bytes());
  timing.seed = 4;
  EXPECT_NE(first, bytes());
}

// Nothing in the times knows of load: what a request waits for comes from the scheduler.
TEST(VirtualTime, TtftUnderLoadEmergesFromQueueing) {
  double previous_s = 0;
  for (const double rate : {1.0, 40.0, 160.0, 640.0}) {
    SimWorkload workload = random_workload(11, 400, rate, 400, 100);
    const SimResult result = run(workload, linear_timing(), sim_server());
    double mean_s = 0;
    for (const SimOutcome& outcome : result.outcomes) mean_s += outcome.ttft_s() / 400;
    EXPECT_GT(mean_s, previous_s) << rate;
    previous_s = mean_s;
  }
  EXPECT_GT(previous_s, 0.5);  // far over capacity: seconds in the queue
}

// An M/D/1 queue whose waiting time is known: one sequence at a time, one output token, so a request is one step of a fixed time.
// Pollaczek and Khinchine: mean wait = rho / (2 (1 - rho)) service times.
TEST(VirtualTime, AgreesWithQueueingTheoryForOneServer) {
  constexpr double kServiceS = 10e-3;
  constexpr double kLoad = 0.7;
  constexpr int64_t kCount = 60'000;
  SimServer server = sim_server();
  server.scheduler.max_num_seqs = 1;
  server.scheduler.max_steps_in_flight = 1;
  server.scheduler.max_num_queued_reqs = kCount;
  const SimWorkload workload = random_workload(5, kCount, kLoad / kServiceS, 1, 1);
  const SimResult result = run(workload, linear_timing(kServiceS, 0, 0), server);
  double wait_s = 0;
  for (const SimOutcome& outcome : result.outcomes) wait_s += outcome.queue_s() / kCount;
  // The waits of this queue are correlated over about 1 / (1 - rho)^2 = 11 requests, so the mean of 60,000 has a standard error
  // near sqrt(2 * 11 / 60,000) = 2% of their deviation, which is near their mean: 8% is four of those.
  EXPECT_NEAR(wait_s / kServiceS, kLoad / (2 * (1 - kLoad)), 0.08 * kLoad / (2 * (1 - kLoad)));
  EXPECT_NEAR(result.busy_s, kCount * kServiceS, 1e-3);
}

TEST(VirtualTime, ConstantTimesHoldAtAnyLoad) {
  SimWorkload workload = random_workload(13, 300, 2000, 600, 60);
  const SimResult result = run(workload, constant(0.2, 0.05), roomy_server());
  for (size_t i = 0; i < result.outcomes.size(); ++i) {
    const SimOutcome& outcome = result.outcomes[i];
    // Tokens that are due within 1 us per running sequence of each other go out together, 0.3 ms here.
    EXPECT_GE(outcome.ttft_s(), 0.2 - 1e-9);
    EXPECT_LE(outcome.ttft_s(), 0.2 + 0.3e-3);
    EXPECT_NEAR(outcome.e2e_s(), 0.2 + 0.05 * (outcome.num_output_tokens - 1), 0.3e-3 + 1e-9);
  }
}

// Where there are too few places some wait, but nobody's tokens come faster for it.
TEST(VirtualTime, ConstantTimesGoOnAfterAWaitForAPlace) {
  SimServer server = roomy_server();
  server.scheduler.max_num_seqs = 2;
  SimWorkload workload;
  for (int i = 0; i < 6; ++i) workload.requests.push_back({.prompt_tokens = 8, .output_tokens = 11});
  const SimResult result = run(workload, constant(0.02, 0.005), server);
  for (size_t i = 0; i < result.outcomes.size(); ++i) {
    EXPECT_NEAR(result.outcomes[i].tpot_s(), 0.005, 1e-4) << i;
    EXPECT_GE(result.outcomes[i].ttft_s(), 0.02 - 1e-9) << i;
  }
  EXPECT_GT(result.outcomes[5].ttft_s(), 0.1) << "the third pair begins after two others of 0.05 s each";
}

TEST(VirtualTime, ConstantTimesAreExactForFewRequests) {
  SimWorkload workload = random_workload(17, 40, 50, 3000, 60);
  for (SimRequest& request : workload.requests) request.prompt_tokens += 20;
  const SimResult result = run(workload, constant(0.013, 0.0007), roomy_server());
  for (const SimOutcome& outcome : result.outcomes) {
    EXPECT_NEAR(outcome.ttft_s(), 0.013, 2e-9);
    EXPECT_NEAR(outcome.e2e_s(), 0.013 + 0.0007 * (outcome.num_output_tokens - 1), 2e-9);
  }
}

TEST(VirtualTime, ZeroTimesEnd) {
  const SimResult result = run(random_workload(19, 100, 1000), constant(0, 0), roomy_server());
  for (const SimOutcome& outcome : result.outcomes) EXPECT_LE(outcome.e2e_s(), 1.1e-3);
}

TEST(VirtualTime, JitterHasTheMeanAndSpreadThatItWasGiven) {
  constexpr int kCount = 200'000;
  constexpr double kCv = 0.3;
  double sum = 0;
  double sum_of_squares = 0;
  for (int i = 0; i < kCount; ++i) {
    const double factor = jitter_factor(kCv, 42, static_cast<uint64_t>(i), 0);
    ASSERT_GT(factor, 0);
    sum += factor;
    sum_of_squares += factor * factor;
  }
  const double mean = sum / kCount;
  const double deviation = std::sqrt(sum_of_squares / kCount - mean * mean);
  EXPECT_NEAR(mean, 1, 5 * kCv / std::sqrt(kCount));  // five standard errors
  EXPECT_NEAR(deviation, kCv, 0.01);
  EXPECT_EQ(jitter_factor(0, 42, 1, 2), 1);
}

TEST(VirtualTime, AFixedConcurrencyIsKept) {
  SimWorkload workload = random_workload(23, 100, 1, 200, 40);
  workload.concurrency = 7;
  const SimResult result = run(workload, linear_timing(), sim_server());
  EXPECT_EQ(result.max_running, 7);
  double busy_until_s = 0;
  for (const SimOutcome& outcome : result.outcomes) busy_until_s = std::max(busy_until_s, outcome.end_s);
  EXPECT_DOUBLE_EQ(busy_until_s, result.end_s);
  // Little's law over the whole run, which begins full and ends with a tail.
  double sum_e2e_s = 0;
  for (const SimOutcome& outcome : result.outcomes) sum_e2e_s += outcome.e2e_s();
  EXPECT_LE(sum_e2e_s / result.end_s, 7.0 + 1e-9);
  EXPECT_GT(sum_e2e_s / result.end_s, 6.0);
}

TEST(VirtualTime, AFullQueueRefuses) {
  SimServer server = sim_server();
  server.scheduler.max_num_seqs = 2;
  server.scheduler.max_num_queued_reqs = 3;
  SimWorkload workload;
  for (int i = 0; i < 10; ++i) workload.requests.push_back({.prompt_tokens = 10, .output_tokens = 5});
  const SimResult result = run(workload, linear_timing(), server);
  int num_rejected = 0;
  for (const SimOutcome& outcome : result.outcomes) num_rejected += outcome.rejected ? 1 : 0;
  EXPECT_EQ(num_rejected, 5);  // 2 places and 3 waiting
}

TEST(VirtualTime, WhatCannotRunIsRefusedByIndex) {
  const auto message = [](SimRequest request, SimServer server = sim_server()) {
    SimWorkload workload;
    workload.requests = {{}, request};
    const auto result = simulate(workload, linear_timing(), server);
    EXPECT_FALSE(result.ok());
    return result.ok() ? std::string() : result.status().message();
  };
  EXPECT_NE(message({.prompt_tokens = 0}).find("request 1 needs at least one token"), std::string::npos);
  EXPECT_NE(message({.output_tokens = -1}).find("request 1 needs at least one token"), std::string::npos);
  EXPECT_NE(message({.prompt_tokens = 5000}).find("max_model_len"), std::string::npos);
  EXPECT_NE(message({.arrival_s = -1}).find("ascend"), std::string::npos);
  EXPECT_NE(message({.arrival_s = std::nan("")}).find("ascend"), std::string::npos);
  SimServer small = sim_server();
  small.num_blocks = 2;
  EXPECT_NE(message({.prompt_tokens = 100}, small).find("KV cache holds 32 tokens"), std::string::npos);
  SimServer none = sim_server();
  none.scheduler.max_num_batched_tokens = 1;
  EXPECT_NE(message({}, none).find("no room"), std::string::npos);
  EXPECT_FALSE(simulate({}, {}, sim_server()).ok());
  EXPECT_TRUE(simulate({}, linear_timing(), sim_server()).ok());
}

}  // namespace
}  // namespace sextant::sim
