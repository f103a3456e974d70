// Requests as rows of a SampleBatch, for backends that sample, and their results as PositionLogprobs. The meaning is the
// Sampler's; the two are held to each other by tests.
#pragma once

#include <cstdint>
#include <span>

#include "engine/core/scheduler_output.h"
#include "engine/device/sample_batch.h"
#include "engine/exec/sampler.h"

namespace sextant {

// Appends the row that chooses output token number `output_idx` of the sequence. previous_row: where the step before, whose
// tokens the host does not know yet, chose this sequence's newest token; -1: the host knows all.
void append_sample_row(const SamplerState& state, int64_t output_idx, int32_t previous_row,
                       std::span<const int32_t> eos_token_ids, SampleBatch& batch);

// Appends a row that "chooses" the prompt's own next token, for its log-probabilities.
void append_prompt_row(int32_t next_token_id, int32_t num_top_logprobs, SampleBatch& batch);

// Of row `row`, with the `num_top` most likely tokens.
PositionLogprobs logprobs_of(const SampledTokens& sampled, size_t row, int32_t num_top);

}  // namespace sextant
