// Step times that a test knows, and workloads drawn from a seed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>

#include "engine/sim/virtual_time.h"

namespace sextant::testing_support {

// a + b per sequence + c per token.
class LinearTimes final : public sim::StepTimeModel {
 public:
  LinearTimes(double base_s, double per_sequence_s, double per_token_s)
      : base_s_(base_s), per_sequence_s_(per_sequence_s), per_token_s_(per_token_s) {}
  double step_seconds(std::span<const ScheduledSequence> rows) const override {
    int64_t num_tokens = 0;
    for (const ScheduledSequence& row : rows) num_tokens += row.num_scheduled_tokens;
    return base_s_ + per_sequence_s_ * static_cast<double>(rows.size()) +
           per_token_s_ * static_cast<double>(num_tokens);
  }
  std::string description() const override { return "linear"; }

 private:
  double base_s_, per_sequence_s_, per_token_s_;
};

inline sim::SimTiming linear_timing(double base_s = 5e-3, double per_sequence_s = 50e-6, double per_token_s = 10e-6) {
  sim::SimTiming timing;
  timing.model = std::make_shared<LinearTimes>(base_s, per_sequence_s, per_token_s);
  return timing;
}

inline sim::SimServer sim_server() {
  sim::SimServer server;
  server.max_model_len = 4096;
  server.num_blocks = 4096;
  server.scheduler.max_num_seqs = 64;
  return server;
}

// Poisson arrivals at `rate` per second, lengths between 1 and the given ones.
inline sim::SimWorkload random_workload(uint64_t seed, int64_t count, double rate, int32_t max_prompt = 600,
                                        int32_t max_output = 120) {
  std::mt19937_64 random(seed);
  const auto below = [&](int32_t most) { return static_cast<int32_t>(random() % static_cast<uint64_t>(most)) + 1; };
  sim::SimWorkload workload;
  double now_s = 0;
  for (int64_t i = 0; i < count; ++i) {
    sim::SimRequest request;
    request.arrival_s = now_s;
    request.prompt_tokens = below(max_prompt);
    request.output_tokens = below(max_output);
    request.prefix_group = random() % 3;
    request.shared_prefix_tokens = 64;
    workload.requests.push_back(request);
    now_s += -std::log((static_cast<double>(random() >> 11) + 0.5) * 0x1p-53) / rate;
  }
  return workload;
}

}  // namespace sextant::testing_support
