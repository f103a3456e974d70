#include "advisor/queueing/step_fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "advisor/predict/dense_solver.h"

namespace sextant::advisor {
namespace {

// Logarithms of overhead, per_sequence, stream_weights, per_token, fixed_ttft and, without a shape, per_context_token.
constexpr size_t kMaxParameters = 6;
using Parameters = std::vector<double>;

constexpr double kTinySeconds = 1e-9;
constexpr int64_t kMostRequests = 3000;  // of one load in the fit

// How much a coefficient is held to its first guess, in standard deviations of the data's logarithms: enough to choose among
// coefficients that the data cannot tell apart, not enough to hold against it.
constexpr double kPriorWeight = 0.01;
constexpr double kTtftWeight = 0.5;  // of TTFT's residuals: it varies more from run to run

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}
double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

class Fit {
 public:
  Fit(const QueueServer& server, const StepShape& shape, const std::vector<MeasuredLoad>& loads)
      : server_(server), shape_(shape), loads_(loads), has_shape_(shape.context_token_per_weights > 0) {
    for (const MeasuredLoad& load : loads) {
      const double size = load.traffic.request_rate > 0 ? 16 : static_cast<double>(load.traffic.concurrency);
      int64_t count = load.num_requests;
      // A steady state takes some rounds; what more than that was measured changes little.
      if (count == 0 || count > kMostRequests) count = static_cast<int64_t>(std::clamp(8 * size, 24.0, 1000.0));
      counts_.push_back(std::max(count, load.traffic.request_rate > 0 ? 1 : 2 * load.traffic.concurrency));
      requests_.push_back(draw_requests(load.traffic, counts_.back(), 17));
    }
  }

  // In whole blocks of the cache.
  double longest_request() const {
    double longest = 0;
    for (const std::vector<QueueRequest>& requests : requests_) {
      for (const QueueRequest& request : requests) {
        longest = std::max(longest, static_cast<double>(request.prompt_tokens) +
                                        static_cast<double>(request.output_tokens + server_.block_size));
      }
    }
    return longest;
  }

  QueueServer server_of(const Parameters& x, double sharpness) const {
    QueueServer server = server_;
    server.cost.overhead = std::exp(x[0]);
    server.cost.per_sequence = std::exp(x[1]);
    server.cost.stream_weights = std::exp(x[2]);
    server.cost.per_token = std::exp(x[3]);
    server.fixed_ttft_s = std::exp(x[4]);
    server.cost.per_context_token =
        has_shape_ ? server.cost.stream_weights * shape_.context_token_per_weights : std::exp(x[5]);
    server.cost.per_pair = server.cost.per_token * shape_.pair_per_token;
    server.cost.sharpness = sharpness;
    return server;
  }

  // Of one load.
  struct Figures {
    double ttft_mean = 0, tpot_mean = 0, ttft_p50 = 0, tpot_p50 = 0;
  };
  std::vector<Figures> figures(const Parameters& x, double sharpness) const {
    const QueueServer server = server_of(x, sharpness);
    std::vector<Figures> out;
    for (size_t i = 0; i < loads_.size(); ++i) {
      const Traffic& traffic = loads_[i].traffic;
      const int64_t concurrency = traffic.request_rate > 0 ? 0 : traffic.concurrency;
      const QueueRun run = run_queue(server, requests_[i], concurrency);
      // All clients of a closed loop begin at once, and leave one by one: neither is the steady state.
      const bool whole = loads_[i].num_requests == counts_[i];
      const auto skipped = static_cast<size_t>(whole ? 0 : std::min(concurrency, counts_[i] / 3));
      std::vector<double> ttft, tpot;
      for (size_t r = skipped; r < requests_[i].size() - skipped; ++r) {
        ttft.push_back(run.outcomes[r].ttft_s);
        if (requests_[i][r].output_tokens > 1) tpot.push_back(run.outcomes[r].tpot_s(requests_[i][r].output_tokens));
      }
      out.push_back({mean(ttft), mean(tpot), median(ttft), median(tpot)});
    }
    return out;
  }

  // One per measured figure, and the prior's.
  std::vector<double> residuals(const Parameters& x, double sharpness) const {
    std::vector<double> out;
    const std::vector<Figures> fitted = figures(x, sharpness);
    for (size_t i = 0; i < loads_.size(); ++i) {
      const MeasuredLoad& load = loads_[i];
      const auto add = [&](double value, const std::optional<double>& measured, double weight) {
        if (measured) out.push_back(std::sqrt(load.weight) * weight * ratio(value, *measured));
      };
      add(fitted[i].tpot_mean, load.tpot_mean_s, 1);
      add(fitted[i].tpot_p50, load.tpot_p50_s, 1);
      add(fitted[i].ttft_mean, load.ttft_mean_s, kTtftWeight);
      add(fitted[i].ttft_p50, load.ttft_p50_s, kTtftWeight);
    }
    for (size_t j = 0; j < x.size(); ++j) out.push_back(kPriorWeight * (x[j] - first_[j]));
    return out;
  }

  void set_first_guess() {
    double tpot = 0, tpot_load = 1e300, ttft = 0, prompt = 1, ttft_load = 1e300;
    for (const MeasuredLoad& load : loads_) {
      const double size = load.traffic.request_rate > 0 ? 16 : static_cast<double>(load.traffic.concurrency);
      if (load.tpot_mean_s && size < tpot_load) tpot = *load.tpot_mean_s, tpot_load = size;
      if (load.ttft_mean_s && size < ttft_load) {
        ttft = *load.ttft_mean_s, ttft_load = size, prompt = load.traffic.prompt.mean;
      }
    }
    if (ttft == 0) ttft = 4 * tpot;
    const double base = tpot / std::sqrt(std::max(1.0, tpot_load));
    first_ = {std::log(0.1 * base), std::log(0.01 * base), std::log(0.8 * base),
              std::log(0.5 * ttft / prompt / std::max(1.0, ttft_load)), std::log(0.1 * std::min(ttft, 0.1))};
    if (!has_shape_) first_.push_back(std::log(1e-5 * base));
  }

  struct Solution {
    Parameters x;
    double sharpness = 1;
    double cost = 0;
  };
  Solution solve(double sharpness) const {
    Parameters x = first_;
    std::vector<double> r = residuals(x, sharpness);
    double cost = squares(r);
    double damping = 1e-2;
    for (int round = 0; round < 40; ++round) {
      const size_t n = x.size();
      std::vector<std::vector<double>> jacobian;
      for (size_t j = 0; j < n; ++j) {
        Parameters moved = x;
        moved[j] += 0.02;
        std::vector<double> column = residuals(moved, sharpness);
        for (size_t i = 0; i < r.size(); ++i) column[i] = (column[i] - r[i]) / 0.02;
        jacobian.push_back(std::move(column));
      }
      bool moved = false;
      double gain = 0;
      for (int attempt = 0; attempt < 6 && !moved; ++attempt) {
        SquareMatrix normal(n);
        std::vector<double> right(n, 0.0);
        for (size_t a = 0; a < n; ++a) {
          for (size_t b = 0; b < n; ++b) {
            for (size_t i = 0; i < r.size(); ++i) normal.row(a)[b] += jacobian[a][i] * jacobian[b][i];
          }
          for (size_t i = 0; i < r.size(); ++i) right[a] -= jacobian[a][i] * r[i];
          normal.row(a)[a] += damping * (normal.row(a)[a] + 1e-6);
        }
        Parameters candidate = solve_small(std::move(normal), std::move(right));
        for (size_t j = 0; j < n; ++j) candidate[j] = std::max(x[j] + std::clamp(candidate[j], -1.5, 1.5), lowest());
        std::vector<double> next = residuals(candidate, sharpness);
        const double next_cost = squares(next);
        if (next_cost < cost) {
          gain = cost - next_cost;
          x = std::move(candidate);
          r = std::move(next);
          cost = next_cost;
          damping = std::max(1e-6, damping / 4);
          moved = true;
        } else {
          damping *= 6;
        }
      }
      if (!moved || gain < 1e-5 * cost) break;
    }
    return {x, sharpness, cost};
  }

 private:
  static double ratio(double fitted, double measured) { return std::log(std::max(fitted, kTinySeconds) / measured); }
  static double lowest() { return std::log(1e-12); }
  static double squares(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value * value;
    return sum;
  }

  const QueueServer& server_;
  const StepShape& shape_;
  const std::vector<MeasuredLoad>& loads_;
  const bool has_shape_;
  std::vector<int64_t> counts_;
  std::vector<std::vector<QueueRequest>> requests_;
  Parameters first_;
};

// sqrt(sum of squares / degrees of freedom).
double spread(const std::vector<double>& logs, double parameters) {
  double sum = 0;
  for (const double value : logs) sum += value * value;
  return std::sqrt(sum / std::max(1.0, static_cast<double>(logs.size()) - parameters));
}

}  // namespace

Result<StepFit> fit_step_cost(const QueueServer& server, const StepShape& shape,
                              const std::vector<MeasuredLoad>& loads) {
  const auto sane = [](const std::optional<double>& value) { return !value || (*value > 0 && *value < 1e6); };
  bool has_tpot = false;
  for (size_t i = 0; i < loads.size(); ++i) {
    const Traffic& t = loads[i].traffic;
    has_tpot = has_tpot || loads[i].tpot_mean_s.has_value();
    const auto is_length = [](const Lengths& lengths) { return lengths.mean >= 1 && lengths.mean <= 1e8; };
    const bool is_load = t.request_rate > 0 ? std::isfinite(t.request_rate) : t.concurrency >= 1;
    if (!sane(loads[i].ttft_mean_s) || !sane(loads[i].tpot_mean_s) || !sane(loads[i].ttft_p50_s) ||
        !sane(loads[i].tpot_p50_s) || loads[i].num_requests < 0 || !(loads[i].weight > 0) || !is_length(t.prompt) ||
        !is_length(t.output) || !is_load) {
      return invalid_argument("load " + std::to_string(i + 1) + " of " + std::to_string(loads.size()) +
                              " is no measurement: latencies, lengths and loads must be above 0");
    }
  }
  if (!has_tpot) return invalid_argument("a step's time needs at least one load with a measured TPOT");
  Fit fit(server, shape, loads);
  if (const double longest = fit.longest_request(); longest > server.kv_tokens) {
    return invalid_argument("a request of " + std::to_string(static_cast<int64_t>(longest)) +
                            " tokens was measured, and the cache is said to hold " +
                            std::to_string(static_cast<int64_t>(server.kv_tokens)));
  }
  fit.set_first_guess();
  // Loads of a fixed concurrency and length go in lockstep, prompts first: they say little of steps that hold both.
  const double likely = server.cost.sharpness > 1 ? 8 : 1;
  Fit::Solution best = fit.solve(likely);
  // Below a percent per figure neither is better than the other.
  const double noise = 4e-4 * static_cast<double>(loads.size());
  if (Fit::Solution other = fit.solve(likely > 1 ? 1 : 8); other.cost + noise < 0.25 * (best.cost + noise)) {
    best = std::move(other);
  }
  StepFit out;
  out.server = fit.server_of(best.x, best.sharpness);
  const auto fitted = fit.figures(best.x, best.sharpness);
  std::vector<double> tpot, ttft, tpot_logs, ttft_logs;
  for (size_t i = 0; i < loads.size(); ++i) {
    const auto add = [](double value, const std::optional<double>& measured, std::vector<double>& errors,
                        std::vector<double>& logs) {
      if (!measured) return;
      errors.push_back(std::abs(value / *measured - 1));
      logs.push_back(std::log(value / *measured));
    };
    add(fitted[i].tpot_mean, loads[i].tpot_mean_s, tpot, tpot_logs);
    add(fitted[i].ttft_mean, loads[i].ttft_mean_s, ttft, ttft_logs);
  }
  out.tpot_error = median(tpot);
  out.ttft_error = median(ttft);
  out.tpot_log_error = spread(tpot_logs, static_cast<double>(best.x.size()) / 2);
  out.ttft_log_error = spread(ttft_logs, static_cast<double>(best.x.size()) / 2);
  return out;
}

}  // namespace sextant::advisor
