// Latency percentiles under a load: runs of the queue of batching_queue.h with drawn arrivals and lengths. Pure; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "advisor/queueing/batching_queue.h"
#include "engine/base/result.h"

namespace sextant::advisor {

struct Lengths {
  double mean = 1;
  double cv = 0;   // 0: all alike; else log-normal
  double max = 0;  // longer ones are cut; 0: no limit
};

struct Traffic {
  double request_rate = 0;  // per second; 0: a closed loop of `concurrency` clients
  int64_t concurrency = 1;
  double arrival_cv = 1;  // of the gaps, which are gamma: 1 Poisson, 0 constant
  Lengths prompt;
  Lengths output;
};

struct ForecastOptions {
  int64_t num_requests = 1000;  // of one run, which begins with nothing in the server
  int64_t num_runs = 15;
  uint64_t seed = 1;
  uint64_t max_steps = 20'000'000;  // of all runs
};

// Of one latency, in seconds: what the run in the middle gives, and what 90% of the runs give (a percentile of num_requests varies
// from run to run, more so under bursts; to ask for the long run, ask for more requests).
struct LatencyShare {
  double value = 0;
  double low = 0;
  double high = 0;
};
struct LatencyFigures {
  LatencyShare mean, p50, p90, p95, p99;
};

struct Forecast {
  LatencyFigures ttft, tpot, e2e, queue;
  double request_rps = 0;  // that were finished
  double output_tokens_per_s = 0;
  double busy_share = 0;  // of the device
  double mean_running = 0;
  double mean_kv_tokens = 0;
  double preemptions_per_request = 0;
  // The queue grows as long as requests come (the second half of the requests waits much longer than the first): the latencies
  // are those of num_requests, and more requests would give longer ones.
  bool saturated = false;
};

// The same seed gives the same requests.
std::vector<QueueRequest> draw_requests(const Traffic& traffic, int64_t num_requests, uint64_t seed);

// kInvalidArgument names the field of `traffic` or `options` that is out of range; kTooLarge when max_steps did not do.
Result<Forecast> forecast(const QueueServer& server, const Traffic& traffic, const ForecastOptions& options);

}  // namespace sextant::advisor
