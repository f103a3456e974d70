// Finds a StepCost from measured (or predicted) latencies of one configuration: Levenberg-Marquardt on the logarithms of its
// coefficients, so that the queue of batching_queue.h under the same loads gives the same TPOT and TTFT, mean and median.
// Pure; any thread.
#pragma once

#include <optional>
#include <vector>

#include "advisor/queueing/forecast.h"

namespace sextant::advisor {

struct MeasuredLoad {
  Traffic traffic;
  // That were measured, from an empty server on, as if all had begun at once in a closed loop. 0: not known, or without warm-up;
  // then the figures are of a steady state.
  int64_t num_requests = 0;
  std::optional<double> ttft_mean_s, tpot_mean_s;
  std::optional<double> ttft_p50_s, tpot_p50_s;
  double weight = 1;
};

struct StepFit {
  QueueServer server;  // with cost and fixed_ttft_s set
  // Of the loads fitted to: median |fitted / measured - 1|.
  double tpot_error = 0;
  double ttft_error = 0;
  // Root mean square of ln(fitted / measured), with the degrees of freedom taken off: what to widen a forecast's intervals by.
  double tpot_log_error = 0;
  double ttft_log_error = 0;
};

// `server`: its limits, and in cost.sharpness (1 or 8) the likely shape, which is left only for a clearly better fit of the other;
// the rest of cost and fixed_ttft_s are found. `shape` all 0: cost per token of context is found too, and attention of
// prompts counts as linear. kInvalidArgument without a load that has a TPOT, or with figures that are no measurements.
Result<StepFit> fit_step_cost(const QueueServer& server, const StepShape& shape,
                              const std::vector<MeasuredLoad>& loads);

}  // namespace sextant::advisor
