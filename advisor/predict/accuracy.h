// How good predictions are on rows that were not used in training: by kind of hold-out, ours beside a plain regression.
// Pure but for the time it takes; any thread.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "advisor/predict/predictor.h"

namespace sextant::advisor {

struct AccuracyOptions {
  uint64_t seed = 1;
  int folds = 10;  // of points and of groups; pairs are left out one by one
  std::vector<std::string> kinds = {"interior", "group", "pair"};
  bool baseline = true;
  double tpot_limit_ms = 40;
  double ttft_limit_ms = 500;
};

struct MetricScore {
  size_t n = 0;
  double median_error_pct = 0;  // |predicted / measured - 1|
  double p90_error_pct = 0;
  double bias_pct = 0;  // median of predicted / measured - 1
  double coverage_pct = 0;
  double median_half_width_pct = 0;  // (high - low) / 2 / predicted
  double limit_ms = 0;
  double agree_pct = 0;  // of the verdicts; uncertain ones beyond 10% of all count as wrong, those within are left out
  double false_pass_pct = 0;
  double uncertain_pct = 0;
  double baseline_median_error_pct = 0;
  double baseline_p90_error_pct = 0;
};

struct AccuracyReport {
  std::map<std::string, std::map<std::string, MetricScore>> kinds;  // kind -> "tpot", "ttft"
  size_t rows = 0;
  size_t scored = 0;
  // Rows of the training file that hold the very figures of a row to score, under whatever label; not trained on.
  size_t withheld_twins = 0;
  bool cross_validated = false;
  AccuracyOptions options;
  std::vector<std::string> skipped;
};

// Called between fits; false stops.
using Progress = std::function<bool(const std::string& what, size_t done, size_t of)>;

// Trains on `train`, scores `test` by their `holdout` ("all" where it is empty).
Result<AccuracyReport> score(const std::vector<ServingPoint>& train, const std::vector<ServingPoint>& test,
                             const FactsTable& facts, const GpuTable& gpus, const AccuracyOptions& options,
                             const Progress& progress);

// Leaves out in turn: points with measured loads of the same configuration on both sides ("interior"; never two of one
// configuration at once), whole configurations ("group"), whole model-GPU pairs ("pair"). Each fold is a training of its own.
Result<AccuracyReport> cross_validate(const std::vector<ServingPoint>& rows, const FactsTable& facts,
                                      const GpuTable& gpus, const AccuracyOptions& options, const Progress& progress);

nlohmann::ordered_json to_json(const AccuracyReport& report);
std::string to_text(const AccuracyReport& report);

}  // namespace sextant::advisor
