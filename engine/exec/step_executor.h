// StepExecutor: what the engine thread asks of whoever carries steps out. Thread: the engine's.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/core/scheduler_output.h"
#include "engine/device/communicator.h"
#include "engine/group/rank_progress.h"

namespace sextant {

class StepExecutor {
 public:
  virtual ~StepExecutor() = default;

  // Begins a step. collect() gives its output, in the order of the steps; one without sequences has none.
  // kDeviceError when the device failed: the state of every sequence is then lost, and nothing more is asked.
  virtual Status submit(std::shared_ptr<const SchedulerOutput> step) = 0;
  virtual Result<ModelOutput> collect() = 0;
  // Seconds that collected steps kept the device at work, by its own clock; 0 where there is none.
  virtual double device_busy_s() const { return 0; }
  // What the ranks of an executor with several have said to one another, all of them together. Any thread.
  virtual CollectiveCounters collective_counters() const { return {}; }
  // How each rank of a group does. Any thread.
  virtual std::vector<RankReading> rank_readings() const { return {}; }
  // Called once, on any thread, when the ranks or processes of a group fail, whether or not a step is waited for. When the call
  // returns, an earlier handler is not called any more.
  virtual void set_failure_handler(std::function<void(const std::string& message)>) {}
};

}  // namespace sextant
