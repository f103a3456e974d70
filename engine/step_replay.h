// Runs the steps of a StepDump again, on one device: does it fail again? The model is loaded as the dump's configuration says,
// the KV cache is filled with what each sequence had computed, in the same blocks, and the steps follow in their order.
// Not restored: penalties' counts of tokens before the dump, and other ranks (a dump of several is run by one). Thread: the caller's.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/step_dump.h"

namespace sextant {

struct ReplayOptions {
  std::string device;                    // as --device; empty: the dump's
  std::string model;                     // a path; empty: the dump's
  std::optional<double> step_timeout_s;  // nothing: the dump's; 0: none
  // Called on another thread when a step gave no result within that time: the caller's is stuck.
  std::function<void(const std::string& what)> on_hang;
  std::function<void(const std::string& line)> on_progress;  // may be empty
};

struct ReplayReport {
  std::string device;   // what it ran on
  bool failed = false;  // again
  std::string error;    // when it did: which step, and what the device said
  struct Step {
    uint64_t step_id = 0;
    int32_t num_sequences = 0;
    int32_t num_tokens = 0;
    double seconds = 0;
    std::vector<int32_t> token_ids;  // chosen, in the order of the sequences that sample
  };
  std::vector<Step> steps;  // that gave results
};

// An error is a dump that this model cannot hold, or a model that cannot be loaded; a step that fails is a report.
Result<ReplayReport> replay_steps(const StepDump& dump, const ReplayOptions& options);

}  // namespace sextant
