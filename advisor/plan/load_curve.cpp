#include "advisor/plan/load_curve.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace sextant::advisor {
namespace {

constexpr size_t kDraws = 384;
constexpr double kNormal95 = 1.6448536269514722;
constexpr double kNormal90Interval = 1.6448536269514722;
constexpr double kNormal70 = 0.5244005127080407;
constexpr double kLeastLoad = 0.02;
// Deviation of a load averaged over one answer time, relative to that of the load: correlation exp(-t / answer time).
const double kLifetime = std::sqrt(2 * std::exp(-1.0));

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

struct Draw {
  double prompt, output, load, wait;  // three normal, one exponential of mean 1
};

// Roberts' R4 sequence: the powers of the root of x^5 = x + 1.
const std::array<Draw, kDraws>& draws() {
  static const std::array<Draw, kDraws> all = [] {
    const double root = 1.1673039782614187;
    std::array<Draw, kDraws> out{};
    for (size_t i = 0; i < kDraws; ++i) {
      std::array<double, 4> u{};
      double step = 1;
      for (double& x : u) {
        step /= root;
        x = std::fmod(0.5 + step * static_cast<double>(i + 1), 1.0);
        x = std::clamp(x, 1e-6, 1 - 1e-6);
      }
      out[i] = {normal_quantile(u[0]), normal_quantile(u[1]), normal_quantile(u[2]), -std::log(1 - u[3])};
    }
    return out;
  }();
  return all;
}

// Deviation of the logarithm of a lognormal of that mean and 95th percentile; at most 1.645, where their ratio is greatest.
double log_deviation(double mean, double p95) {
  const double ratio = std::log(std::max(p95 / mean, 1.0));
  const double inside = kNormal95 * kNormal95 - 2 * ratio;
  return inside <= 0 ? kNormal95 : kNormal95 - std::sqrt(inside);
}

Percentiles percentiles(std::array<double, kDraws>& values) {
  Percentiles out;
  for (const double v : values) out.mean += v / kDraws;
  std::sort(values.begin(), values.end());
  const auto at = [&](double p) {
    const double x = p * (kDraws - 1);
    const size_t i = static_cast<size_t>(x);
    return values[i] + (x - static_cast<double>(i)) * (values[std::min(i + 1, kDraws - 1)] - values[i]);
  };
  out.p50 = at(0.5);
  out.p90 = at(0.9);
  out.p95 = at(0.95);
  out.p99 = at(0.99);
  return out;
}

double log_half_width_of(const LoadCurve& curve, const Operation& operation, LatencyTarget::Metric metric) {
  const double ttft = curve.ttft_log_half_width(operation.concurrency);
  const double tpot = curve.tpot_log_half_width(operation.concurrency);
  if (metric == LatencyTarget::Metric::kTtft) return ttft;
  if (metric == LatencyTarget::Metric::kTpot) return tpot;
  // The answer is TTFT and decoding: each is off by its own part of the whole.
  const double share = std::clamp(operation.ttft_ms.mean / std::max(operation.e2e_ms.mean, 1e-9), 0.0, 1.0);
  return std::hypot(share * ttft, (1 - share) * tpot);
}

// The percentile, moved up until it is as sure as a pass must be.
double sure_percentile(const LoadCurve& curve, const Operation& operation, const LatencyTarget& target) {
  const double deviation = log_half_width_of(curve, operation, target.metric) / kNormal90Interval;
  return percentile_of(operation, target) * std::exp(kNormal70 * deviation);
}

}  // namespace

std::pair<size_t, double> LoadCurve::segment(double load) const {
  const double at = std::log(std::max(load, 1.0));
  if (log_load_.size() < 2 || at >= log_load_.back()) return {log_load_.size() - 1, 0.0};
  const size_t i =
      static_cast<size_t>(std::upper_bound(log_load_.begin(), log_load_.end(), at) - log_load_.begin()) - 1;
  return {i, (at - log_load_[i]) / (log_load_[i + 1] - log_load_[i])};
}

void LoadCurve::finish() {
  order_by_load(ttft);
  order_by_load(tpot);
  log_load_.clear();
  log_ttft_.clear();
  log_tpot_.clear();
  for (size_t i = 0; i < loads.size(); ++i) {
    log_load_.push_back(std::log(loads[i]));
    log_ttft_.push_back(std::log(ttft[i].mean));
    log_tpot_.push_back(std::log(tpot[i].mean));
  }
}

LoadCurve::Means LoadCurve::at(double load) const {
  const auto [i, t] = segment(load);
  const size_t next = std::min(i + 1, loads.size() - 1);
  return {std::exp(log_ttft_[i] + t * (log_ttft_[next] - log_ttft_[i])),
          std::exp(log_tpot_[i] + t * (log_tpot_[next] - log_tpot_[i]))};
}

double LoadCurve::ttft_log_half_width(double load) const {
  const auto [i, t] = segment(load);
  return std::lerp(ttft[i].log_half_width, ttft[std::min(i + 1, loads.size() - 1)].log_half_width, t);
}

double LoadCurve::tpot_log_half_width(double load) const {
  const auto [i, t] = segment(load);
  return std::lerp(tpot[i].log_half_width, tpot[std::min(i + 1, loads.size() - 1)].log_half_width, t);
}

Provenance LoadCurve::provenance(double load) const {
  const size_t i = segment(load).first;
  return std::max(ttft[i].provenance, tpot[i].provenance);
}

Operation operate(const LoadCurve& curve, const RequestShape& shape, double concurrency) {
  const double c = std::max(concurrency, 1e-6);
  const double room = curve.max_sequences;
  const LoadCurve::Means alone = curve.at(1);
  const LoadCurve::Means mean = curve.at(c);
  const double answer_ms = mean.ttft_ms + (shape.output_avg - 1) * mean.tpot_ms;
  const LoadCurve::Means full = curve.at(room);
  const double full_rate = room / (full.ttft_ms + (shape.output_avg - 1) * full.tpot_ms);  // per ms
  const double peakedness = (1 + shape.arrival_cv * shape.arrival_cv) / 2;
  const double deviation = std::sqrt(peakedness * c);
  // Beside this one: those of its own burst too.
  const double beside = c + std::max(peakedness - 1, 0.0) * std::min(c, 1.0);
  const double prompt_sigma = log_deviation(shape.prompt_avg, shape.prompt_p95);
  const double output_sigma = log_deviation(shape.output_avg, shape.output_p95);
  std::array<double, kDraws> ttft, tpot, e2e;
  for (size_t i = 0; i < kDraws; ++i) {
    const Draw& d = draws()[i];
    const double prompt = std::exp(prompt_sigma * d.prompt - prompt_sigma * prompt_sigma / 2);  // of the average
    const double output =
        std::max(1.0, shape.output_avg * std::exp(output_sigma * d.output - output_sigma * output_sigma / 2));
    const double found = std::max(beside + deviation * d.load, 1.0);
    const double over = std::clamp(std::min(found, room), 1.0, room);
    const LoadCurve::Means arrival = curve.at(over);
    const double waiting =
        std::max(arrival.ttft_ms - alone.ttft_ms, 0.0) * d.wait + std::max(found - room, 0.0) / full_rate;
    ttft[i] = alone.ttft_ms * prompt + waiting + shape.outside_ms;
    tpot[i] = curve.at(std::clamp(c + kLifetime * deviation * d.load, 1.0, room)).tpot_ms;
    e2e[i] = ttft[i] + (output - 1) * tpot[i];
  }
  Operation out;
  out.concurrency = c;
  out.requests_per_s = c / answer_ms * 1000;
  out.concurrency_p99 = std::min(room, std::ceil(beside + 2.326 * deviation));
  out.ttft_ms = percentiles(ttft);
  out.tpot_ms = percentiles(tpot);
  out.e2e_ms = percentiles(e2e);
  return out;
}

double percentile_of(const Operation& operation, const LatencyTarget& target) {
  const Percentiles& p = target.metric == LatencyTarget::Metric::kTtft   ? operation.ttft_ms
                         : target.metric == LatencyTarget::Metric::kTpot ? operation.tpot_ms
                                                                         : operation.e2e_ms;
  return target.percentile == 99 ? p.p99 : target.percentile == 95 ? p.p95 : p.p90;
}

double probability_of(const LoadCurve& curve, const Operation& operation, const LatencyTarget& target) {
  Prediction p;
  p.mean = percentile_of(operation, target);
  p.log_half_width = log_half_width_of(curve, operation, target.metric);
  return probability_within(p, target.limit_ms);
}

LimitedRate limited_rate(const LoadCurve& curve, const RequestShape& shape, const std::vector<LatencyTarget>& targets) {
  LimitedRate out;
  const auto broken = [&](const Operation& operation) {
    std::optional<LatencyTarget> worst;
    double most = 1;
    for (const LatencyTarget& target : targets) {
      const double excess = sure_percentile(curve, operation, target) / target.limit_ms;
      if (excess > most) {
        most = excess;
        worst = target;
      }
    }
    return worst;
  };
  out.operation = operate(curve, shape, kLeastLoad);
  out.binding = broken(out.operation);
  if (out.binding) {
    out.best_ms = sure_percentile(curve, out.operation, *out.binding);
    return out;
  }
  out.feasible = true;
  double low = std::log(kLeastLoad);
  double high = std::log(std::max(curve.max_sequences, 1.0));
  const Operation full = operate(curve, shape, curve.max_sequences);
  out.binding = broken(full);
  if (!out.binding) {
    out.operation = full;
    return out;
  }
  for (int step = 0; step < 11; ++step) {
    const double middle = (low + high) / 2;
    const Operation there = operate(curve, shape, std::exp(middle));
    if (const auto worst = broken(there)) {
      high = middle;
      out.binding = worst;
    } else {
      low = middle;
      out.operation = there;
    }
  }
  return out;
}

}  // namespace sextant::advisor
