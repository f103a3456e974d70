#include "advisor/queueing/forecast.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <utility>

namespace sextant::advisor {
namespace {

constexpr double kMaxTokens = 1e8;

// Nearest rank; `sorted` ascends.
double rank(const std::vector<double>& sorted, double share) {
  const auto count = static_cast<double>(sorted.size());
  return sorted[static_cast<size_t>(std::clamp(std::ceil(share * count) - 1, 0.0, count - 1))];
}

// `runs` are sorted each; none is empty.
LatencyShare share_of(const std::vector<std::vector<double>>& runs,
                      const std::function<double(const std::vector<double>&)>& figure) {
  std::vector<double> values;
  double mean = 0;
  for (const std::vector<double>& run : runs) {
    values.push_back(figure(run));
    mean += std::log(std::max(values.back(), 1e-9)) / static_cast<double>(runs.size());
  }
  std::sort(values.begin(), values.end());
  double squares = 0;
  for (const double value : values) squares += std::pow(std::log(std::max(value, 1e-9)) - mean, 2);
  const double deviation = runs.size() > 1 ? std::sqrt(squares / static_cast<double>(runs.size() - 1)) : 0;
  const size_t half = values.size() / 2;
  LatencyShare share;
  share.value = values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  share.low = share.value * std::exp(-1.645 * deviation);
  share.high = share.value * std::exp(1.645 * deviation);
  return share;
}

LatencyFigures figures_of(std::vector<std::vector<double>> runs) {
  std::erase_if(runs, [](const std::vector<double>& run) { return run.empty(); });
  if (runs.empty()) return {};
  for (std::vector<double>& run : runs) std::sort(run.begin(), run.end());
  const auto at = [&](double share) {
    return share_of(runs, [share](const std::vector<double>& values) { return rank(values, share); });
  };
  const auto mean = [](const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
  };
  return {share_of(runs, mean), at(0.5), at(0.9), at(0.95), at(0.99)};
}

Status check(const Traffic& traffic, const ForecastOptions& options, const QueueServer& server) {
  const auto in = [](double value, double low, double high, const char* field) {
    if (value >= low && value <= high) return ok_status();
    char text[120];
    std::snprintf(text, sizeof text, "%s must be from %g to %g, not %g", field, low, high, value);
    return invalid_argument(text, field);
  };
  RETURN_IF_ERROR(in(traffic.request_rate, 0, 1e6, "request_rate"));
  if (traffic.request_rate == 0) {
    RETURN_IF_ERROR(in(static_cast<double>(traffic.concurrency), 1, 1e6, "concurrency"));
  } else {
    RETURN_IF_ERROR(in(traffic.request_rate, 1e-6, 1e6, "request_rate"));
  }
  RETURN_IF_ERROR(in(traffic.arrival_cv, 0, 20, "arrival_cv"));
  for (const auto& [lengths, name] :
       {std::pair(&traffic.prompt, "prompt_tokens"), {&traffic.output, "output_tokens"}}) {
    RETURN_IF_ERROR(in(lengths->mean, 1, kMaxTokens, name));
    RETURN_IF_ERROR(in(lengths->cv, 0, 10, name));
    RETURN_IF_ERROR(in(lengths->max, 0, kMaxTokens, name));
  }
  RETURN_IF_ERROR(in(static_cast<double>(options.num_requests), 1, 1e6, "num_requests"));
  RETURN_IF_ERROR(in(static_cast<double>(options.num_runs), 1, 1000, "num_runs"));
  RETURN_IF_ERROR(in(static_cast<double>(server.max_num_seqs), 1, 1e6, "max_num_seqs"));
  RETURN_IF_ERROR(in(static_cast<double>(server.max_num_batched_tokens), static_cast<double>(server.max_num_seqs), 1e8,
                     "max_num_batched_tokens"));
  return ok_status();
}

int32_t draw_length(const Lengths& lengths, std::mt19937_64& random) {
  double value = lengths.mean;
  if (lengths.cv > 0) {
    const double variance = std::log1p(lengths.cv * lengths.cv);
    std::normal_distribution<double> normal(std::log(lengths.mean) - variance / 2, std::sqrt(variance));
    value = std::exp(normal(random));
  }
  if (lengths.max > 0) value = std::min(value, lengths.max);
  return static_cast<int32_t>(std::clamp(std::round(value), 1.0, kMaxTokens));
}

}  // namespace

std::vector<QueueRequest> draw_requests(const Traffic& traffic, int64_t num_requests, uint64_t seed) {
  // Arrivals and lengths come from streams of their own: a change of one leaves the other as it is.
  std::mt19937_64 gaps(seed * 2 + 1);
  std::mt19937_64 lengths(seed * 2 + 2);
  const double cv = traffic.arrival_cv;
  std::gamma_distribution<double> gap(cv > 0 ? 1 / (cv * cv) : 1, cv > 0 ? cv * cv : 1);
  std::vector<QueueRequest> requests(static_cast<size_t>(num_requests));
  double now_s = 0;
  for (QueueRequest& request : requests) {
    request.prompt_tokens = draw_length(traffic.prompt, lengths);
    request.output_tokens = draw_length(traffic.output, lengths);
    if (traffic.request_rate == 0) continue;
    request.arrival_s = now_s;
    now_s += (cv > 0 ? gap(gaps) : 1) / traffic.request_rate;
  }
  return requests;
}

Result<Forecast> forecast(const QueueServer& server, const Traffic& traffic, const ForecastOptions& options) {
  RETURN_IF_ERROR(check(traffic, options, server));
  Forecast out;
  std::vector<std::vector<double>> ttft, tpot, e2e, queue;
  double finished = 0, tokens = 0, span_s = 0, busy_s = 0, preemptions = 0;
  double early_wait = 0, late_wait = 0;
  uint64_t steps = 0;
  for (int64_t number = 0; number < options.num_runs; ++number) {
    const uint64_t seed = options.seed * 1000 + static_cast<uint64_t>(number);
    const std::vector<QueueRequest> requests = draw_requests(traffic, options.num_requests, seed);
    for (const QueueRequest& request : requests) {
      const double need = static_cast<double>(request.prompt_tokens) + static_cast<double>(request.output_tokens) +
                          static_cast<double>(server.block_size);
      if (need > server.kv_tokens) {
        return invalid_argument("a request of " + std::to_string(request.prompt_tokens) + " + " +
                                    std::to_string(request.output_tokens) + " tokens does not fit into a cache of " +
                                    std::to_string(static_cast<int64_t>(server.kv_tokens)),
                                "prompt_tokens");
      }
    }
    const QueueRun run =
        run_queue(server, requests, traffic.request_rate > 0 ? 0 : traffic.concurrency, options.max_steps - steps);
    steps += run.steps;
    if (run.gave_up) {
      return Status(StatusCode::kTooLarge, "the forecast needs more than " + std::to_string(options.max_steps) +
                                               " steps; ask for fewer requests or runs");
    }
    for (std::vector<std::vector<double>>* each : {&ttft, &tpot, &e2e, &queue}) each->emplace_back();
    const size_t half = requests.size() / 2;
    for (size_t i = 0; i < requests.size(); ++i) {
      const QueueOutcome& outcome = run.outcomes[i];
      ttft.back().push_back(outcome.ttft_s);
      e2e.back().push_back(outcome.e2e_s);
      queue.back().push_back(outcome.queue_s);
      if (requests[i].output_tokens > 1) tpot.back().push_back(outcome.tpot_s(requests[i].output_tokens));
      tokens += requests[i].output_tokens;
      finished += 1;
    }
    for (size_t i = half / 2; i < half; ++i) early_wait += run.outcomes[i].queue_s;
    for (size_t i = half + half / 2; i < requests.size(); ++i) late_wait += run.outcomes[i].queue_s;
    span_s += run.end_s;
    busy_s += run.busy_s;
    preemptions += static_cast<double>(run.preemptions);
    out.mean_running += run.mean_running / static_cast<double>(options.num_runs);
    out.mean_kv_tokens += run.mean_kv_tokens / static_cast<double>(options.num_runs);
  }
  out.ttft = figures_of(std::move(ttft));
  out.tpot = figures_of(std::move(tpot));
  out.e2e = figures_of(std::move(e2e));
  out.queue = figures_of(std::move(queue));
  if (span_s > 0) {
    out.request_rps = finished / span_s;
    out.output_tokens_per_s = tokens / span_s;
    out.busy_share = busy_s / span_s;
  }
  out.preemptions_per_request = preemptions / std::max(1.0, finished);
  // Requests that are served in time end with the last arrival; a growing queue shows in a rate below the asked one.
  out.saturated = traffic.request_rate > 0 && out.request_rps < 0.95 * traffic.request_rate &&
                  late_wait > 1.5 * early_wait && out.busy_share > 0.9;
  return out;
}

}  // namespace sextant::advisor
