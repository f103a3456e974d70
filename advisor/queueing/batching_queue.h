// A queue with continuous batching in discrete events: requests arrive, wait for a place and for cache, their prompts are computed
// in chunks beside the tokens of others, and each step takes what a StepCost says. The rules are those of the engine's
// scheduler (first come first served, running sequences first, a token budget per step, the last to come preempted when the
// cache is full, steps in flight), over sums instead of sequences, so that a step costs tens of nanoseconds whatever its
// size. Prefix caching is not part of it. Deterministic. Pure; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "advisor/queueing/step_cost.h"

namespace sextant::advisor {

struct QueueServer {
  StepCost cost;
  int64_t max_num_seqs = 256;
  int64_t max_num_batched_tokens = 8192;
  double kv_tokens = 1e12;  // that the cache holds
  int64_t block_size = 16;
  int64_t max_steps_in_flight = 2;
  double fixed_ttft_s = 0;  // spent outside of the steps, by every request once
};

struct QueueRequest {
  double arrival_s = 0;  // ascending; not read in a closed loop
  int32_t prompt_tokens = 1;
  int32_t output_tokens = 1;
};

struct QueueOutcome {
  double ttft_s = 0;
  double e2e_s = 0;
  double queue_s = 0;
  // (E2E - TTFT) / (n - 1); 0 for one token.
  double tpot_s(int32_t output_tokens) const { return output_tokens > 1 ? (e2e_s - ttft_s) / (output_tokens - 1) : 0; }
};

struct QueueRun {
  std::vector<QueueOutcome> outcomes;  // one per request
  double end_s = 0;
  double busy_s = 0;
  uint64_t steps = 0;
  uint64_t preemptions = 0;
  double mean_running = 0;  // sequences in a step, over time of steps
  double mean_kv_tokens = 0;
  bool gave_up = false;  // more than max_steps steps: the outcomes that are missing have e2e_s = infinity
};

// concurrency 0: an open loop. Else so many clients send one request after another. Requests that the cache can never hold are
// the caller's to refuse (CHECK).
QueueRun run_queue(const QueueServer& server, const std::vector<QueueRequest>& requests, int64_t concurrency,
                   uint64_t max_steps = 50'000'000);

}  // namespace sextant::advisor
