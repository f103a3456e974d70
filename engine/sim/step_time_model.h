// StepTimeModel: how long a step takes on a machine that is not here. Pure: the same rows give the same seconds. What knows
// hardware or measurements implements it (roofline_time.h, record_time.h, the advisor); the simulated device asks it.
// Any thread.
#pragma once

#include <span>
#include <string>

#include "engine/core/scheduler_output.h"

namespace sextant::sim {

class StepTimeModel {
 public:
  virtual ~StepTimeModel() = default;

  // Seconds that the device is at work on one step with these rows (at least one); finite, not negative.
  virtual double step_seconds(std::span<const ScheduledSequence> rows) const = 0;
  // For people, one line: "roofline of H100-SXM5-80GB x 2 ..."
  virtual std::string description() const = 0;
};

}  // namespace sextant::sim
