// Replays a dump of failed steps (engine/step_dump.h) and says whether the device fails again.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"

namespace sextant::bench {

struct ReplayRunOptions {
  std::string path;
  std::string device;                    // empty: the dump's
  std::string model;                     // empty: the dump's
  std::optional<double> step_timeout_s;  // nothing: the dump's
  std::function<void(const std::string& line)> on_progress;
  std::function<void(const std::string& what)> on_hang;  // engine/step_replay.h
};

// {"dump", "reason", "recorded_on", "device", "failed_again", "error", "steps": [{"step_id", "num_sequences", "num_tokens",
// "seconds"}]}. Errors: a file that is no dump, or one that the model cannot hold.
Result<nlohmann::ordered_json> run_replay(const ReplayRunOptions& options);

}  // namespace sextant::bench
