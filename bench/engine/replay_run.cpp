#include "bench/engine/replay_run.h"

#include <utility>

#include "engine/format/json_file.h"
#include "engine/step_dump.h"
#include "engine/step_replay.h"

namespace sextant::bench {

Result<nlohmann::ordered_json> run_replay(const ReplayRunOptions& options) {
  constexpr size_t kMostBytes = size_t{1} << 30;
  ASSIGN_OR_RETURN(const std::string text, read_text_file(options.path, kMostBytes));
  ASSIGN_OR_RETURN(const StepDump dump, parse_step_dump(text, options.path));
  ReplayOptions replay;
  replay.device = options.device;
  replay.model = options.model;
  replay.step_timeout_s = options.step_timeout_s;
  replay.on_progress = options.on_progress;
  replay.on_hang = options.on_hang;
  ASSIGN_OR_RETURN(const ReplayReport report, replay_steps(dump, replay));
  nlohmann::ordered_json steps = nlohmann::ordered_json::array();
  for (const ReplayReport::Step& step : report.steps) {
    steps.push_back({{"step_id", step.step_id},
                     {"num_sequences", step.num_sequences},
                     {"num_tokens", step.num_tokens},
                     {"seconds", step.seconds}});
  }
  return nlohmann::ordered_json{
      {"dump", options.path},          {"reason", dump.reason}, {"recorded_on", dump.device}, {"device", report.device},
      {"failed_again", report.failed}, {"error", report.error}, {"steps", std::move(steps)}};
}

}  // namespace sextant::bench
