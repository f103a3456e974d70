// What one replica does under a rate of arrivals: the queue of queueing/ with a step whose cost was found from the predictor's
// means, under one sample of arrivals and lengths that a spec's whole search shares, so that options differ by what they are and
// not by chance. Pure; any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "advisor/predict/predictor.h"
#include "advisor/queueing/step_estimate.h"

namespace sextant::advisor {

struct RequestShape {
  double prompt_avg = 1, prompt_p95 = 1;  // tokens, log-normal
  double output_avg = 1, output_p95 = 1;
  double context_max = 1e9;  // prompt and answer of no request are longer
  double arrival_cv = 1;     // of the gaps between arrivals, which are gamma
  double outside_ms = 0;     // network and gateway
};

// Requests of a shape at one per second, drawn once: lengths are the quantiles of their distributions in a random order, gaps are
// scaled to the mean of exactly a second.
class RequestSample {
 public:
  explicit RequestSample(const RequestShape& shape);

  const RequestShape& shape() const { return shape_; }
  double prompt_mean() const { return prompt_mean_; }  // of the sample: cut at context_max
  double output_mean() const { return output_mean_; }
  std::vector<QueueRequest> at(double requests_per_s) const;

 private:
  RequestShape shape_;
  double prompt_mean_ = 0, output_mean_ = 0;
  std::vector<QueueRequest> requests_;
};

// Means in closed loops of growing concurrency, as the predictor says them, and the server whose queue gives them.
struct ReplicaModel {
  std::vector<double> loads;  // requests in flight, ascending
  std::vector<Prediction> ttft, tpot;
  StepFit fit;
  int stages = 1;  // of pipeline parallelism: so many such queues side by side, each with its part of the requests
  double saturation_rps = 0;  // of requests of the mean lengths, all stages' queues together

  // Errors of prediction and fit together at that many requests in flight: ln(high / value) of the 90% interval.
  double ttft_log_half_width(double load) const;
  double tpot_log_half_width(double load) const;
  Provenance provenance(double load) const;  // the weaker of both metrics
};
// `limits`: what the cache holds and the engine's limits. The predictions by load, of the sample's mean lengths.
ReplicaModel replica_model(QueueServer limits, const StepShape& shape, const RequestSample& sample,
                           std::vector<double> loads, std::vector<Prediction> ttft, std::vector<Prediction> tpot,
                           int stages = 1);

struct Percentiles {
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0;
};

struct Operation {
  double requests_per_s = 0;
  double concurrency = 0;      // mean
  double concurrency_p99 = 0;  // as arrivals find it: a batch limit that seldom makes anyone wait
  Percentiles ttft_ms, tpot_ms, e2e_ms, queue_ms;
  double mean_batch = 0;  // sequences in a step
  double kv_tokens = 0;   // in use, mean over steps
  double busy_share = 0;  // of the device's time
};
Operation operate(const ReplicaModel& model, const RequestSample& sample, double requests_per_s);

// An upper limit of one percentile.
struct LatencyTarget {
  enum class Metric { kTtft, kTpot, kE2e };
  Metric metric = Metric::kTtft;
  int percentile = 90;  // 90, 95, 99
  double limit_ms = 0;
  std::string field;  // of the spec
};
double percentile_of(const Operation& operation, const LatencyTarget& target);
// ln(high / value) of the target's percentile, 90% interval.
double log_half_width_of(const ReplicaModel& model, const Operation& operation, const LatencyTarget& target);
// Share of requests that meet every target at that rate: each limit is taken as that of one request.
double attainment(const ReplicaModel& model, const RequestSample& sample, double requests_per_s,
                  const std::vector<LatencyTarget>& targets);
// Probability, by the predictions' intervals, that the target holds.
double probability_of(const ReplicaModel& model, const Operation& operation, const LatencyTarget& target);

// The highest rate that keeps all targets with 70% probability.
struct LimitedRate {
  double requests_per_s = 0;             // when not feasible: next to no load
  std::optional<LatencyTarget> binding;  // what ends it; nothing: saturation
  bool feasible = false;
  double best_ms = 0;   // of the binding target, with next to no load, as sure as wanted: what it would have to be
  Operation operation;  // at that rate, of the options that a plan shows
};
// Never above kMostLoad of saturation: beyond it a queue takes longer than a busy hour to settle.
inline constexpr double kMostLoad = 0.9;
LimitedRate limited_rate(const ReplicaModel& model, const RequestSample& sample,
                         const std::vector<LatencyTarget>& targets);

// The same replica with at most so many sequences in a batch, those of all stages together.
ReplicaModel with_batch_limit(ReplicaModel model, const RequestSample& sample, int64_t max_num_seqs);
// A batch limit and the rate that one replica carries under it within the targets; 0: they do not hold.
struct BatchTrial {
  int64_t max_num_seqs = 0;
  double requests_per_s = 0;
};
// The rate under the batch limit that carries most, which `model` then has; its own limit where no smaller one is better by
// more than the search for a rate can tell. `trials`: all that were tried, the model's own first.
LimitedRate choose_batch_limit(ReplicaModel& model, const RequestSample& sample,
                               const std::vector<LatencyTarget>& targets, std::vector<BatchTrial>& trials);

}  // namespace sextant::advisor
