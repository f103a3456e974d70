#include "advisor/queueing/step_estimate.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "advisor/predict/dense_solver.h"
#include "engine/base/check.h"

namespace sextant::advisor {
namespace {

// Logarithms of overhead, per_sequence, stream_weights, per_token, fixed_ttft.
constexpr size_t kNumParameters = 5;
using Parameters = std::array<double, kNumParameters>;

// As in step_fit.cpp.
constexpr double kPriorWeight = 0.01;
constexpr double kTtftWeight = 0.5;
constexpr double kLowest = -27.6;  // 1e-12

QueueServer with(QueueServer server, const StepShape& shape, const Parameters& x) {
  server.cost.overhead = std::exp(x[0]);
  server.cost.per_sequence = std::exp(x[1]);
  server.cost.stream_weights = std::exp(x[2]);
  server.cost.per_token = std::exp(x[3]);
  server.fixed_ttft_s = std::exp(x[4]);
  server.cost.per_context_token = server.cost.stream_weights * shape.context_token_per_weights;
  server.cost.per_pair = server.cost.per_token * shape.pair_per_token;
  return server;
}

}  // namespace

StepShape step_shape_of(const ModelFacts& facts, double bytes_per_parameter) {
  const FactCounts counts = count(facts);
  StepShape shape;
  shape.context_token_per_weights =
      kv_elements_per_token(facts) * 2 / ((counts.dense() + counts.experts + counts.head) * bytes_per_parameter);
  // 2 layers width s^2 FLOPs of a causal prompt of s tokens are s^2 / 2 pairs.
  shape.pair_per_token = 4 * facts.num_hidden_layers * facts.full_attention_share * attention_width(facts) /
                         (2 * (counts.dense() + counts.active_experts));
  return shape;
}

ClosedLoopMeans closed_loop_means(const QueueServer& server, const ClosedLoop& load) {
  const double s = load.prompt_tokens;
  const double n = std::max(load.output_tokens, 1.0);
  // Those who find no place wait for the others' answers.
  const double places = std::max(1.0, std::min(static_cast<double>(server.max_num_seqs), server.kv_tokens / (s + n)));
  const double c = std::min(load.concurrency, places);
  const auto budget = static_cast<double>(server.max_num_batched_tokens);
  const double context = s + n / 2;
  StepLoad decode;
  decode.sequences = decode.tokens = c;
  decode.context_tokens = decode.pairs = c * context;
  const double plain = server.cost.seconds(decode);
  const double group = std::clamp(std::floor(budget / s), 1.0, c);
  const double chunks = std::max(1.0, std::ceil(s / std::max(1.0, budget - c)));
  StepLoad mixed;
  mixed.sequences = c;
  mixed.tokens = c - group + group * s / chunks;
  mixed.context_tokens = (c - group) * context + group * s * (chunks + 1) / (2 * chunks);
  mixed.pairs = (c - group) * context + group * s * (s + 1) / 2 / chunks;
  const double prompts = server.cost.seconds(mixed);
  const double met = std::min((std::ceil(c / group) - 1) * chunks, n - 1);
  ClosedLoopMeans out;
  out.tpot_s = n > 1 ? ((n - 1 - met) * plain + met * prompts) / (n - 1) : plain;
  // With two steps in flight a request that comes when another ends finds one already on its way.
  out.ttft_s = server.fixed_ttft_s + chunks * prompts + (server.max_steps_in_flight > 1 && c > group ? plain : 0);
  // Prompts that take the device longer than a round lasts wait for each other.
  const double round = out.ttft_s - server.fixed_ttft_s + (n - 1) * out.tpot_s;
  out.ttft_s += std::max(0.0, std::ceil(c / group) * chunks * prompts - round);
  if (load.concurrency > places)
    out.ttft_s += (load.concurrency / places - 1) * (chunks * prompts + (n - 1) * out.tpot_s);
  return out;
}

double saturation_rate(const QueueServer& server, double prompt_tokens, double output_tokens) {
  double best = 0;
  const double places = std::max(
      1.0, std::min(static_cast<double>(server.max_num_seqs), server.kv_tokens / (prompt_tokens + output_tokens)));
  for (double c = 1;; c = std::min(c * 2, places)) {
    const ClosedLoopMeans means = closed_loop_means(server, {c, prompt_tokens, output_tokens, 0, 0});
    const double cycle = means.ttft_s - server.fixed_ttft_s + (output_tokens - 1) * means.tpot_s;
    best = std::max(best, c / cycle);
    if (c >= places) return best;
  }
}

StepFit estimate_step_cost(const QueueServer& limits, const StepShape& shape, const std::vector<ClosedLoop>& loads) {
  CHECK(!loads.empty());
  const ClosedLoop& least = loads.front();
  const double base = least.tpot_mean_s / std::sqrt(std::max(1.0, least.concurrency));
  const Parameters first = {std::log(0.1 * base), std::log(0.01 * base), std::log(0.8 * base),
                            std::log(0.5 * least.ttft_mean_s / least.prompt_tokens / std::max(1.0, least.concurrency)),
                            std::log(0.1 * std::min(least.ttft_mean_s, 0.1))};
  const size_t count = 2 * loads.size() + kNumParameters;
  const auto residuals = [&](const Parameters& x, std::vector<double>& out) {
    const QueueServer server = with(limits, shape, x);
    out.resize(count);
    double cost = 0;
    for (size_t i = 0; i < loads.size(); ++i) {
      const ClosedLoopMeans means = closed_loop_means(server, loads[i]);
      out[2 * i] = std::log(means.tpot_s / loads[i].tpot_mean_s);
      out[2 * i + 1] = kTtftWeight * std::log(means.ttft_s / loads[i].ttft_mean_s);
    }
    for (size_t j = 0; j < kNumParameters; ++j) out[2 * loads.size() + j] = kPriorWeight * (x[j] - first[j]);
    for (const double r : out) cost += r * r;
    return cost;
  };
  Parameters x = first;
  std::vector<double> r, next;
  double cost = residuals(x, r);
  double damping = 1e-2;
  std::array<std::vector<double>, kNumParameters> jacobian;
  for (int round = 0; round < 30; ++round) {
    for (size_t j = 0; j < kNumParameters; ++j) {
      Parameters moved = x;
      moved[j] += 0.02;
      residuals(moved, jacobian[j]);
      for (size_t i = 0; i < count; ++i) jacobian[j][i] = (jacobian[j][i] - r[i]) / 0.02;
    }
    bool moved = false;
    double gain = 0;
    for (int attempt = 0; attempt < 6 && !moved; ++attempt) {
      SquareMatrix normal(kNumParameters);
      std::vector<double> right(kNumParameters, 0.0);
      for (size_t a = 0; a < kNumParameters; ++a) {
        for (size_t b = 0; b < kNumParameters; ++b)
          for (size_t i = 0; i < count; ++i) normal.row(a)[b] += jacobian[a][i] * jacobian[b][i];
        for (size_t i = 0; i < count; ++i) right[a] -= jacobian[a][i] * r[i];
        normal.row(a)[a] += damping * (normal.row(a)[a] + 1e-6);
      }
      const std::vector<double> step = solve_small(std::move(normal), std::move(right));
      Parameters candidate = x;
      for (size_t j = 0; j < kNumParameters; ++j)
        candidate[j] = std::clamp(x[j] + std::clamp(step[j], -1.5, 1.5), kLowest, 10.0);
      const double next_cost = residuals(candidate, next);
      if (next_cost < cost) {
        gain = cost - next_cost;
        x = candidate;
        std::swap(r, next);
        cost = next_cost;
        damping = std::max(1e-6, damping / 4);
        moved = true;
      } else {
        damping *= 6;
      }
    }
    if (!moved || gain < 1e-3 * cost) break;
  }
  StepFit out;
  out.server = with(limits, shape, x);
  std::vector<double> tpot, ttft;
  double tpot_squares = 0, ttft_squares = 0;
  for (size_t i = 0; i < loads.size(); ++i) {
    tpot.push_back(std::abs(std::expm1(r[2 * i])));
    ttft.push_back(std::abs(std::expm1(r[2 * i + 1] / kTtftWeight)));
    tpot_squares += r[2 * i] * r[2 * i];
    ttft_squares += r[2 * i + 1] * r[2 * i + 1] / (kTtftWeight * kTtftWeight);
  }
  const double freedom = std::max(1.0, static_cast<double>(loads.size()) - kNumParameters / 2.0);
  out.tpot_log_error = std::sqrt(tpot_squares / freedom);
  out.ttft_log_error = std::sqrt(ttft_squares / freedom);
  for (auto* errors : {&tpot, &ttft})
    std::nth_element(errors->begin(), errors->begin() + static_cast<std::ptrdiff_t>(errors->size() / 2), errors->end());
  out.tpot_error = tpot[tpot.size() / 2];
  out.ttft_error = ttft[ttft.size() / 2];
  return out;
}

}  // namespace sextant::advisor
