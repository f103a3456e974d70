// SchedulerOutput and ModelOutput as bytes: what the leader of a group tells the others of each step, and what the last stage
// answers. Compact: a decode step costs some 10 bytes per sequence. A prompt is sent as the token_ids of its steps; once more
// with a new sequence only where sampling looks at it (repetition_penalty, prompt_logprobs). What only the scheduler asks for
// (priority, tenant, cache_salt, arrival) is not sent.
// Reading checks that the data is consistent in itself; `StepBounds` that it fits this engine. Pure: any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/base/result.h"
#include "engine/core/scheduler_output.h"

namespace sextant {

struct StepBounds {
  int32_t vocab_size = 0;
  int32_t num_blocks = 0;  // with the null block
  int32_t block_size = 16;
  int64_t max_model_len = 0;  // tokens
  int64_t max_num_seqs = 0;
  int64_t max_num_batched_tokens = 0;
};

std::string serialize_step(const SchedulerOutput& step);
// kDataLoss, with the reason.
Result<std::shared_ptr<const SchedulerOutput>> parse_step(std::string_view bytes, const StepBounds& bounds);

std::string serialize_output(const ModelOutput& output);
Result<ModelOutput> parse_output(std::string_view bytes);

}  // namespace sextant
