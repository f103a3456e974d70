#include "engine/sim/record_time.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <vector>

namespace sextant::sim {
namespace {

constexpr size_t kNumTerms = 4;
using Terms = std::array<double, kNumTerms>;

struct Equation {
  Terms terms;
  double seconds;
};

Terms decode_terms(const MeasuredPoint& p) {
  return {1, p.concurrency, p.concurrency * p.prompt_tokens / p.output_tokens,
          p.concurrency * (p.prompt_tokens + p.output_tokens / 2)};
}

// Minimises sum((terms . x / seconds - 1)^2) over x >= 0 by coordinate descent: convex, and four unknowns.
Terms solve(const std::vector<Equation>& equations) {
  // In columns of norm 1, else the descent crawls.
  Terms scale{};
  for (const Equation& equation : equations) {
    for (size_t j = 0; j < kNumTerms; ++j) scale[j] += std::pow(equation.terms[j] / equation.seconds, 2);
  }
  for (double& value : scale) value = value > 0 ? 1 / std::sqrt(value) : 0;
  std::array<Terms, kNumTerms> gram{};
  Terms right{};
  for (const Equation& equation : equations) {
    for (size_t i = 0; i < kNumTerms; ++i) {
      const double row = equation.terms[i] / equation.seconds * scale[i];
      right[i] += row;
      for (size_t j = 0; j < kNumTerms; ++j) gram[i][j] += row * equation.terms[j] / equation.seconds * scale[j];
    }
  }
  Terms x{};
  for (int round = 0; round < 200'000; ++round) {
    double change = 0;
    for (size_t i = 0; i < kNumTerms; ++i) {
      if (gram[i][i] == 0) continue;
      double rest = right[i];
      for (size_t j = 0; j < kNumTerms; ++j) rest -= j == i ? 0 : gram[i][j] * x[j];
      const double value = std::max(0.0, rest / gram[i][i]);
      change = std::max(change, std::abs(value - x[i]));
      x[i] = value;
    }
    if (change < 1e-14) break;
  }
  for (size_t i = 0; i < kNumTerms; ++i) x[i] *= scale[i];
  return x;
}

double dot(const Terms& a, const Terms& b) {
  double sum = 0;
  for (size_t i = 0; i < kNumTerms; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

Result<RecordTime> RecordTime::fit(std::span<const MeasuredPoint> points) {
  if (points.empty()) return invalid_argument("there are no measurements to take times from");
  std::vector<Equation> equations;
  for (const MeasuredPoint& p : points) {
    const bool sane = p.concurrency >= 1 && p.prompt_tokens >= 1 && p.output_tokens >= 1 && p.tpot_s > 0 &&
                      std::isfinite(p.concurrency + p.prompt_tokens + p.output_tokens + p.tpot_s) &&
                      (!p.ttft_s || (*p.ttft_s > 0 && std::isfinite(*p.ttft_s)));
    if (!sane) {
      return invalid_argument("a measurement at concurrency " + std::to_string(p.concurrency) + " with TPOT " +
                              std::to_string(p.tpot_s * 1e3) + " ms is none");
    }
    equations.push_back({decode_terms(p), p.tpot_s});
    if (p.ttft_s && p.concurrency < 1.5) equations.push_back({{1, 1, p.prompt_tokens, p.prompt_tokens}, *p.ttft_s});
  }
  const Terms x = solve(equations);
  RecordTime fitted;
  fitted.base_s_ = x[0];
  fitted.per_sequence_s_ = x[1];
  fitted.per_prompt_token_s_ = x[2];
  fitted.per_context_token_s_ = x[3];
  fitted.num_points_ = points.size();
  std::vector<double> errors;
  for (const MeasuredPoint& p : points) errors.push_back(std::abs(dot(x, decode_terms(p)) / p.tpot_s - 1));
  std::sort(errors.begin(), errors.end());
  fitted.median_error_ = errors[errors.size() / 2];
  fitted.worst_error_ = errors.back();
  return fitted;
}

double RecordTime::step_seconds(std::span<const ScheduledSequence> rows) const {
  double num_prompt = 0;
  double num_context = 0;
  for (const ScheduledSequence& row : rows) {
    const int32_t of_prompt = std::clamp(row.num_prompt_tokens - row.num_computed_tokens, 0, row.num_scheduled_tokens);
    num_prompt += of_prompt;
    num_context += row.num_computed_tokens + row.num_scheduled_tokens;
  }
  return base_s_ + per_sequence_s_ * static_cast<double>(rows.size()) + per_prompt_token_s_ * num_prompt +
         per_context_token_s_ * num_context;
}

std::string RecordTime::description() const {
  char text[256];
  std::snprintf(
      text, sizeof text,
      "fitted to %zu records (TPOT within %.1f%% in the median, %.1f%% at worst): %.4g ms + %.4g us per sequence + "
      "%.4g us per prompt token + %.4g ns per token of context",
      num_points_, median_error_ * 100, worst_error_ * 100, base_s_ * 1e3, per_sequence_s_ * 1e6,
      per_prompt_token_s_ * 1e6, per_context_token_s_ * 1e9);
  return text;
}

double cv_of_percentiles(double p50, double p90) {
  constexpr double kNormalP90 = 1.2815515655446004;
  if (!(p50 > 0 && p90 > p50)) return 0;
  const double sigma = std::log(p90 / p50) / kNormalP90;
  return std::sqrt(std::expm1(sigma * sigma));
}

}  // namespace sextant::sim
