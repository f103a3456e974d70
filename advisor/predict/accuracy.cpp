#include "advisor/predict/accuracy.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <set>
#include <tuple>

#include "advisor/predict/extra_trees.h"

namespace sextant::advisor {
namespace {

constexpr double kUncertainAllowed = 0.10;
constexpr Metric kMetrics[] = {Metric::kTpot, Metric::kTtft};

struct Scored {
  double measured;
  Prediction prediction;
  double baseline;
};
// kind -> metric -> what was predicted
using ScoredRows = std::map<std::string, std::map<Metric, std::vector<Scored>>>;

double quantile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = p * static_cast<double>(values.size() - 1);
  const size_t low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (at - std::floor(at)) * (values[high] - values[low]);
}

auto figures(const ServingPoint& p) {
  return std::tuple(p.concurrency, p.prompt_tokens, p.output_tokens, p.ttft_mean_ms, p.tpot_mean_ms);
}

MetricScore summarize(const std::vector<Scored>& rows, double limit_ms) {
  MetricScore s;
  s.n = rows.size();
  s.limit_ms = limit_ms;
  std::vector<double> errors, biases, widths, baselines;
  double covered = 0, right = 0, false_pass = 0, uncertain = 0;
  for (const Scored& row : rows) {
    biases.push_back(row.prediction.mean / row.measured - 1);
    errors.push_back(std::abs(biases.back()));
    widths.push_back((row.prediction.high - row.prediction.low) / 2 / row.prediction.mean);
    baselines.push_back(std::abs(row.baseline / row.measured - 1));
    covered += row.prediction.low <= row.measured && row.measured <= row.prediction.high ? 1 : 0;
    const Verdict verdict = verdict_of(row.prediction, limit_ms);
    const bool passes = row.measured <= limit_ms;
    uncertain += verdict == Verdict::kUncertain ? 1 : 0;
    right += verdict == (passes ? Verdict::kPass : Verdict::kFail) ? 1 : 0;
    false_pass += verdict == Verdict::kPass && !passes ? 1 : 0;
  }
  const double n = std::max<double>(1, static_cast<double>(rows.size()));
  s.median_error_pct = 100 * quantile(errors, 0.5);
  s.p90_error_pct = 100 * quantile(errors, 0.9);
  s.bias_pct = 100 * quantile(biases, 0.5);
  s.coverage_pct = 100 * covered / n;
  s.median_half_width_pct = 100 * quantile(widths, 0.5);
  s.uncertain_pct = 100 * uncertain / n;
  s.false_pass_pct = 100 * false_pass / n;
  s.agree_pct = 100 * right / std::max(1.0, n - std::min(uncertain, kUncertainAllowed * n));
  s.baseline_median_error_pct = 100 * quantile(baselines, 0.5);
  s.baseline_p90_error_pct = 100 * quantile(baselines, 0.9);
  return s;
}

// Trains once and predicts `test`; the training rows that are twins of a test row are dropped first.
Status predict_fold(const std::vector<ServingPoint>& train, const std::vector<ServingPoint>& test,
                    const std::string& kind, const FactsTable& facts, const GpuTable& gpus,
                    const AccuracyOptions& options, ScoredRows& out, size_t& twins, std::vector<std::string>& skipped) {
  std::set<decltype(figures(test.front()))> held;
  for (const ServingPoint& point : test) held.insert(figures(point));
  std::vector<ServingPoint> kept;
  for (const ServingPoint& point : train) {
    if (held.count(figures(point)) > 0) {
      ++twins;
    } else {
      kept.push_back(point);
    }
  }
  const Result<Predictor> predictor = Predictor::train(kept, facts, gpus);
  if (!predictor.ok()) return predictor.status();
  for (const Metric metric : kMetrics) {
    std::optional<ExtraTrees> trees;
    if (options.baseline) trees.emplace(kept, metric, options.seed);
    for (const ServingPoint& point : test) {
      const Result<Prediction> prediction = predictor->predict(metric, point);
      if (!prediction.ok()) {
        if (metric == Metric::kTpot && skipped.size() < 100) skipped.push_back(prediction.status().message());
        continue;
      }
      const double baseline = trees ? trees->milliseconds(point) : 0;
      out[kind.empty() ? (point.holdout.empty() ? "all" : point.holdout) : kind][metric].push_back(
          {measured(point, metric), *prediction, baseline});
    }
  }
  return ok_status();
}

void fill(AccuracyReport& report, const ScoredRows& scored) {
  for (const auto& [kind, metrics] : scored) {
    for (const auto& [metric, rows] : metrics) {
      const double limit = metric == Metric::kTpot ? report.options.tpot_limit_ms : report.options.ttft_limit_ms;
      report.kinds[kind][metric_name(metric)] = summarize(rows, limit);
      if (metric == Metric::kTpot) report.scored += rows.size();
    }
  }
}

// Fold of each row, -1 for rows that this kind never leaves out.
std::vector<int> assign_folds(const std::vector<ServingPoint>& rows, const std::string& kind, int folds, uint64_t seed,
                              int& used) {
  std::mt19937_64 random(seed);
  std::vector<int> fold(rows.size(), -1);
  std::map<std::string, std::vector<size_t>> by_key;
  for (size_t i = 0; i < rows.size(); ++i) by_key[kind == "pair" ? pair_key(rows[i]) : group_key(rows[i])].push_back(i);
  if (kind == "interior") {
    used = folds;
    for (const auto& [key, ids] : by_key) {
      std::set<double> loads;
      for (const size_t i : ids) loads.insert(rows[i].concurrency);
      if (loads.size() < 3) continue;
      // Consecutive folds from a random start: two points of one configuration share a fold only where there are more
      // points than folds.
      int at = static_cast<int>(random() % static_cast<uint64_t>(folds));
      for (auto load = std::next(loads.begin()); std::next(load) != loads.end(); ++load, ++at)
        for (const size_t i : ids)
          if (rows[i].concurrency == *load) fold[i] = at % folds;
    }
    return fold;
  }
  std::vector<std::string> keys;
  for (const auto& [key, ids] : by_key) keys.push_back(key);
  for (size_t i = keys.size(); i > 1; --i) std::swap(keys[i - 1], keys[random() % i]);
  used = kind == "pair" ? static_cast<int>(keys.size()) : std::min(folds, static_cast<int>(keys.size()));
  for (size_t k = 0; k < keys.size(); ++k)
    for (const size_t i : by_key[keys[k]]) fold[i] = static_cast<int>(k) % used;
  return fold;
}

}  // namespace

Result<AccuracyReport> score(const std::vector<ServingPoint>& train, const std::vector<ServingPoint>& test,
                             const FactsTable& facts, const GpuTable& gpus, const AccuracyOptions& options,
                             const Progress& progress) {
  AccuracyReport report;
  report.options = options;
  report.rows = train.size();
  ScoredRows scored;
  if (!progress("training", 0, 1)) return Status(StatusCode::kCancelled, "interrupted");
  // One training per kind would let rows of another kind in; all that is scored is left out of all.
  RETURN_IF_ERROR(predict_fold(train, test, "", facts, gpus, options, scored, report.withheld_twins, report.skipped));
  fill(report, scored);
  progress("training", 1, 1);
  return report;
}

Result<AccuracyReport> cross_validate(const std::vector<ServingPoint>& rows, const FactsTable& facts,
                                      const GpuTable& gpus, const AccuracyOptions& options, const Progress& progress) {
  AccuracyReport report;
  report.options = options;
  report.rows = rows.size();
  report.cross_validated = true;
  ScoredRows scored;
  for (const std::string& kind : options.kinds) {
    int used = 0;
    const std::vector<int> fold = assign_folds(rows, kind, options.folds, options.seed, used);
    for (int f = 0; f < used; ++f) {
      if (!progress(kind, static_cast<size_t>(f), static_cast<size_t>(used)))
        return Status(StatusCode::kCancelled, "interrupted");
      std::vector<ServingPoint> train, test;
      for (size_t i = 0; i < rows.size(); ++i) (fold[i] == f ? test : train).push_back(rows[i]);
      if (test.empty()) continue;
      RETURN_IF_ERROR(
          predict_fold(train, test, kind, facts, gpus, options, scored, report.withheld_twins, report.skipped));
    }
  }
  fill(report, scored);
  return report;
}

nlohmann::ordered_json to_json(const AccuracyReport& report) {
  const auto round = [](double value) { return std::round(value * 100) / 100; };
  nlohmann::ordered_json json = {{"schema", "sextant.accuracy/1"},
                                 {"method", report.cross_validated ? "cross-validation" : "train and score"},
                                 {"rows", report.rows},
                                 {"scored", report.scored},
                                 {"withheld_twins", report.withheld_twins},
                                 {"seed", report.options.seed}};
  if (report.cross_validated) json["folds"] = report.options.folds;
  json["skipped"] = report.skipped;
  json["kinds"] = nlohmann::ordered_json::object();
  for (const auto& [kind, metrics] : report.kinds) {
    for (const auto& [metric, s] : metrics) {
      nlohmann::ordered_json entry = {{"n", s.n},
                                      {"median_error_pct", round(s.median_error_pct)},
                                      {"p90_error_pct", round(s.p90_error_pct)},
                                      {"bias_pct", round(s.bias_pct)},
                                      {"interval_coverage_pct", round(s.coverage_pct)},
                                      {"interval_median_half_width_pct", round(s.median_half_width_pct)},
                                      {"verdict",
                                       {{"limit_ms", s.limit_ms},
                                        {"agree_pct", round(s.agree_pct)},
                                        {"false_pass_pct", round(s.false_pass_pct)},
                                        {"uncertain_pct", round(s.uncertain_pct)}}}};
      if (report.options.baseline)
        entry["extra_trees"] = {{"median_error_pct", round(s.baseline_median_error_pct)},
                                {"p90_error_pct", round(s.baseline_p90_error_pct)}};
      json["kinds"][kind][metric] = std::move(entry);
    }
  }
  return json;
}

std::string to_text(const AccuracyReport& report) {
  std::string out;
  char line[256];
  std::snprintf(line, sizeof line, "%s, seed %llu; %zu rows, %zu scored; %zu rows withheld as twins of scored ones\n",
                report.cross_validated ? "cross-validation" : "train and score",
                static_cast<unsigned long long>(report.options.seed), report.rows, report.scored,
                report.withheld_twins);
  out += line;
  out +=
      "kind      metric     n   median     p90    bias   interval   half-width     limit  agree  false-pass  uncertain "
      " ExtraTrees\n";
  for (const auto& [kind, metrics] : report.kinds) {
    for (const auto& [metric, s] : metrics) {
      char baseline[32] = "-";
      if (report.options.baseline) std::snprintf(baseline, sizeof baseline, "%.1f%%", s.baseline_median_error_pct);
      std::snprintf(line, sizeof line,
                    "%-9s %-5s %6zu %7.2f%% %6.1f%% %6.2f%%    %5.1f%%      %6.1f%%  %5.0f ms %5.1f%%      %5.1f%%     "
                    "%5.1f%%  %10s\n",
                    kind.c_str(), metric.c_str(), s.n, s.median_error_pct, s.p90_error_pct, s.bias_pct, s.coverage_pct,
                    s.median_half_width_pct, s.limit_ms, s.agree_pct, s.false_pass_pct, s.uncertain_pct, baseline);
      out += line;
    }
  }
  return out;
}

}  // namespace sextant::advisor
