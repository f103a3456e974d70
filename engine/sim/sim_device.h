// SimDevice: a device in time only. It takes scheduled steps, says when each is done and which tokens come of it, and computes
// nothing. It has no clock: whoever drives it passes the time in, so that the same device runs in real time (sim_engine.h)
// and in discrete events (virtual_time.h). One thread. Deterministic: equal steps, times and seed give equal outputs.
//
// Two kinds of time:
// - a StepTimeModel: a step begins when it was submitted and the one before it is done; every sequence of it that samples
//   gets its token at its end. What a request waits for emerges from the scheduler.
// - constant: token k of a request is due at arrival + ttft + k * tpot, whatever else runs. A step ends when its first token is
//   due and gives tokens to those whose time has come; the others get none and are scheduled again. One step in flight.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine/core/scheduler_output.h"
#include "engine/sim/step_time_model.h"

namespace sextant::sim {

struct ConstantTimes {
  double ttft_s = 0;
  double tpot_s = 0;
};

struct SimTiming {
  std::optional<ConstantTimes> constant;       // else `model`
  std::shared_ptr<const StepTimeModel> model;  // never null without `constant`
  // Standard deviation over mean of what a step (constant: an interval between tokens) takes, as measured or asked for;
  // 0: none. Log-normal with the model's time as its mean.
  double jitter_cv = 0;
  uint64_t seed = 0;  // of the jitter

  // Steps that may be in flight: as many as the engine has on CUDA; constant times need one.
  int64_t max_steps_in_flight() const { return constant ? 1 : 2; }
};

// What a request is answered with: ids that are repeated as long as it wants tokens; when `ends`, an end token follows them
// (unless the request ignores it). Never empty. The pointer stays valid while the request runs.
struct CannedText {
  std::vector<int32_t> token_ids;
  bool ends = false;
};
using ChooseText = std::function<const CannedText*(const Request& request, int32_t choice_idx)>;

class SimDevice {
 public:
  struct Options {
    SimTiming timing;
    ChooseText choose_text;              // empty: every token is 0
    std::vector<int32_t> eos_token_ids;  // the first ends a text
  };
  explicit SimDevice(Options options);

  // A step as the scheduler made it; one without sequences only drops state.
  void submit(std::shared_ptr<const SchedulerOutput> step, int64_t now_ns);
  bool has_steps() const { return !steps_.empty(); }
  int64_t next_finish_ns() const;  // of the oldest step
  // The oldest step's tokens; now_ns >= next_finish_ns().
  ModelOutput collect(int64_t now_ns);

  double busy_s() const { return static_cast<double>(busy_ns_) * 1e-9; }

 private:
  struct SequenceState {
    std::shared_ptr<const Request> request;
    int32_t choice_idx = 0;
    const CannedText* text = nullptr;
    int64_t due_ns = 0;  // constant times: of its next token
  };
  struct Step {
    std::shared_ptr<const SchedulerOutput> output;
    int64_t finish_ns = 0;
  };

  int64_t step_ns(const SchedulerOutput& step);
  int64_t constant_finish_ns(const SchedulerOutput& step, int64_t now_ns);
  int32_t token_of(const SequenceState& state, int64_t output_idx) const;
  double jitter(uint64_t a, uint64_t b) const;

  Options options_;
  std::unordered_map<SequenceId, SequenceState> sequences_;
  std::deque<Step> steps_;
  int64_t free_ns_ = 0;  // when the newest step is done
  int64_t busy_ns_ = 0;
};

// A factor with mean 1 and standard deviation `cv`, log-normal, of one draw keyed by (seed, a, b).
double jitter_factor(double cv, uint64_t seed, uint64_t a, uint64_t b);

}  // namespace sextant::sim
