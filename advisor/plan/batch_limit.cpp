// Batch limits as an axis of the search. Fewer sequences in a batch make each token quicker and let more requests wait: where
// the time per token ends a replica's rate and the first token has time to spare, a limit carries more.
#include <algorithm>
#include <cmath>

#include "advisor/plan/replica_model.h"

namespace sextant::advisor {
namespace {

constexpr int kMostTrials = 5;
constexpr double kWorthIt = 1.02;  // of the rate: less than the search for a rate can tell apart
constexpr double kSmaller = 0.7;   // each limit is so much of the one before

}  // namespace

ReplicaModel with_batch_limit(ReplicaModel model, const RequestSample& sample, int64_t max_num_seqs) {
  // Each of the stages' queues has its part.
  model.fit.server.max_num_seqs = std::clamp<int64_t>(max_num_seqs / model.stages, 1, model.fit.server.max_num_seqs);
  model.saturation_rps = model.stages * saturation_rate(model.fit.server, sample.prompt_mean(), sample.output_mean());
  return model;
}

LimitedRate choose_batch_limit(ReplicaModel& model, const RequestSample& sample,
                               const std::vector<LatencyTarget>& targets, std::vector<BatchTrial>& trials) {
  LimitedRate best = limited_rate(model, sample, targets);
  const int64_t stages = model.stages;
  trials = {{model.fit.server.max_num_seqs * stages, best.requests_per_s}};
  if (!best.feasible || !best.binding || best.binding->metric == LatencyTarget::Metric::kTtft) return best;
  const ReplicaModel open = model;
  double limit = operate(open, sample, best.requests_per_s).concurrency_p99 / static_cast<double>(stages);
  for (int trial = 0; trial < kMostTrials; ++trial) {
    limit *= kSmaller;
    const auto whole = static_cast<int64_t>(std::floor(limit));
    if (whole < 1) break;
    if (whole >= open.fit.server.max_num_seqs) continue;
    ReplicaModel limited = with_batch_limit(open, sample, whole * stages);
    LimitedRate rate = limited_rate(limited, sample, targets);
    trials.push_back({whole * stages, rate.feasible ? rate.requests_per_s : 0});
    if (!rate.feasible || rate.requests_per_s < best.requests_per_s) break;
    if (rate.requests_per_s < best.requests_per_s * kWorthIt) continue;
    best = std::move(rate);
    model = std::move(limited);
  }
  return best;
}

}  // namespace sextant::advisor
