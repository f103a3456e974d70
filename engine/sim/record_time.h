// RecordTime: step times fitted to benchmark records of a deployment.
//   step = base + per_sequence * sequences + per_prompt_token * prompt tokens + per_context_token * tokens of context
// All four are at least 0, chosen to minimise relative squared errors of
//   TPOT at concurrency c, prompts of p and outputs of n tokens: a step then has c sequences, p * c / n prompt tokens (each request
//     spreads its prompt over its n steps) and c * (p + n / 2) tokens of context;
//   TTFT at c = 1: a step with the whole prompt.
// Where prompts fill the scheduler's token budget a step has fewer prompt tokens than that: such points fit worse.
// What load does to TTFT is left to the scheduler. Pure; any thread.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "engine/base/result.h"
#include "engine/sim/step_time_model.h"

namespace sextant::sim {

struct MeasuredPoint {
  double concurrency = 1;
  double prompt_tokens = 0;
  double output_tokens = 0;
  std::optional<double> ttft_s;   // p50 or mean
  double tpot_s = 0;              // p50 or mean
  std::optional<double> tpot_cv;  // standard deviation over mean of an interval between tokens, where it was measured
};

class RecordTime final : public StepTimeModel {
 public:
  // kInvalidArgument without points, or with points that are no measurements.
  static Result<RecordTime> fit(std::span<const MeasuredPoint> points);

  double step_seconds(std::span<const ScheduledSequence> rows) const override;
  std::string description() const override;
  // Of the fit's TPOT against the points', relative.
  double median_error() const { return median_error_; }
  double worst_error() const { return worst_error_; }

 private:
  double base_s_ = 0, per_sequence_s_ = 0, per_prompt_token_s_ = 0, per_context_token_s_ = 0;
  double median_error_ = 0, worst_error_ = 0;
  size_t num_points_ = 0;
};

// The spread of one step that percentiles of a log-normal tell.
double cv_of_percentiles(double p50, double p90);

}  // namespace sextant::sim
