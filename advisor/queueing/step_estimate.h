// StepCost from mean latencies in closed form: as step_fit, but what the queue would give under a fixed concurrency and fixed
// lengths is written down instead of run, so that a search can afford one for each configuration. Pure; any thread.
//
// In a closed loop of c clients with prompts of s tokens and answers of n, requests go round in groups of g = floor(budget / s):
// each group's prompts are computed in one step beside the decoding of the others, and each sequence meets the other groups' steps
// once in its n - 1 tokens. Source: this is the steady state of the rules in batching_queue.h; a test holds both together.
#pragma once

#include <vector>

#include "advisor/model_facts.h"
#include "advisor/queueing/step_fit.h"

namespace sextant::advisor {

// Of a model whose weights have so many bytes each.
StepShape step_shape_of(const ModelFacts& facts, double bytes_per_parameter);

struct ClosedLoop {
  double concurrency = 1;
  double prompt_tokens = 1;
  double output_tokens = 2;
  double ttft_mean_s = 0;  // known means
  double tpot_mean_s = 0;
};

// Mean TTFT and TPOT that `server` gives under such a load.
struct ClosedLoopMeans {
  double ttft_s = 0;
  double tpot_s = 0;
};
ClosedLoopMeans closed_loop_means(const QueueServer& server, const ClosedLoop& load);

// Most requests per second of that shape that `server` finishes, whatever the concurrency.
double saturation_rate(const QueueServer& server, double prompt_tokens, double output_tokens);

// `server` with its limits and cost.sharpness set; loads by concurrency, all means above 0 (CHECK: at least one).
StepFit estimate_step_cost(const QueueServer& server, const StepShape& shape, const std::vector<ClosedLoop>& loads);

}  // namespace sextant::advisor
