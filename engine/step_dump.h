// StepDump: the steps in flight when a device failed, as JSON from which they can be run again. It holds token ids and no
// text, but ids are text to whoever has the tokenizer: files are for their owner's eyes only.
//
// {"version": 1, "reason", "device", "config": {as --print-config},
//  "requests": [{"request_id", "prompt_token_ids", "sampling": {SamplingParams' fields}}],
//  "sequences": [{"sequence_id", "choice_idx", "request_id", "output_token_ids",
//                 "block_tables": [one list of block ids per cache group]}],
//  "steps": [{SchedulerOutput's fields; "new_sequences" lists ids}]}            oldest step first
//
// To replay: before the first step of a sequence the cache holds its tokens (prompt, then output) at positions
// [0, num_computed_tokens) of that step, in the blocks of block_tables and, where the step restarts the table, in the step's
// own. A prompt's text, a request's tenant and its cache_salt are not written.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/config.h"
#include "engine/core/scheduler_output.h"

namespace sextant {

struct StepDump {
  // A sequence of the steps, as it was before the first of them.
  struct SequenceState {
    SequenceId sequence_id = 0;
    int32_t choice_idx = 0;
    std::shared_ptr<const Request> request;
    std::vector<int32_t> output_token_ids;
    std::vector<std::vector<BlockId>> block_tables;  // per cache group
  };

  std::string reason;  // what failed
  std::string device;  // EngineInfo::device
  EngineConfig config;
  std::vector<SequenceState> sequences;
  std::vector<std::shared_ptr<const SchedulerOutput>> steps;
};

std::string render_step_dump(const StepDump& dump);

// `name` stands for the text in messages. What comes back is consistent in itself: every scheduled sequence is known, every
// range is inside its list, sampling parameters are valid.
Result<StepDump> parse_step_dump(std::string_view text, std::string_view name);

// A file of its own in `directory`, mode 0600; its path.
Result<std::string> write_step_dump(const StepDump& dump, const std::string& directory);

}  // namespace sextant
