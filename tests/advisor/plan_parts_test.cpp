// Parts of a plan that need no trained predictions: what compliance asks, and replicas as queues.
#include <gtest/gtest.h>

#include "advisor/plan/plan.h"
#include "advisor/queueing/forecast.h"
#include "tests/advisor/planning_world.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;

// The templates alone, without training.
Spec bare_spec(const json& given) {
  static const UseCases use_cases = [] {
    UseCases out;
    KnowledgeBase kb = KnowledgeBase::open(":memory:").value();
    const auto documents = kb.list(KbKind::kUseCase).value();
    for (const KbDocument& document : documents) out[document.id] = document.body;
    return out;
  }();
  Spec spec;
  const auto errors = read_spec_object(given, use_cases, spec);
  EXPECT_TRUE(errors.empty()) << errors.front().message();
  return spec;
}

TEST(Compliance, TheStricterOfAllRegulationsHolds) {
  const auto of = [](json names) { return compliance_of(bare_spec({{"peak_rps", 1}, {"compliance", names}})); };
  const Compliance none = compliance_of(bare_spec({{"peak_rps", 1}}));
  EXPECT_FALSE(none.audit_log || none.encryption_at_rest || none.encryption_in_transit || none.erasure_on_request);
  EXPECT_TRUE(none.allows("any") && none.regions_rule().empty() && none.rules.empty());
  const Compliance soc2 = of({"soc2"});
  EXPECT_EQ(soc2.audit_retention_days, 365);
  EXPECT_FALSE(soc2.content_retention_days_max.has_value());
  EXPECT_TRUE(soc2.allows("ap-southeast-1") && soc2.encryption_at_rest);
  const Compliance all = of({"gdpr", "ccpa", "hipaa", "soc2"});
  EXPECT_EQ(all.audit_retention_days, 2192);  // six years
  EXPECT_EQ(all.content_retention_days_max, 30);
  EXPECT_TRUE(all.erasure_on_request);
  EXPECT_GE(of({"ccpa"}).audit_retention_days, 730);
}

TEST(Compliance, RegionsAreKeptToWhereDataMayBe) {
  const auto allowed = [](json names, const char* region) {
    return compliance_of(bare_spec({{"peak_rps", 1}, {"compliance", names}})).allows(region);
  };
  for (const char* eu : {"eu-west-1", "eu-central-1", "europe-west4", "westeurope", "francecentral"}) {
    EXPECT_TRUE(allowed({"gdpr"}, eu)) << eu;
    EXPECT_FALSE(allowed({"hipaa"}, eu)) << eu;
    EXPECT_TRUE(allowed({"gdpr", "hipaa"}, eu)) << eu;
  }
  for (const char* us : {"us-east-1", "us-central1", "eastus", "southcentralus"}) {
    EXPECT_TRUE(allowed({"hipaa"}, us)) << us;
    EXPECT_FALSE(allowed({"gdpr"}, us)) << us;
  }
  // London, Zurich, nowhere; and names that only look alike.
  for (const char* neither :
       {"eu-west-2", "eu-central-2", "europe-west2", "any", "", "ap-southeast-1", "us", "australiaeast"}) {
    EXPECT_FALSE(allowed({"gdpr"}, neither)) << neither;
    EXPECT_FALSE(allowed({"hipaa"}, neither)) << neither;
  }
}

Prediction mean_of(double value, double half = 0.1) {
  Prediction p;
  p.mean = value;
  p.log_half_width = half;
  return p;
}

// A GPU that streams its weights in 6 ms.
QueueServer known_server() {
  QueueServer server;
  server.max_num_seqs = 256;
  server.kv_tokens = 200'000;
  server.cost = {.overhead = 8e-4,
                 .per_sequence = 1e-5,
                 .stream_weights = 6e-3,
                 .per_context_token = 2e-8,
                 .per_token = 2e-5,
                 .per_pair = 4e-10,
                 .sharpness = 8};
  server.fixed_ttft_s = 5e-3;
  return server;
}
const StepShape kKnownShape{.context_token_per_weights = 2e-8 / 6e-3, .pair_per_token = 4e-10 / 2e-5};
const double kKnownLoads[] = {1, 4, 16, 48, 128};

// The closed form is the steady state of the queue that it stands for.
TEST(StepEstimate, ClosedLoopsAreThoseOfTheQueue) {
  const QueueServer server = known_server();
  for (const double prompt : {128.0, 1024.0, 5000.0})
    for (const double load : {1.0, 4.0, 16.0, 32.0}) {
      const ClosedLoopMeans means = closed_loop_means(server, {load, prompt, 200, 0, 0});
      const auto c = static_cast<int64_t>(load);
      const Traffic traffic{
          .request_rate = 0, .concurrency = c, .arrival_cv = 1, .prompt = {prompt, 0, 0}, .output = {200, 0, 0}};
      const auto requests = draw_requests(traffic, 20 * c, 1);
      const QueueRun run = run_queue(server, requests, c);
      double ttft = 0, tpot = 0;
      const size_t from = static_cast<size_t>(4 * c), to = static_cast<size_t>(16 * c);
      for (size_t i = from; i < to; ++i) {
        ttft += run.outcomes[i].ttft_s / static_cast<double>(to - from);
        tpot += run.outcomes[i].tpot_s(200) / static_cast<double>(to - from);
      }
      // How prompts that do not share a step evenly are cut is not written down: it moves time between TTFT and TPOT, not the
      // time of a round.
      EXPECT_NEAR((means.ttft_s + 199 * means.tpot_s) / (ttft + 199 * tpot), 1, 0.05) << prompt << " x " << load;
      if (load * (prompt + 1) > 8192) continue;
      EXPECT_NEAR(means.tpot_s / tpot, 1, 0.02) << prompt << " x " << load;
      EXPECT_NEAR(means.ttft_s / ttft, 1, 0.02) << prompt << " x " << load;
    }
}

ReplicaModel known_model(const RequestSample& sample, double half = 0.1) {
  std::vector<double> loads(std::begin(kKnownLoads), std::end(kKnownLoads));
  std::vector<Prediction> ttft, tpot;
  for (const double load : loads) {
    const ClosedLoopMeans means =
        closed_loop_means(known_server(), {load, sample.prompt_mean(), sample.output_mean(), 0, 0});
    ttft.push_back(mean_of(means.ttft_s * 1e3, half));
    tpot.push_back(mean_of(means.tpot_s * 1e3, half));
  }
  QueueServer limits = known_server();
  limits.cost = {};
  return replica_model(limits, kKnownShape, sample, loads, ttft, tpot);
}

// What planning says of a rate is what forecast() says of the server itself: one model, with the cost of a step found in
// closed form from means, and one sample instead of fifteen runs.
TEST(ReplicaModel, AgreesWithTheForecastOfTheServerItself) {
  for (const double cv : {1.0, 2.0})
    for (const double share : {0.3, 0.6, 0.85}) {
      const RequestShape shape{.prompt_avg = 600,
                               .prompt_p95 = 1200,
                               .output_avg = 150,
                               .output_p95 = 320,
                               .context_max = 8000,
                               .arrival_cv = cv};
      const RequestSample sample(shape);
      const ReplicaModel model = known_model(sample);
      EXPECT_LT(model.fit.tpot_error, 0.02);
      const double rate = share * model.saturation_rps;
      const Operation ours = operate(model, sample, rate);
      Traffic traffic{.request_rate = rate,
                      .concurrency = 1,
                      .arrival_cv = cv,
                      .prompt = {600, 0.44, 8000},
                      .output = {150, 0.49, 8000}};
      const Forecast theirs = forecast(known_server(), traffic, {.num_requests = 1000, .num_runs = 15}).value();
      // One run against the middle of fifteen: within what 90% of runs give, and 10% for the closed form; once more as much.
      const auto within = [&](double value_ms, const LatencyShare& share_s, double log_error, const char* what) {
        const double half = std::log(share_s.high / share_s.value);
        EXPECT_LT(std::abs(std::log(value_ms / 1e3 / share_s.value)), 2 * (half + log_error))
            << what << " at " << share << ", CV " << cv;
      };
      within(ours.tpot_ms.p50, theirs.tpot.p50, 0.05, "TPOT p50");
      within(ours.tpot_ms.p90, theirs.tpot.p90, 0.05, "TPOT p90");
      within(ours.ttft_ms.p50, theirs.ttft.p50, 0.1, "TTFT p50");
      within(ours.ttft_ms.p90, theirs.ttft.p90, 0.1, "TTFT p90");
      within(ours.e2e_ms.p95, theirs.e2e.p95, 0.05, "E2E p95");
    }
}

TEST(ReplicaModel, PercentilesAreOfWholeRequestsAndKeepLittlesLaw) {
  const RequestShape shape{.prompt_avg = 500,
                           .prompt_p95 = 1000,
                           .output_avg = 200,
                           .output_p95 = 500,
                           .context_max = 4000,
                           .arrival_cv = 1};
  const RequestSample sample(shape);
  EXPECT_NEAR(sample.prompt_mean(), 500, 10);
  EXPECT_NEAR(sample.output_mean(), 200, 6);
  const ReplicaModel model = known_model(sample);
  const Operation loaded = operate(model, sample, 0.7 * model.saturation_rps);
  for (const Percentiles& p : {loaded.ttft_ms, loaded.tpot_ms, loaded.e2e_ms}) {
    EXPECT_LT(p.p50, p.p90);
    EXPECT_LE(p.p90, p.p95);
    EXPECT_LE(p.p95, p.p99);
  }
  EXPECT_LT(loaded.e2e_ms.p95, loaded.ttft_ms.p95 + 499 * loaded.tpot_ms.p95);
  EXPECT_NEAR(loaded.requests_per_s * loaded.e2e_ms.mean / 1000, loaded.concurrency, 1e-6 * loaded.concurrency);
  EXPECT_GT(loaded.concurrency_p99, loaded.concurrency);
  // Burstier arrivals wait longer.
  RequestShape bursty = shape;
  bursty.arrival_cv = 4;
  const RequestSample bursts(bursty);
  EXPECT_GT(operate(model, bursts, 0.7 * model.saturation_rps).ttft_ms.p99, loaded.ttft_ms.p99);
  // Two stages are two such queues.
  ReplicaModel staged = model;
  staged.stages = 2;
  const Operation both = operate(staged, sample, 2 * loaded.requests_per_s);
  EXPECT_NEAR(both.ttft_ms.p90, loaded.ttft_ms.p90, 1e-9);
  EXPECT_NEAR(both.concurrency, 2 * loaded.concurrency, 1e-6);
}

TEST(ReplicaModel, TheRateFallsWithTheTargetUntilNothingIsLeft) {
  const RequestShape shape{
      .prompt_avg = 300, .prompt_p95 = 600, .output_avg = 101, .output_p95 = 200, .context_max = 2000, .arrival_cv = 1};
  const RequestSample sample(shape);
  const ReplicaModel model = known_model(sample);
  const double alone = operate(model, sample, 0.002 * model.saturation_rps).tpot_ms.p90;
  const double most = operate(model, sample, kMostLoad * model.saturation_rps).tpot_ms.p90;
  ASSERT_GT(most, 1.2 * alone);
  double last = 1e9;
  for (const double limit : {2.0, 0.9, 0.7, 0.5, 0.3}) {  // of the way from no load to the highest
    const std::vector<LatencyTarget> targets = {
        {LatencyTarget::Metric::kTpot, 90, 1.04 * alone + limit * (most - alone), "target_tpot_p90_ms"}};
    const LimitedRate rate = limited_rate(model, sample, targets);
    ASSERT_TRUE(rate.feasible) << limit;
    EXPECT_LE(rate.requests_per_s, last * 1.02);
    EXPECT_LE(rate.requests_per_s, kMostLoad * model.saturation_rps * 1.000001);
    EXPECT_GE(probability_of(model, operate(model, sample, rate.requests_per_s), targets[0]), 0.699);
    EXPECT_EQ(rate.binding.has_value(), limit < 1);
    last = rate.requests_per_s;
  }
  const LimitedRate none =
      limited_rate(model, sample, {{LatencyTarget::Metric::kTpot, 90, 0.9 * alone, "target_tpot_p90_ms"}});
  EXPECT_FALSE(none.feasible);
  EXPECT_EQ(none.binding->field, "target_tpot_p90_ms");
  // Made as sure as a pass must be.
  EXPECT_GT(none.best_ms, alone);
  EXPECT_LT(none.best_ms, alone * 1.1);
}

// In bursts a limit keeps tokens quick and lets the first ones wait, where these may.
TEST(ReplicaModel, ABatchLimitIsChosenWhereItCarriesMore) {
  const RequestShape shape{
      .prompt_avg = 300, .prompt_p95 = 600, .output_avg = 101, .output_p95 = 200, .context_max = 2000, .arrival_cv = 4};
  const RequestSample sample(shape);
  const ReplicaModel open = known_model(sample);
  const double alone = operate(open, sample, 0.002 * open.saturation_rps).tpot_ms.p90;
  const double most = operate(open, sample, kMostLoad * open.saturation_rps).tpot_ms.p90;
  const auto targets = [&](double ttft_ms) {
    return std::vector<LatencyTarget>{
        {LatencyTarget::Metric::kTtft, 90, ttft_ms, "target_ttft_p90_ms"},
        {LatencyTarget::Metric::kTpot, 90, 1.04 * alone + 0.4 * (most - alone), "target_tpot_p90_ms"}};
  };
  ReplicaModel model = open;
  std::vector<BatchTrial> trials;
  const LimitedRate patient = choose_batch_limit(model, sample, targets(60'000), trials);
  const LimitedRate without = limited_rate(open, sample, targets(60'000));
  ASSERT_TRUE(patient.feasible && without.feasible);
  EXPECT_GT(patient.requests_per_s, 1.02 * without.requests_per_s);
  EXPECT_LT(model.fit.server.max_num_seqs, open.fit.server.max_num_seqs);
  EXPECT_GE(trials.size(), 2u);
  EXPECT_EQ(trials[0].max_num_seqs, open.fit.server.max_num_seqs);
  EXPECT_EQ(trials[0].requests_per_s, without.requests_per_s);
  for (const BatchTrial& trial : trials) EXPECT_LE(trial.requests_per_s, patient.requests_per_s * 1.02 + 1e-9);
  // The rate is that of the limited replica, and its batches are no larger.
  EXPECT_EQ(limited_rate(model, sample, targets(60'000)).requests_per_s, patient.requests_per_s);
  EXPECT_LE(operate(model, sample, patient.requests_per_s).mean_batch,
            static_cast<double>(model.fit.server.max_num_seqs));
  // Where the first token ends the rate, no limit helps and none is tried.
  model = open;
  const double first_alone = operate(open, sample, 0.002 * open.saturation_rps).ttft_ms.p90;
  const LimitedRate impatient = choose_batch_limit(model, sample, {targets(1.5 * first_alone)[0]}, trials);
  EXPECT_EQ(trials.size(), 1u);
  EXPECT_EQ(model.fit.server.max_num_seqs, open.fit.server.max_num_seqs);
  EXPECT_EQ(impatient.binding->field, "target_ttft_p90_ms");
}

TEST(ReplicaModel, ABatchLimitIsOfAllStagesAndNeverNone) {
  const RequestSample sample({.prompt_avg = 300,
                              .prompt_p95 = 600,
                              .output_avg = 101,
                              .output_p95 = 200,
                              .context_max = 2000,
                              .arrival_cv = 1});
  ReplicaModel model = known_model(sample);
  model.stages = 4;
  EXPECT_EQ(with_batch_limit(model, sample, 64).fit.server.max_num_seqs, 16);
  EXPECT_EQ(with_batch_limit(model, sample, 1).fit.server.max_num_seqs, 1);
  EXPECT_EQ(with_batch_limit(model, sample, int64_t{1} << 40).fit.server.max_num_seqs, model.fit.server.max_num_seqs);
  EXPECT_LT(with_batch_limit(model, sample, 16).saturation_rps, model.saturation_rps);
}

}  // namespace
}  // namespace sextant::advisor
