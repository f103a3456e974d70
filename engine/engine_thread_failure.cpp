// EngineThread when the device fails: what was being computed is written down, everyone is answered, nothing more is asked of
// the device.
#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "engine/base/log.h"
#include "engine/engine_thread.h"

namespace sextant {

// When the device began with the oldest step that it has: not before it was done with the one before.
int64_t EngineThread::busy_since_ns() const {
  return steps_.empty() ? clock().now_ns() : std::max(steps_.front().submitted_ns, last_collected_ns_);
}

// On the watchdog's thread, while the engine's own is inside the worker, where it holds nothing of ours.
void EngineThread::take_over() {
  std::string what = "a call without a step";
  if (!steps_.empty()) {
    const SchedulerOutput& step = *steps_.front().output;
    what = "step " + std::to_string(step.step_id) + " (" + std::to_string(step.sequences.size()) + " sequences, " +
           std::to_string(step.num_tokens()) + " tokens)";
  }
  std::string seconds = std::to_string(parts_.step_timeout_s);
  seconds.erase(seconds.find_last_not_of("0") + 1);
  if (seconds.back() == '.') seconds.pop_back();
  fail(what + " gave no result within " + seconds + " s (step_timeout_s)");
  run();  // what is still asked of the engine gets its answer, until the engine is destroyed
}

// Clients are answered before the record is written: a disk may be slow. Whoever waits for the drain waits for the record.
void EngineThread::fail(const std::string& message) {
  LOG_ERROR << "the device failed, requests in flight are lost: " << message;
  failure_ = message;
  healthy_.store(false);
  {
    std::lock_guard lock(mutex_);
    stats_.healthy = false;
  }
  const std::string& directory = parts_.engine_config.device.step_dump_dir;
  StepDump dump;
  if (!directory.empty()) dump = record_steps(message);
  steps_.clear();
  parts_.scheduler->fail_all();
  deliver_events(clock().now_ns());
  if (!dump.steps.empty()) {
    try {
      const Result<std::string> path = write_step_dump(dump, directory);
      if (path.ok()) {
        LOG_ERROR << "the steps in flight (" << dump.steps.size() << ") were written to " << *path;
      } else {
        LOG_ERROR << "the steps in flight could not be written: " << path.status().message();
      }
    } catch (const std::exception& error) {
      LOG_ERROR << "the steps in flight could not be written: " << error.what();
    }
  }
  publish_stats();
}

StepDump EngineThread::record_steps(const std::string& reason) const {
  StepDump dump;
  dump.reason = reason;
  dump.device = parts_.info.device;
  dump.config = parts_.engine_config;
  for (const StepInFlight& step : steps_) dump.steps.push_back(step.output);
  for (SequenceSnapshot& snapshot : parts_.scheduler->sequences_in_flight()) {
    // Back to before the first of the steps: each of them appends to the tables, or starts them anew.
    bool restarts = false;
    std::vector<size_t> num_appended(snapshot.block_tables.size());
    for (const auto& step : dump.steps) {
      for (size_t i = 0; i < step->sequences.size(); ++i) {
        if (step->sequences[i].sequence_id != snapshot.sequence_id) continue;
        restarts |= step->sequences[i].restarts_block_table;
        for (size_t g = 0; g < num_appended.size(); ++g) {
          const std::vector<int32_t>& offsets = step->new_blocks[g].offsets;
          num_appended[g] += static_cast<size_t>(offsets[i + 1] - offsets[i]);
        }
      }
    }
    for (size_t g = 0; g < num_appended.size(); ++g) {
      std::vector<BlockId>& table = snapshot.block_tables[g];
      table.resize(restarts || table.size() < num_appended[g] ? 0 : table.size() - num_appended[g]);
    }
    dump.sequences.push_back({snapshot.sequence_id, snapshot.choice_idx, std::move(snapshot.request),
                              std::move(snapshot.output_token_ids), std::move(snapshot.block_tables)});
  }
  return dump;
}

}  // namespace sextant
