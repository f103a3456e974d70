#include "advisor/predict/roofline.h"

#include <algorithm>
#include <cmath>

#include "advisor/predict/dense_solver.h"

namespace sextant::advisor {
namespace {

using Terms = std::array<double, Roofline::kMaxTerms>;
constexpr size_t kTpotTerms = 8;
constexpr size_t kTtftTerms = 10;
constexpr double kLowestLog = -8;
constexpr double kHighestLog = 8;

Terms tpot_terms(const ServingPoint& p, const PointPhysics& x) {
  return {x.stream_weights,   x.read_cache,        x.compute,
          x.transfer,         0.02 * x.layers,     x.num_gpus > 1 ? 0.01 * x.layers : 0,
          x.prefill_per_step, 0.01 * p.concurrency};
}

// Requests that find no room wait for whole generations of those that have it.
Terms ttft_terms(const ServingPoint& p, const PointPhysics& x, double tpot) {
  const double waiting = std::max(x.kv_ratio / 2 - 1, 0.0);
  return {x.prefill,
          x.prefill_transfer,
          tpot,
          0.3 * x.layers,
          x.prefill * std::sqrt(p.concurrency),
          x.prefill * p.concurrency,
          waiting * tpot * p.output_tokens,
          1.0,
          0.01 * p.prompt_tokens,
          0.1 * p.concurrency};
}

double sum(const Terms& coefficients, const Terms& terms) {
  double total = 0;
  for (size_t i = 0; i < terms.size(); ++i) total += coefficients[i] * terms[i];
  return std::max(total, 1e-6);
}

Terms fit_coefficients(const std::vector<Terms>& terms, const std::vector<double>& measured, size_t count) {
  constexpr double kScale = 0.2;
  std::vector<double> logs(count, 0.0);
  const auto coefficients = [&](const std::vector<double>& theta) {
    Terms c{};
    for (size_t i = 0; i < count; ++i) c[i] = std::exp(theta[i]);
    return c;
  };
  const auto cost = [&](const Terms& c) {
    double total = 0;
    for (size_t r = 0; r < terms.size(); ++r) {
      const double e = std::log(sum(c, terms[r]) / measured[r]) / kScale;
      total += 2 * (std::sqrt(1 + e * e) - 1);
    }
    return total;
  };
  double damping = 1e-3;
  double best = cost(coefficients(logs));
  for (int iteration = 0; iteration < 200; ++iteration) {
    const Terms c = coefficients(logs);
    SquareMatrix normal(count);
    std::vector<double> gradient(count, 0.0);
    for (size_t r = 0; r < terms.size(); ++r) {
      const double total = sum(c, terms[r]);
      const double e = std::log(total / measured[r]);
      const double weight = 1 / std::sqrt(1 + (e / kScale) * (e / kScale));
      Terms slope{};
      for (size_t i = 0; i < count; ++i) slope[i] = c[i] * terms[r][i] / total;
      for (size_t i = 0; i < count; ++i) {
        gradient[i] -= weight * slope[i] * e;
        for (size_t j = 0; j <= i; ++j) normal.row(i)[j] += weight * slope[i] * slope[j];
      }
    }
    bool improved = false;
    for (int attempt = 0; attempt < 12 && !improved; ++attempt) {
      SquareMatrix damped = normal;
      for (size_t i = 0; i < count; ++i) damped.row(i)[i] += damping * damped.row(i)[i] + 1e-9;
      const std::vector<double> step = solve_small(damped, gradient);
      std::vector<double> next = logs;
      for (size_t i = 0; i < count; ++i)
        next[i] = std::clamp(logs[i] + std::clamp(step[i], -2.0, 2.0), kLowestLog, kHighestLog);
      const double candidate = cost(coefficients(next));
      if (candidate < best) {
        improved = best - candidate > 1e-7 * best;
        best = candidate;
        logs = next;
        damping = std::max(damping / 5, 1e-9);
        if (!improved) return coefficients(logs);
      } else {
        damping *= 5;
      }
    }
    if (!improved) break;
  }
  return coefficients(logs);
}

}  // namespace

const char* metric_name(Metric metric) { return metric == Metric::kTpot ? "tpot" : "ttft"; }

void Roofline::fit(Metric metric, const std::vector<ServingPoint>& points, const std::vector<PointPhysics>& physics) {
  std::vector<Terms> terms;
  std::vector<double> values;
  for (size_t i = 0; i < points.size(); ++i) {
    terms.push_back(metric == Metric::kTpot
                        ? tpot_terms(points[i], physics[i])
                        : ttft_terms(points[i], physics[i], milliseconds(Metric::kTpot, points[i], physics[i])));
    values.push_back(measured(points[i], metric));
  }
  (metric == Metric::kTpot ? tpot : ttft) =
      fit_coefficients(terms, values, metric == Metric::kTpot ? kTpotTerms : kTtftTerms);
}

double Roofline::milliseconds(Metric metric, const ServingPoint& point, const PointPhysics& physics) const {
  const double step = sum(tpot, tpot_terms(point, physics));
  return metric == Metric::kTpot ? step : sum(ttft, ttft_terms(point, physics, step));
}

}  // namespace sextant::advisor
