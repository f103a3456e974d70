// The advisor's queue against the engine's own scheduler in virtual time, with the same step times; forecasts; the fit of a step's
// cost from mean latencies.
#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "advisor/queueing/record_loads.h"
#include "advisor/queueing/step_fit.h"
#include "engine/sim/virtual_time.h"

namespace sextant::advisor {
namespace {

StepCost gpu_cost() {
  StepCost cost;
  cost.overhead = 0.5e-3;
  cost.per_sequence = 5e-6;
  cost.stream_weights = 8e-3;
  cost.per_context_token = 60e-9;
  cost.per_token = 20e-6;
  cost.per_pair = 1e-10;
  return cost;
}

class CostTime final : public sim::StepTimeModel {
 public:
  explicit CostTime(const StepCost& cost) : cost_(cost) {}
  double step_seconds(std::span<const ScheduledSequence> rows) const override {
    StepLoad load;
    for (const ScheduledSequence& row : rows) {
      const double tokens = row.num_scheduled_tokens, before = row.num_computed_tokens;
      load.sequences += 1;
      load.tokens += tokens;
      load.context_tokens += before + tokens;
      load.pairs += tokens * before + tokens * (tokens + 1) / 2;
    }
    return cost_.seconds(load);
  }
  std::string description() const override { return "of the test"; }

 private:
  StepCost cost_;
};

struct Case {
  const char* name;
  double rate = 0;
  int64_t concurrency = 0;
  double cv = 1;
  Lengths prompt, output;
  int64_t max_num_seqs = 256;
  int64_t max_num_batched_tokens = 2048;
  int64_t num_blocks = 1 << 16;
};
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

class AgainstTheScheduler : public testing::TestWithParam<Case> {};

struct Pair {
  std::vector<QueueRequest> requests;
  QueueRun ours;
  sim::SimResult theirs;
};

Pair both(const Case& c, uint64_t seed) {
  Pair pair;
  Traffic traffic{
      .request_rate = c.rate, .concurrency = c.concurrency, .arrival_cv = c.cv, .prompt = c.prompt, .output = c.output};
  pair.requests = draw_requests(traffic, 600, seed);
  QueueServer server;
  server.cost = gpu_cost();
  server.max_num_seqs = c.max_num_seqs;
  server.max_num_batched_tokens = c.max_num_batched_tokens;
  server.kv_tokens = static_cast<double>(c.num_blocks * 16);
  pair.ours = run_queue(server, pair.requests, c.concurrency);
  sim::SimServer engine;
  engine.scheduler.max_num_seqs = c.max_num_seqs;
  engine.scheduler.max_num_batched_tokens = c.max_num_batched_tokens;
  engine.scheduler.max_num_queued_reqs = 100000;
  engine.cache.enable_prefix_caching = false;
  engine.max_model_len = 1 << 20;
  engine.num_blocks = c.num_blocks;
  sim::SimWorkload workload;
  workload.concurrency = c.concurrency;
  for (const QueueRequest& request : pair.requests) {
    workload.requests.push_back({.arrival_s = request.arrival_s,
                                 .prompt_tokens = request.prompt_tokens,
                                 .output_tokens = request.output_tokens});
  }
  sim::SimTiming timing;
  timing.model = std::make_shared<CostTime>(gpu_cost());
  Result<sim::SimResult> result = sim::simulate(workload, timing, engine);
  EXPECT_TRUE(result.ok()) << result.status().message();
  if (result.ok()) pair.theirs = std::move(result).value();
  return pair;
}

// The rules are the engine's, so the times agree to the nanoseconds that its clock rounds to; only where the cache overflows, whom
// blocks of 16 tokens push out is not followed exactly.
TEST_P(AgainstTheScheduler, EveryRequestTakesAsLong) {
  const Pair pair = both(GetParam(), 3);
  ASSERT_EQ(pair.theirs.outcomes.size(), pair.ours.outcomes.size());
  const bool overflows = pair.theirs.scheduler.num_preemptions > 0;
  double sum_ttft = 0, sum_e2e = 0;
  for (size_t i = 0; i < pair.requests.size(); ++i) {
    const sim::SimOutcome& theirs = pair.theirs.outcomes[i];
    const double ttft = pair.ours.outcomes[i].ttft_s / theirs.ttft_s() - 1;
    const double e2e = pair.ours.outcomes[i].e2e_s / theirs.e2e_s() - 1;
    sum_ttft += ttft;
    sum_e2e += e2e;
    if (overflows) continue;
    ASSERT_NEAR(ttft, 0, 1e-5) << "request " << i;
    ASSERT_NEAR(e2e, 0, 1e-5) << "request " << i;
    ASSERT_NEAR(pair.ours.outcomes[i].queue_s, theirs.queue_s(), 1e-6) << "request " << i;
  }
  EXPECT_NEAR(sum_ttft / 600, 0, 0.02);
  EXPECT_NEAR(sum_e2e / 600, 0, 0.02);
  EXPECT_EQ(pair.ours.preemptions > 0, overflows);
  EXPECT_NEAR(pair.ours.busy_s, pair.theirs.busy_s, 0.01 * pair.theirs.busy_s);
}

INSTANTIATE_TEST_SUITE_P(
    Loads, AgainstTheScheduler,
    testing::Values(
        Case{.name = "light", .rate = 2, .prompt = {512, 0, 0}, .output = {128, 0, 0}},
        Case{.name = "busy", .rate = 14, .prompt = {512, 0.5, 0}, .output = {128, 0.5, 0}},
        Case{.name = "bursty", .rate = 10, .cv = 3, .prompt = {700, 1, 8000}, .output = {200, 1, 4000}},
        Case{.name = "long_prompts", .rate = 1, .prompt = {9000, 0.3, 0}, .output = {50, 0, 0}},
        Case{.name = "closed", .concurrency = 32, .prompt = {300, 0.2, 0}, .output = {100, 0.4, 0}},
        Case{.name = "few_places", .rate = 8, .prompt = {512, 0.3, 0}, .output = {128, 0.3, 0}, .max_num_seqs = 8},
        Case{.name = "little_cache", .rate = 12, .prompt = {512, 0.3, 0}, .output = {256, 0.3, 0}, .num_blocks = 500}),
    [](const auto& each) { return std::string(each.param.name); });

QueueServer server_with(const StepCost& cost) {
  QueueServer server;
  server.cost = cost;
  server.kv_tokens = 400'000;
  return server;
}
Traffic closed_loop(int64_t concurrency, double prompt = 512, double output = 128) {
  return {.concurrency = concurrency, .prompt = {prompt, 0, 0}, .output = {output, 0, 0}};
}

TEST(Forecast, ALightLoadIsTheStepsThatARequestNeeds) {
  QueueServer server = server_with(gpu_cost());
  server.fixed_ttft_s = 0.02;
  Traffic traffic = closed_loop(1);
  const auto out = forecast(server, traffic, {.num_requests = 20, .num_runs = 2});
  ASSERT_TRUE(out.ok());
  const double prompt = gpu_cost().seconds({1, 512, 512, 512.0 * 513 / 2});
  EXPECT_NEAR(out->ttft.p50.value, prompt + 0.02, 1e-9);
  EXPECT_NEAR(out->ttft.p99.value, out->ttft.p50.value, 1e-9);
  EXPECT_NEAR(out->ttft.p99.low, out->ttft.p99.high, 1e-9);
  EXPECT_NEAR(out->tpot.p50.value, gpu_cost().seconds({1, 1, 512 + 64.0, 512 + 64.0}), 1e-4);
  EXPECT_NEAR(out->busy_share, 1, 1e-6);
  EXPECT_FALSE(out->saturated);
}

TEST(Forecast, MoreLoadAndMoreBurstsWaitLonger) {
  const QueueServer server = server_with(gpu_cost());
  double previous = 0;
  for (const double rate : {2.0, 8.0, 14.0}) {
    const auto out = forecast(server, {.request_rate = rate, .prompt = {512, 0, 0}, .output = {128, 0, 0}}, {});
    ASSERT_TRUE(out.ok());
    EXPECT_GT(out->ttft.p90.value, previous);
    previous = out->ttft.p90.value;
    EXPECT_LE(out->ttft.p50.value, out->ttft.p90.value);
    EXPECT_LE(out->ttft.p90.value, out->ttft.p99.value);
  }
  const Traffic bursty = {.request_rate = 8, .arrival_cv = 4, .prompt = {512, 0, 0}, .output = {128, 0, 0}};
  const Traffic steady = {.request_rate = 8, .arrival_cv = 0, .prompt = {512, 0, 0}, .output = {128, 0, 0}};
  EXPECT_GT(forecast(server, bursty, {})->ttft.p99.value, 2 * forecast(server, steady, {})->ttft.p99.value);
}

TEST(Forecast, AQueueThatGrowsIsSaturated) {
  const QueueServer server = server_with(gpu_cost());
  const auto over = forecast(server, {.request_rate = 200, .prompt = {512, 0, 0}, .output = {128, 0, 0}}, {});
  ASSERT_TRUE(over.ok());
  EXPECT_TRUE(over->saturated);
  EXPECT_LT(over->request_rps, 200);
  EXPECT_NEAR(over->busy_share, 1, 0.01);
}

TEST(Forecast, RefusesWhatIsNoLoad) {
  const QueueServer server = server_with(gpu_cost());
  const Traffic good = {.request_rate = 1, .prompt = {512, 0, 0}, .output = {128, 0, 0}};
  const auto field_of = [&](const Traffic& traffic, const ForecastOptions& options = {}) {
    const auto out = forecast(server, traffic, options);
    return out.ok() ? std::string("accepted") : out.status().param();
  };
  EXPECT_EQ(field_of(good), "accepted");
  for (const double bad : {-1.0, 1e9, double{NAN}, double{INFINITY}}) {
    Traffic traffic = good;
    traffic.request_rate = bad;
    EXPECT_EQ(field_of(traffic), "request_rate") << bad;
    traffic = good;
    traffic.arrival_cv = bad;
    EXPECT_EQ(field_of(traffic), "arrival_cv") << bad;
    traffic = good;
    traffic.prompt.mean = bad;
    EXPECT_EQ(field_of(traffic), "prompt_tokens") << bad;
    traffic = good;
    traffic.output.cv = bad;
    EXPECT_EQ(field_of(traffic), "output_tokens") << bad;
  }
  Traffic large = good;
  large.prompt.mean = 500'000;
  EXPECT_EQ(field_of(large), "prompt_tokens");  // than the cache
  EXPECT_EQ(field_of(good, {.num_requests = 0}), "num_requests");
  EXPECT_EQ(field_of(good, {.num_runs = 0}), "num_runs");
  const auto endless = forecast(server, good, {.num_requests = 1000, .max_steps = 100});
  EXPECT_EQ(endless.status().code(), StatusCode::kTooLarge);
}

MeasuredLoad measure(const QueueServer& server, const Traffic& traffic, int64_t num_requests) {
  const auto measured = forecast(server, traffic, {.num_requests = num_requests, .num_runs = 1, .seed = 5});
  MeasuredLoad load;
  load.traffic = traffic;
  load.num_requests = num_requests;
  load.ttft_mean_s = measured->ttft.mean.value;
  load.tpot_mean_s = measured->tpot.mean.value;
  load.ttft_p50_s = measured->ttft.p50.value;
  load.tpot_p50_s = measured->tpot.p50.value;
  return load;
}

// From a few fixed concurrencies to percentiles under open loads that nobody measured.
TEST(StepFit, PercentilesOfLoadsThatWereNotMeasured) {
  StepCost cpu = gpu_cost();
  cpu.sharpness = 1;
  cpu.per_token = 60e-6;
  for (const StepCost& truth : {gpu_cost(), cpu}) {
    const QueueServer real = server_with(truth);
    for (const bool knows_model : {true, false}) {
      std::vector<MeasuredLoad> loads;
      for (const int64_t concurrency : {1, 4, 16, 64}) {
        loads.push_back(measure(real, closed_loop(concurrency), std::max<int64_t>(24, 12 * concurrency)));
      }
      StepShape shape;
      if (knows_model) shape = {truth.per_context_token / truth.stream_weights, truth.per_pair / truth.per_token};
      QueueServer blank = real;
      blank.cost = {};
      blank.cost.sharpness = truth.sharpness;
      const auto fit = fit_step_cost(blank, shape, loads);
      ASSERT_TRUE(fit.ok()) << fit.status().message();
      EXPECT_LT(fit->tpot_error, 0.01);
      EXPECT_LT(fit->ttft_error, 0.03);
      EXPECT_EQ(fit->server.cost.sharpness, truth.sharpness);
      for (const double cv : {1.0, 3.0}) {
        for (const double rate : {2.0, 4.0, 8.0}) {
          SCOPED_TRACE(testing::Message() << "knows " << knows_model << " cv " << cv << " rate " << rate);
          const Traffic traffic = {
              .request_rate = rate, .arrival_cv = cv, .prompt = {512, 0, 0}, .output = {128, 0, 0}};
          const auto expected = forecast(real, traffic, {.num_runs = 5, .seed = 7});
          const auto got = forecast(fit->server, traffic, {.num_runs = 5, .seed = 7});
          // Half of the error that forecasts may have: 10% of medians, 25% of 99th percentiles.
          for (const auto& [a, b] :
               {std::pair(&got->tpot, &expected->tpot), {&got->e2e, &expected->e2e}, {&got->ttft, &expected->ttft}}) {
            EXPECT_NEAR(a->p50.value / b->p50.value, 1, 0.05);
            EXPECT_NEAR(a->p99.value / b->p99.value, 1, 0.125);
          }
        }
      }
    }
  }
}

TEST(StepFit, RefusesWhatIsNoMeasurement) {
  const QueueServer server = server_with({});
  EXPECT_FALSE(fit_step_cost(server, {}, {}).ok());
  MeasuredLoad good;
  good.traffic = closed_loop(1);
  good.tpot_mean_s = 0.01;
  EXPECT_TRUE(fit_step_cost(server, {}, {good}).ok());
  for (const double bad : {0.0, -1.0, double{NAN}, double{INFINITY}}) {
    MeasuredLoad load = good;
    load.tpot_mean_s = bad;
    EXPECT_FALSE(fit_step_cost(server, {}, {load}).ok()) << bad;
    load = good;
    load.traffic.prompt.mean = bad;
    EXPECT_FALSE(fit_step_cost(server, {}, {load}).ok()) << bad;
  }
  MeasuredLoad without = good;
  without.tpot_mean_s.reset();
  EXPECT_FALSE(fit_step_cost(server, {}, {without}).ok());
}

bench::BenchmarkRecord record(const std::string& gpu, int64_t concurrency) {
  bench::BenchmarkRecord out;
  out.timestamp = "2026-01-01T00:00:00Z";
  out.model_id = "m";
  if (!gpu.empty()) out.gpu_type = gpu;
  out.num_gpus = gpu.empty() ? 0 : 1;
  out.engine = "vllm";
  out.engine_config = {{"max_num_seqs", 32}, {"num_gpu_blocks", 100}, {"block_size", 32}};
  out.test_conditions.load = "concurrency";
  out.test_conditions.concurrency = concurrency;
  out.test_conditions.prompt_tokens = {100, 90, 200, 300};
  out.test_conditions.output_tokens = {50, 50, 50, 50};
  out.test_conditions.num_requests = 40;
  out.metrics.tpot_ms = bench::MetricSummary{40, 10, 9, {}, {}, {}, {}, {}};
  out.metrics.ttft_ms = bench::MetricSummary{40, 100, 90, {}, {}, {}, {}, {}};
  return out;
}

TEST(RecordLoads, AreOfOneDeployment) {
  const auto one = loads_of_records({record("L4", 1), record("L4", 8)}, {});
  ASSERT_TRUE(one.ok()) << one.status().message();
  EXPECT_EQ(one->server.max_num_seqs, 32);
  EXPECT_EQ(one->server.max_steps_in_flight, 2);
  EXPECT_EQ(one->server.kv_tokens, 3200);
  EXPECT_EQ(one->assumed, std::vector<std::string>{"max_num_batched_tokens 8192"});
  ASSERT_EQ(one->loads.size(), 2u);
  EXPECT_EQ(one->loads[1].traffic.concurrency, 8);
  EXPECT_NEAR(one->loads[1].traffic.prompt.cv, 0.5, 0.1);
  EXPECT_EQ(one->loads[1].traffic.output.cv, 0);
  EXPECT_NEAR(*one->loads[1].ttft_p50_s, 0.09, 1e-12);
  EXPECT_EQ(loads_of_records({record("", 1)}, {})->server.max_steps_in_flight, 1);

  const auto two = loads_of_records({record("L4", 1), record("", 1)}, {});
  ASSERT_FALSE(two.ok());
  EXPECT_NE(two.status().message().find("m on 1 x L4"), std::string::npos) << two.status().message();
  EXPECT_TRUE(loads_of_records({record("L4", 1), record("", 1)}, RecordFilter{"", "L4", {}}).ok());
  EXPECT_FALSE(loads_of_records({record("L4", 1)}, RecordFilter{"other", "", {}}).ok());
  EXPECT_FALSE(loads_of_records({}, {}).ok());
}

TEST(RecordLoads, LeaveOutWhatTellsNothingAndSayWhy) {
  bench::BenchmarkRecord simulated = record("L4", 2), trace = record("L4", 2), failing = record("L4", 2),
                         over = record("L4", 2), without = record("L4", 2);
  simulated.source = bench::RecordSource::kSimulated;
  trace.test_conditions.load = "trace";
  failing.metrics.error_rate = 0.5;
  over.validity.over_saturated = true;
  without.metrics.tpot_ms.reset();
  const auto out = loads_of_records({record("L4", 1), simulated, trace, failing, over, without}, {});
  ASSERT_TRUE(out.ok());
  EXPECT_FALSE(out->simulated);
  EXPECT_EQ(out->loads.size(), 1u);
  EXPECT_EQ(out->left_out.size(), 5u);
  const auto only = loads_of_records({simulated}, {});
  ASSERT_TRUE(only.ok());
  EXPECT_TRUE(only->simulated);
  EXPECT_FALSE(loads_of_records({trace}, {}).ok());
}

}  // namespace
}  // namespace sextant::advisor
