// The engine's scheduler in virtual time: the same decisions as in the server, the same simulated device, no waiting and no
// threads. A discrete-event loop that mirrors EngineThread::step(): requests enter between steps, as many steps as the engine has
// are in flight. Deterministic. For `sextant simulate --virtual-time` and for the advisor.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/config.h"
#include "engine/core/scheduler.h"
#include "engine/sim/sim_device.h"

namespace sextant::sim {

// What is in front of the device.
struct SimServer {
  SchedulerConfig scheduler;
  CacheConfig cache;
  int64_t max_model_len = 0;
  int64_t num_blocks = 0;  // of KV cache, without the null block
  std::vector<int32_t> eos_token_ids = {};
};

struct SimRequest {
  double arrival_s = 0;  // ascending; not read under a fixed concurrency
  int32_t prompt_tokens = 1;
  int32_t output_tokens = 1;
  // Requests of one group (not 0) begin with the same tokens, `shared_prefix_tokens` of them; prompts are otherwise distinct.
  uint64_t prefix_group = 0;
  int32_t shared_prefix_tokens = 0;
  int32_t priority = 0;  // lower first, under scheduling_policy "priority"
  std::string tenant = {};
};

struct SimWorkload {
  std::vector<SimRequest> requests;
  // 0: each request comes at its arrival_s. Else so many clients send one after another, in the order of the list.
  int64_t concurrency = 0;
};

// Seconds since the start of the simulation.
struct SimOutcome {
  bool rejected = false;  // the queue was full; or it never fits: see simulate()
  double arrival_s = 0;
  double first_scheduled_s = 0;
  double first_token_s = 0;
  double end_s = 0;
  int32_t num_output_tokens = 0;
  int32_t num_cached_tokens = 0;  // of the prompt, found in the prefix cache
  int32_t num_preemptions = 0;

  double ttft_s() const { return first_token_s - arrival_s; }
  double e2e_s() const { return end_s - arrival_s; }
  double queue_s() const { return first_scheduled_s - arrival_s; }
  // (E2E - TTFT) / (n - 1); 0 for one token.
  double tpot_s() const {
    return num_output_tokens > 1 ? (end_s - first_token_s) / static_cast<double>(num_output_tokens - 1) : 0;
  }
};

struct SimResult {
  std::vector<SimOutcome> outcomes;  // one per request, in their order
  uint64_t num_steps = 0;
  double end_s = 0;   // of the last request
  double busy_s = 0;  // of the device
  int64_t max_running = 0;
  int64_t max_waiting = 0;
  SchedulerStats scheduler;
};

// May be empty. Called at the end of each step for each request that got tokens: for intervals between them.
using OnToken = std::function<void(size_t request_idx, double time_s, int32_t num_tokens)>;

// Runs the workload to its end. Errors: kInvalidArgument for a request that could never run (its index is in the message) or a
// server that is none.
Result<SimResult> simulate(const SimWorkload& workload, const SimTiming& timing, const SimServer& server,
                           const OnToken& on_token = {});

// Shared with the real-time engine. kInvalidArgument when the config asks for more than the timing can have.
Result<int64_t> steps_in_flight(const SchedulerConfig& config, const SimTiming& timing);
Scheduler::Options scheduler_options(const SimServer& server, int64_t num_steps_in_flight);

}  // namespace sextant::sim
