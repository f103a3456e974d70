#include "server/cli/virtual_run.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "bench/record/benchmark_record.h"
#include "engine/base/clock.h"
#include "server/cli/command_line.h"

namespace sextant::cli {
namespace {

constexpr int64_t kMostRequests = 10'000'000;

std::vector<Status> validate(const VirtualSettings& settings) {
  std::vector<Status> errors;
  const auto check = [&](bool ok, const char* key, const std::string& range, const std::string& got) {
    if (!ok) errors.push_back(invalid_argument(std::string(key) + " must be " + range + ", not " + got, key));
  };
  const auto check_range = [&](int64_t value, int64_t high, const char* key) {
    check(value >= 1 && value <= high, key, "between 1 and " + std::to_string(high), std::to_string(value));
  };
  check_range(settings.num_requests, kMostRequests, "num_requests");
  check_range(settings.concurrency, kMostRequests, "concurrency");
  check_range(settings.prompt_tokens, 1 << 27, "prompt_tokens");
  check_range(settings.output_tokens, 1 << 27, "output_tokens");
  check(settings.request_rate >= 0 && settings.request_rate <= 1e6, "request_rate", "between 0 and 1000000",
        std::to_string(settings.request_rate));
  check(settings.burstiness >= 0.01 && settings.burstiness <= 1e6, "burstiness", "between 0.01 and 1000000",
        std::to_string(settings.burstiness));
  for (const auto& [cv, key] :
       {std::pair(settings.prompt_tokens_cv, "prompt_tokens_cv"), {settings.output_tokens_cv, "output_tokens_cv"}}) {
    check(cv >= 0 && cv <= 10, key, "between 0 and 10", std::to_string(cv));
  }
  return errors;
}

int32_t draw_length(int64_t mean, double cv, int64_t longest, std::mt19937_64& random) {
  if (cv == 0) return static_cast<int32_t>(mean);
  const double variance = std::log1p(cv * cv);
  std::normal_distribution<double> normal(std::log(static_cast<double>(mean)) - variance / 2, std::sqrt(variance));
  return static_cast<int32_t>(std::clamp(std::round(std::exp(normal(random))), 1.0, static_cast<double>(longest)));
}

sim::SimWorkload make_workload(const VirtualSettings& settings, int64_t max_model_len, uint64_t seed) {
  sim::SimWorkload workload;
  if (settings.request_rate == 0) workload.concurrency = settings.concurrency;
  std::mt19937_64 random(seed);
  std::mt19937_64 lengths(~seed);
  std::gamma_distribution<double> gap(settings.burstiness, 1 / settings.burstiness);
  // A drawn prompt leaves room for an output of the mean length, and a drawn output is cut to what its prompt leaves.
  const int64_t longest_prompt = std::max(settings.prompt_tokens, max_model_len - settings.output_tokens);
  double now_s = 0;
  workload.requests.resize(static_cast<size_t>(settings.num_requests));
  for (sim::SimRequest& request : workload.requests) {
    request.prompt_tokens = draw_length(settings.prompt_tokens, settings.prompt_tokens_cv, longest_prompt, lengths);
    request.output_tokens = draw_length(settings.output_tokens, settings.output_tokens_cv,
                                        std::max<int64_t>(1, max_model_len - request.prompt_tokens), lengths);
    if (settings.request_rate == 0) continue;
    request.arrival_s = now_s;
    now_s += gap(random) / settings.request_rate;
  }
  return workload;
}

// Nearest rank; nothing when fewer than ten samples lie beyond it. `sorted` ascends.
std::optional<double> percentile(const std::vector<double>& sorted, double share) {
  const auto count = static_cast<double>(sorted.size());
  if (sorted.empty() || (1 - share) * count < 10) return std::nullopt;
  return sorted[static_cast<size_t>(std::ceil(share * count)) - 1];
}

std::optional<bench::MetricSummary> summarize_ms(std::vector<double> seconds) {
  if (seconds.empty()) return std::nullopt;
  std::sort(seconds.begin(), seconds.end());
  double sum = 0;
  for (double& value : seconds) sum += value *= 1e3;
  bench::MetricSummary summary;
  summary.n = static_cast<int64_t>(seconds.size());
  summary.mean = sum / static_cast<double>(seconds.size());
  summary.p50 = percentile(seconds, 0.5);
  summary.p90 = percentile(seconds, 0.9);
  summary.p95 = percentile(seconds, 0.95);
  summary.p99 = percentile(seconds, 0.99);
  summary.p99_9 = percentile(seconds, 0.999);
  return summary;
}

bench::LengthSummary summarize_lengths(const sim::SimWorkload& workload, int32_t sim::SimRequest::*field) {
  std::vector<double> lengths;
  double sum = 0;
  for (const sim::SimRequest& request : workload.requests) {
    lengths.push_back(request.*field);
    sum += lengths.back();
  }
  std::sort(lengths.begin(), lengths.end());
  const auto at = [&](double share) {
    return lengths[static_cast<size_t>(std::ceil(share * static_cast<double>(lengths.size()))) - 1];
  };
  return {sum / static_cast<double>(lengths.size()), at(0.5), at(0.95), lengths.back()};
}

bench::BenchmarkRecord make_record(const VirtualSettings& settings, const SimulateSettings& simulate,
                                   const SimulatedMachine& machine, const ServeOptions& options,
                                   const sim::SimWorkload& workload, const sim::SimResult& result) {
  std::vector<double> ttft_s, tpot_s, e2e_s, queue_s;
  double num_tokens = 0;
  double num_prompt_tokens = 0;
  for (size_t i = 0; i < result.outcomes.size(); ++i) {
    const sim::SimOutcome& outcome = result.outcomes[i];
    if (outcome.rejected) continue;
    num_prompt_tokens += workload.requests[i].prompt_tokens;
    ttft_s.push_back(outcome.ttft_s());
    e2e_s.push_back(outcome.e2e_s());
    queue_s.push_back(outcome.queue_s());
    if (outcome.num_output_tokens > 1) tpot_s.push_back(outcome.tpot_s());
    num_tokens += outcome.num_output_tokens;
  }
  bench::BenchmarkRecord record;
  record.timestamp = bench::timestamp_now();
  record.source = bench::RecordSource::kSimulated;
  record.model_id = options.engine.model.served_model_name;
  if (machine.model) record.weight_quantization = machine.weight_type;
  record.kv_cache_dtype = machine.kv_cache_dtype;
  record.tensor_parallel = simulate.tensor_parallel.value_or(1);
  if (!machine.gpu_type.empty()) {
    record.gpu_type = machine.gpu_type;
    record.num_gpus = record.tensor_parallel;
  }
  record.engine = "sextant";
  record.engine_version = version_text();
  ServeOptions copy = options;
  copy.of_verb.clear();
  copy.server.api_key.clear();
  record.engine_config = to_json(copy.settings());
  record.engine_config["num_gpu_blocks"] = machine.num_blocks;
  // Of a GPU, whatever is simulating it.
  record.engine_config["max_steps_in_flight"] = machine.timing.max_steps_in_flight();
  auto& conditions = record.test_conditions;
  if (settings.request_rate > 0) {
    conditions.load = settings.burstiness == 1 ? "poisson" : "gamma";
    conditions.request_rate = settings.request_rate;
    conditions.burstiness_cv = 1 / std::sqrt(settings.burstiness);
  } else {
    conditions.load = "concurrency";
    conditions.concurrency = settings.concurrency;
  }
  conditions.prompt_tokens = summarize_lengths(workload, &sim::SimRequest::prompt_tokens);
  conditions.output_tokens = summarize_lengths(workload, &sim::SimRequest::output_tokens);
  conditions.num_requests = settings.num_requests;
  conditions.duration_s = result.end_s;
  conditions.seed = simulate.sim_seed;
  conditions.tokens_counted_by = "engine";
  auto& metrics = record.metrics;
  const auto num_finished = static_cast<double>(e2e_s.size());
  metrics.error_rate = 1 - num_finished / static_cast<double>(settings.num_requests);
  metrics.ttft_ms = summarize_ms(std::move(ttft_s));
  metrics.tpot_ms = summarize_ms(std::move(tpot_s));
  metrics.e2e_ms = summarize_ms(std::move(e2e_s));
  metrics.queue_ms = summarize_ms(std::move(queue_s));
  if (result.end_s > 0) {
    metrics.request_rps = num_finished / result.end_s;
    metrics.input_tokens_per_s = num_prompt_tokens / result.end_s;
    metrics.output_tokens_per_s = num_tokens / result.end_s;
  }
  return record;
}

void print_summary(const char* name, const std::optional<bench::MetricSummary>& summary) {
  if (!summary) return;
  std::printf("  %-6s mean %10.2f ms", name, summary->mean);
  for (const auto& [label, value] : {std::pair("p50", summary->p50),
                                     {"p90", summary->p90},
                                     {"p95", summary->p95},
                                     {"p99", summary->p99},
                                     {"p99.9", summary->p99_9}}) {
    if (value) {
      std::printf("  %s %.2f", label, *value);
    } else {
      std::printf("  %s n too small", label);
    }
  }
  std::printf("\n");
}

}  // namespace

int run_virtual_time(const VirtualSettings& settings, const SimulateSettings& simulate, const SimulatedMachine& machine,
                     const ServeOptions& options) {
  if (const std::vector<Status> errors = validate(settings); !errors.empty()) {
    return report_bad_input("simulate", errors);
  }
  const EngineConfig& config = options.engine;
  sim::SimServer server;
  server.scheduler = config.scheduler;
  server.cache = config.cache;
  server.max_model_len = config.model.max_model_len;
  server.num_blocks = machine.num_blocks;
  const sim::SimWorkload workload = make_workload(settings, server.max_model_len, machine.timing.seed);
  const int64_t begin_ns = SteadyClock::instance().now_ns();
  const Result<sim::SimResult> result = sim::simulate(workload, machine.timing, server);
  if (!result.ok()) return report_bad_input("simulate", {result.status()});
  const double wall_s = static_cast<double>(SteadyClock::instance().now_ns() - begin_ns) * 1e-9;

  const bench::BenchmarkRecord record = make_record(settings, simulate, machine, options, workload, *result);
  if (!settings.record.empty()) {
    if (const Status written = bench::append_records(settings.record, {record}); !written.ok()) {
      std::fprintf(stderr, "sextant simulate: %s\n", written.message().c_str());
      return kExitFailed;
    }
  }
  int64_t num_preemptions = 0;
  for (const sim::SimOutcome& outcome : result->outcomes) num_preemptions += outcome.num_preemptions;
  const double device_share = result->end_s > 0 ? result->busy_s / result->end_s : 0;
  if (settings.json) {
    nlohmann::ordered_json json = {{"simulated_s", result->end_s},       {"wall_s", wall_s},
                                   {"num_steps", result->num_steps},     {"device_busy_share", device_share},
                                   {"max_running", result->max_running}, {"max_waiting", result->max_waiting},
                                   {"num_preemptions", num_preemptions}, {"record", bench::to_json(record)}};
    std::printf("%s\n", json.dump().c_str());
    return kExitDone;
  }
  std::printf("%s\n", machine.device.c_str());
  std::printf("%lld requests of %lld + %lld tokens, ", static_cast<long long>(settings.num_requests),
              static_cast<long long>(settings.prompt_tokens), static_cast<long long>(settings.output_tokens));
  if (settings.request_rate > 0) {
    std::printf("Poisson, %g per second\n", settings.request_rate);
  } else {
    std::printf("%lld at a time\n", static_cast<long long>(settings.concurrency));
  }
  std::printf("  %.2f s simulated in %.3f s: %.0f times as fast; %llu steps, device at work %.1f%% of the time\n",
              result->end_s, wall_s, wall_s > 0 ? result->end_s / wall_s : 0.0,
              static_cast<unsigned long long>(result->num_steps), device_share * 100);
  const auto& metrics = record.metrics;
  std::printf(
      "  %.2f requests/s, %.1f output tokens/s; at most %lld running and %lld waiting; %lld preemptions; errors "
      "%.1f%%\n",
      metrics.request_rps.value_or(0), metrics.output_tokens_per_s.value_or(0),
      static_cast<long long>(result->max_running), static_cast<long long>(result->max_waiting),
      static_cast<long long>(num_preemptions), metrics.error_rate.value_or(0) * 100);
  print_summary("TTFT", metrics.ttft_ms);
  print_summary("TPOT", metrics.tpot_ms);
  print_summary("E2E", metrics.e2e_ms);
  print_summary("queue", metrics.queue_ms);
  std::printf("  TPOT = (E2E - TTFT) / (n - 1), one sample per request\n");
  return kExitDone;
}

}  // namespace sextant::cli
