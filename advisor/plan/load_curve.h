// What one replica does under load: mean latencies at numbers of requests in flight, and from them, by a queueing model of
// continuous batching, percentiles of TTFT, TPOT and whole answers at a rate of arrivals. Pure; any thread.
//
// The model: requests in flight at a rate r are c = r x mean answer time(c) (Little), with variance c (1 + CV^2) / 2, CV being
// that of the gaps between arrivals (peakedness of GI/G/inf with exponential service); a burst finds its own members before
// it. TTFT is the prefill of this request's own prompt, plus a wait of exponential shape whose mean is what the measured mean
// TTFT at that load has above the unloaded one; beyond the cache's room it waits for a place. TPOT is that of the load seen
// over the answer. Lengths are lognormal. The percentiles are of whole requests, drawn from all of these together (a fixed
// sequence of low discrepancy): never sums of percentiles.
#pragma once

#include <vector>

#include "advisor/predict/predictor.h"

namespace sextant::advisor {

struct LoadCurve {
  std::vector<double> loads;  // requests in flight, ascending, the first is 1
  std::vector<Prediction> ttft, tpot;
  double max_sequences = 1;  // that the cache holds at once

  struct Means {
    double ttft_ms = 0;
    double tpot_ms = 0;
  };
  Means at(double load) const;  // log-log between loads, flat outside
  // Of the interval at that load: ln(high / mean).
  double ttft_log_half_width(double load) const;
  double tpot_log_half_width(double load) const;
  Provenance provenance(double load) const;  // the weaker of both metrics

  void finish();  // after loads, ttft and tpot were set: orders latencies by load and takes their logarithms

 private:
  std::pair<size_t, double> segment(double load) const;
  std::vector<double> log_load_, log_ttft_, log_tpot_;
};

struct RequestShape {
  double prompt_avg = 1, prompt_p95 = 1;
  double output_avg = 1, output_p95 = 1;
  double arrival_cv = 1;
  double outside_ms = 0;  // network and gateway
};

struct Percentiles {
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0;
};

struct Operation {
  double requests_per_s = 0;
  double concurrency = 0;      // mean
  double concurrency_p99 = 0;  // a batch limit that seldom makes anyone wait
  Percentiles ttft_ms, tpot_ms, e2e_ms;
};

// With a mean of `concurrency` requests in flight, which may be below 1.
Operation operate(const LoadCurve& curve, const RequestShape& shape, double concurrency);

// An upper limit of one percentile.
struct LatencyTarget {
  enum class Metric { kTtft, kTpot, kE2e };
  Metric metric = Metric::kTtft;
  int percentile = 90;  // 90, 95, 99
  double limit_ms = 0;
  std::string field;  // of the spec
};
double percentile_of(const Operation& operation, const LatencyTarget& target);
// Probability, by the predictions' intervals, that the target holds.
double probability_of(const LoadCurve& curve, const Operation& operation, const LatencyTarget& target);

struct LimitedRate {
  Operation operation;                   // at the highest load that keeps all targets with 70% probability
  std::optional<LatencyTarget> binding;  // what ends it; nothing: the room in the cache
  bool feasible = false;
  double best_ms = 0;  // of the binding target, with next to no load, as sure as wanted: what it would have to be
};
LimitedRate limited_rate(const LoadCurve& curve, const RequestShape& shape, const std::vector<LatencyTarget>& targets);

}  // namespace sextant::advisor
