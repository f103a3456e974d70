// An Engine over a simulated device: the engine's own thread, scheduler, queue limits, events and statistics; only the steps are
// not computed but waited for (sim/sim_device.h). What waits is passed in, so that tests can hold time still.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/clock.h"
#include "engine/engine.h"
#include "engine/sim/sim_device.h"

namespace sextant {

// The engine thread's time: now_ns() from any thread, wait_until() on the engine's.
class SimClock : public Clock {
 public:
  virtual void wait_until(int64_t ns) = 0;
};

struct SimEngineOptions {
  EngineConfig
      config;  // of the model only names and max_model_len (which must be given), of the device nothing is used
  sim::SimTiming timing;
  sim::ChooseText choose_text;
  EngineInfo
      info;  // architecture, weight_type, device, kv_cache_dtype, vocab_size, num_parameters, weight_bytes, eos_token_ids
  int64_t num_blocks = 0;                        // of KV cache, without the null block
  int64_t kv_bytes_per_token = 0;                // for info; 0: not known
  std::function<void(const StepInfo&)> on_step;  // may be empty
  std::shared_ptr<SimClock> clock;               // null: real time
};

// Errors: kInvalidArgument, of a config that a simulated engine cannot have.
Result<std::unique_ptr<Engine>> make_sim_engine(SimEngineOptions options);

}  // namespace sextant
