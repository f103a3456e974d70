#include "advisor/plan/replica_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>

#include "engine/base/check.h"

namespace sextant::advisor {
namespace {

constexpr size_t kRequests = 600;
constexpr uint64_t kSeed = 20260101;
constexpr double kNormal95 = 1.6448536269514722;
constexpr double kNormal90Interval = 1.6448536269514722;
constexpr double kNormal70 = 0.5244005127080407;
constexpr double kLeastShare = 0.002;  // of saturation: next to no load
constexpr uint64_t kMostSteps = 4'000'000;

// Acklam's rational approximation of the normal quantile, relative error below 1.2e-9.
double normal_quantile(double p) {
  static const double a[] = {-3.969683028665376e+01, 2.209460984245205e+02,  -2.759285104469687e+02,
                             1.383577518672690e+02,  -3.066479806614716e+01, 2.506628277459239e+00};
  static const double b[] = {-5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02,
                             6.680131188771972e+01, -1.328068155288572e+01};
  static const double c[] = {-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                             -2.549732539343734e+00, 4.374664141464968e+00,  2.938163982698783e+00};
  static const double d[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                             3.754408661907416e+00};
  if (p > 0.97575) return -normal_quantile(1 - p);
  if (p < 0.02425) {
    const double q = std::sqrt(-2 * std::log(p));
    return (((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) /
           ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1);
  }
  const double q = p - 0.5;
  const double r = q * q;
  return (((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q /
         (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1);
}

// Deviation of the logarithm of a lognormal of that mean and 95th percentile; at most 1.645, where their ratio is greatest.
double log_deviation(double mean, double p95) {
  const double ratio = std::log(std::max(p95 / mean, 1.0));
  const double inside = kNormal95 * kNormal95 - 2 * ratio;
  return inside <= 0 ? kNormal95 : kNormal95 - std::sqrt(inside);
}

// Nearest rank, as forecast.cpp and bench take it; orders `values`.
double rank(std::vector<double>& values, int percentile) {
  const auto count = static_cast<double>(values.size());
  const auto at = static_cast<std::ptrdiff_t>(std::clamp(std::ceil(percentile / 100.0 * count) - 1, 0.0, count - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<size_t>(at)];
}

Percentiles percentiles(std::vector<double> values) {
  Percentiles out;
  if (values.empty()) return out;
  for (const double v : values) out.mean += v / static_cast<double>(values.size());
  std::sort(values.begin(), values.end());
  const auto count = static_cast<double>(values.size());
  const auto at = [&](double p) {
    return values[static_cast<size_t>(std::clamp(std::ceil(p * count) - 1, 0.0, count - 1))];
  };
  out.p50 = at(0.5);
  out.p90 = at(0.9);
  out.p95 = at(0.95);
  out.p99 = at(0.99);
  return out;
}

// Whole requests of one run, in milliseconds; a run that gave up has infinite ones.
struct Latencies {
  std::vector<double> ttft, tpot, e2e, queue;
  double concurrency = 0;
  QueueRun run;
  std::vector<QueueRequest> requests;

  std::vector<double>& of(LatencyTarget::Metric metric) {
    return metric == LatencyTarget::Metric::kTtft ? ttft : metric == LatencyTarget::Metric::kTpot ? tpot : e2e;
  }
};

Latencies run_at(const ReplicaModel& model, const RequestSample& sample, double requests_per_s) {
  Latencies out;
  out.requests = sample.at(requests_per_s / model.stages);
  out.run = run_queue(model.fit.server, out.requests, 0, kMostSteps);
  const double outside = sample.shape().outside_ms;
  double sum = 0;
  for (size_t i = 0; i < out.requests.size(); ++i) {
    const QueueOutcome& o = out.run.outcomes[i];
    out.ttft.push_back(o.ttft_s * 1e3 + outside);
    out.e2e.push_back(o.e2e_s * 1e3 + outside);
    out.queue.push_back(o.queue_s * 1e3);
    if (out.requests[i].output_tokens > 1) out.tpot.push_back(o.tpot_s(out.requests[i].output_tokens) * 1e3);
    sum += o.e2e_s;
  }
  if (out.tpot.empty()) out.tpot.push_back(0);
  out.concurrency = requests_per_s / model.stages * sum / static_cast<double>(out.requests.size());
  return out;
}

double interpolated(const std::vector<double>& loads, const std::vector<Prediction>& predictions, double load) {
  const auto above = std::upper_bound(loads.begin(), loads.end(), load);
  if (above == loads.begin()) return predictions.front().log_half_width;
  if (above == loads.end()) return predictions.back().log_half_width;
  const auto i = static_cast<size_t>(above - loads.begin());
  const double t = std::log(load / loads[i - 1]) / std::log(loads[i] / loads[i - 1]);
  return std::lerp(predictions[i - 1].log_half_width, predictions[i].log_half_width, t);
}

double log_half_width(const ReplicaModel& model, LatencyTarget::Metric metric, double load, double ttft_share) {
  const double ttft = model.ttft_log_half_width(load);
  const double tpot = model.tpot_log_half_width(load);
  if (metric == LatencyTarget::Metric::kTtft) return ttft;
  if (metric == LatencyTarget::Metric::kTpot) return tpot;
  // The answer is TTFT and decoding: each is off by its own part of the whole.
  return std::hypot(ttft_share * ttft, (1 - ttft_share) * tpot);
}

}  // namespace

RequestSample::RequestSample(const RequestShape& shape) : shape_(shape) {
  std::mt19937_64 random(kSeed);
  std::gamma_distribution<double> gap(1 / (shape.arrival_cv * shape.arrival_cv), 1);
  std::vector<double> gaps(kRequests);
  double sum = 0;
  for (double& g : gaps) sum += g = gap(random);
  const auto shuffled = [&] {
    std::vector<size_t> order(kRequests);
    std::iota(order.begin(), order.end(), size_t{0});
    std::shuffle(order.begin(), order.end(), random);
    return order;
  };
  const auto length = [](double mean, double deviation, size_t stratum) {
    const double z = normal_quantile((static_cast<double>(stratum) + 0.5) / kRequests);
    return std::max(1.0, std::round(mean * std::exp(deviation * z - deviation * deviation / 2)));
  };
  const std::vector<size_t> prompts = shuffled();
  const std::vector<size_t> outputs = shuffled();
  const double prompt_deviation = log_deviation(shape.prompt_avg, shape.prompt_p95);
  const double output_deviation = log_deviation(shape.output_avg, shape.output_p95);
  const double most = std::max(2.0, std::min(shape.context_max, 1e9));
  double at = 0;
  for (size_t i = 0; i < kRequests; ++i) {
    at += gaps[i] * kRequests / sum;
    QueueRequest request;
    request.arrival_s = at;
    const double prompt = std::min(length(shape.prompt_avg, prompt_deviation, prompts[i]), most - 1);
    const double output = std::min(length(shape.output_avg, output_deviation, outputs[i]), most - prompt);
    request.prompt_tokens = static_cast<int32_t>(prompt);
    request.output_tokens = static_cast<int32_t>(output);
    prompt_mean_ += prompt / kRequests;
    output_mean_ += output / kRequests;
    requests_.push_back(request);
  }
}

std::vector<QueueRequest> RequestSample::at(double requests_per_s) const {
  std::vector<QueueRequest> out = requests_;
  for (QueueRequest& request : out) request.arrival_s /= requests_per_s;
  return out;
}

ReplicaModel replica_model(QueueServer limits, const StepShape& shape, const RequestSample& sample,
                           std::vector<double> loads, std::vector<Prediction> ttft, std::vector<Prediction> tpot,
                           int stages) {
  ReplicaModel out;
  out.stages = stages;
  order_by_load(ttft);
  order_by_load(tpot);
  std::vector<ClosedLoop> measured;
  for (size_t i = 0; i < loads.size(); ++i)
    measured.push_back({loads[i], sample.prompt_mean(), sample.output_mean(), ttft[i].mean / 1e3, tpot[i].mean / 1e3});
  // No request of the sample may be longer than the cache, in whole blocks.
  limits.kv_tokens = std::max(limits.kv_tokens, sample.shape().context_max + static_cast<double>(limits.block_size));
  limits.cost.sharpness = 8;
  out.fit = estimate_step_cost(limits, shape, measured);
  out.saturation_rps = stages * saturation_rate(out.fit.server, sample.prompt_mean(), sample.output_mean());
  out.loads = std::move(loads);
  out.ttft = std::move(ttft);
  out.tpot = std::move(tpot);
  return out;
}

double ReplicaModel::ttft_log_half_width(double load) const {
  return std::hypot(interpolated(loads, ttft, load), kNormal90Interval * fit.ttft_log_error);
}

double ReplicaModel::tpot_log_half_width(double load) const {
  return std::hypot(interpolated(loads, tpot, load), kNormal90Interval * fit.tpot_log_error);
}

Provenance ReplicaModel::provenance(double load) const {
  const auto above = static_cast<size_t>(std::upper_bound(loads.begin(), loads.end(), load) - loads.begin());
  const size_t i = above == 0 ? 0 : above - 1;
  return std::max(ttft[i].provenance, tpot[i].provenance);
}

Operation operate(const ReplicaModel& model, const RequestSample& sample, double requests_per_s) {
  Latencies l = run_at(model, sample, requests_per_s);
  Operation out;
  out.requests_per_s = requests_per_s;
  const double stages = model.stages;
  out.concurrency = l.concurrency * stages;
  // In flight as each arrival finds it, itself included.
  std::vector<double> ends, found;
  for (size_t i = 0; i < l.requests.size(); ++i) ends.push_back(l.requests[i].arrival_s + l.run.outcomes[i].e2e_s);
  std::sort(ends.begin(), ends.end());
  size_t ended = 0;
  for (size_t i = 0; i < l.requests.size(); ++i) {
    while (ended < ends.size() && ends[ended] <= l.requests[i].arrival_s) ++ended;
    found.push_back(static_cast<double>(i + 1 - ended));
  }
  out.concurrency_p99 = rank(found, 99) * stages;
  out.ttft_ms = percentiles(std::move(l.ttft));
  out.tpot_ms = percentiles(std::move(l.tpot));
  out.e2e_ms = percentiles(std::move(l.e2e));
  out.queue_ms = percentiles(std::move(l.queue));
  out.mean_batch = l.run.mean_running;
  out.kv_tokens = l.run.mean_kv_tokens * stages;
  out.busy_share = l.run.end_s > 0 ? l.run.busy_s / l.run.end_s : 0;
  return out;
}

double percentile_of(const Operation& operation, const LatencyTarget& target) {
  const Percentiles& p = target.metric == LatencyTarget::Metric::kTtft   ? operation.ttft_ms
                         : target.metric == LatencyTarget::Metric::kTpot ? operation.tpot_ms
                                                                         : operation.e2e_ms;
  return target.percentile == 99 ? p.p99 : target.percentile == 95 ? p.p95 : p.p90;
}

double log_half_width_of(const ReplicaModel& model, const Operation& operation, const LatencyTarget& target) {
  const double share = std::clamp(operation.ttft_ms.mean / std::max(operation.e2e_ms.mean, 1e-9), 0.0, 1.0);
  return log_half_width(model, target.metric, std::max(operation.concurrency / model.stages, 1.0), share);
}

double attainment(const ReplicaModel& model, const RequestSample& sample, double requests_per_s,
                  const std::vector<LatencyTarget>& targets) {
  const std::vector<QueueRequest> requests = sample.at(requests_per_s / model.stages);
  const QueueRun run = run_queue(model.fit.server, requests, 0, kMostSteps);
  const double outside = sample.shape().outside_ms;
  size_t met = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const QueueOutcome& o = run.outcomes[i];
    const bool all = std::all_of(targets.begin(), targets.end(), [&](const LatencyTarget& target) {
      const double ms = target.metric == LatencyTarget::Metric::kTtft   ? o.ttft_s * 1e3 + outside
                        : target.metric == LatencyTarget::Metric::kTpot ? o.tpot_s(requests[i].output_tokens) * 1e3
                                                                        : o.e2e_s * 1e3 + outside;
      return ms <= target.limit_ms;
    });
    met += all ? 1 : 0;
  }
  return static_cast<double>(met) / static_cast<double>(requests.size());
}

double probability_of(const ReplicaModel& model, const Operation& operation, const LatencyTarget& target) {
  Prediction p;
  p.mean = percentile_of(operation, target);
  p.log_half_width = log_half_width_of(model, operation, target);
  return probability_within(p, target.limit_ms);
}

LimitedRate limited_rate(const ReplicaModel& model, const RequestSample& sample,
                         const std::vector<LatencyTarget>& targets) {
  LimitedRate out;
  // ln(percentile, moved up until it is as sure as a pass must be / limit) of the worst target: up to 0 all hold.
  const auto excess = [&](double rate, std::optional<LatencyTarget>& worst) {
    Latencies l = run_at(model, sample, rate);
    const double ttft_mean = std::accumulate(l.ttft.begin(), l.ttft.end(), 0.0);
    const double e2e_mean = std::accumulate(l.e2e.begin(), l.e2e.end(), 0.0);
    double most = -1e9;
    for (const LatencyTarget& target : targets) {
      const double half = log_half_width(model, target.metric, std::max(l.concurrency, 1.0),
                                         std::clamp(ttft_mean / std::max(e2e_mean, 1e-9), 0.0, 1.0));
      const double value = std::max(rank(l.of(target.metric), target.percentile), 1e-9);
      const double over = std::min(std::log(value / target.limit_ms), 50.0) + kNormal70 * half / kNormal90Interval;
      if (over > most) {
        most = over;
        worst = target;
      }
    }
    return most;
  };
  std::optional<LatencyTarget> worst;
  const double highest = kMostLoad * model.saturation_rps;
  double low = kLeastShare * model.saturation_rps;
  double low_excess = excess(low, worst);
  if (low_excess > 0) {
    out.binding = worst;
    out.best_ms = worst->limit_ms * std::exp(low_excess);
    out.requests_per_s = low;
    return out;
  }
  out.feasible = true;
  double high = highest;
  double high_excess = excess(high, worst);
  if (high_excess <= 0) {
    out.requests_per_s = highest;
    return out;
  }
  out.binding = worst;
  // Illinois: false position that halves the weight of the end that stays; until the target is met within a hundredth.
  int stayed = 0;
  double slack = -low_excess;  // what is really left at `low`
  for (int step = 0; step < 12 && slack > 0.01 && high > low * 1.02; ++step) {
    // A trifle to the side that holds, where the search ends.
    const double share = std::clamp((-low_excess - 0.004) / (high_excess - low_excess), 0.05, 0.95);
    const double middle = low + share * (high - low);
    const double there = excess(middle, worst);
    if (there > 0) {
      out.binding = worst;
      high = middle;
      high_excess = there;
      if (stayed == 1) low_excess /= 2;
      stayed = 1;
    } else {
      low = middle;
      low_excess = there;
      slack = -there;
      if (stayed == -1) high_excess /= 2;
      stayed = -1;
    }
  }
  out.requests_per_s = low;
  return out;
}

}  // namespace sextant::advisor
