// SchedulerOutput: one step's decision as plain data, and ModelOutput: what came of it. Immutable once made; counted per
// step, so that several steps may be in flight. A worker keeps the state of each sequence (block tables, sampler state)
// between steps and learns of changes only from here: the same data can be sent to other processes.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "engine/core/request.h"

namespace sextant {

// A sequence that the worker has not seen before.
struct NewSequence {
  SequenceId sequence_id = 0;
  int32_t choice_idx = 0;  // with the request's seed, the key of its random stream
  std::shared_ptr<const Request> request;
};

// One sequence's share of a step: tokens [num_computed_tokens, num_computed_tokens + num_scheduled_tokens) of it.
struct ScheduledSequence {
  SequenceId sequence_id = 0;
  int32_t num_computed_tokens = 0;   // tokens whose K and V are in the cache before this step
  int32_t num_scheduled_tokens = 0;  // >= 1
  int32_t token_offset = 0;          // its ids begin here in SchedulerOutput::token_ids
  int32_t num_prompt_tokens = 0;
  bool restarts_block_table = false;  // the worker forgets its block table first (new, or preempted and back)
  bool samples = false;               // the last row's logits choose the next token
  bool last_token_on_device = false;  // the last id is the one that the step before chose; token_ids holds 0 there
};

// Newly allocated blocks of one cache group: sequence i of the step appends block_ids[offsets[i] .. offsets[i+1]).
struct NewBlocks {
  std::vector<BlockId> block_ids;
  std::vector<int32_t> offsets;  // num_sequences + 1
};

struct SchedulerOutput {
  uint64_t step_id = 0;  // counts up by one
  std::vector<NewSequence> new_sequences;
  std::vector<ScheduledSequence> sequences;
  std::vector<int32_t> token_ids;              // flat, of all sequences
  std::vector<NewBlocks> new_blocks;           // one per cache group
  std::vector<SequenceId> finished_sequences;  // the worker drops their state before this step
  int32_t num_tokens() const { return static_cast<int32_t>(token_ids.size()); }
  bool empty() const { return sequences.empty(); }
};

struct TokenLogprob {
  int32_t token_id = 0;
  float logprob = 0.0f;
};

// Log-probabilities at one position, of the model's own distribution (before temperature and penalties).
struct PositionLogprobs {
  TokenLogprob chosen;            // the sampled token, or the prompt's next one
  int32_t rank = 0;               // of the chosen token, 1 is the most likely
  std::vector<TokenLogprob> top;  // most likely first; ties: lower id first
};

struct SequenceOutput {
  SequenceId sequence_id = 0;
  std::vector<int32_t> token_ids;                 // 0..k+1 new tokens; 0 of a sequence that samples: scheduled again
  std::vector<PositionLogprobs> logprobs;         // one per new token, when asked for
  std::vector<PositionLogprobs> prompt_logprobs;  // one per prompt row of this step that has a next prompt token
};

// In the order of SchedulerOutput::sequences.
struct ModelOutput {
  uint64_t step_id = 0;
  std::vector<SequenceOutput> sequences;
};

}  // namespace sextant
