// Sequence: one token stream of a request (one choice), where it stands and which blocks it holds; and the
// group of the n sequences of one request. Plain state with the arithmetic that belongs to it; Scheduler
// alone changes it. One thread.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/core/fair_share.h"
#include "engine/core/kv_cache_manager.h"
#include "engine/core/request.h"
#include "engine/core/scheduler_output.h"

namespace sextant {

enum class SequenceState {
  kWaitingForPrompt,  // a choice whose prompt another choice of the request computes; nowhere queued
  kWaiting,           // in the queue: added, preempted, forked or resumed
  kRunning,           // has a place in the batch
  kPaused,            // out of both until resumed
  kFinished,          // its terminal event was queued
};

// Who goes first; smaller is earlier. A total order: ids differ.
struct Precedence {
  int32_t priority = 0;       // 0 for all under fcfs
  int64_t virtual_start = 0;  // between tenants (fair_share.h)
  int64_t arrival_ns = 0;
  SequenceId sequence_id = 0;
  auto operator<=>(const Precedence&) const = default;
};

struct SequenceGroup;

// Token positions: [0, num_known()) have ids here; num_pending more were chosen by steps in flight and are
// known only on the device. [0, num_computed) have keys and values, counting scheduled steps, all of which
// run before any later one.
struct Sequence {
  SequenceId sequence_id = 0;
  RequestId request_id = 0;
  int32_t choice_idx = 0;
  SequenceState state = SequenceState::kWaiting;
  bool pause_requested = false;

  int32_t max_output_tokens = 0;  // max_tokens and max_model_len together
  int32_t num_computed = 0;
  int32_t num_pending = 0;
  int32_t num_blocks_sent = 0;  // to the worker, since it last restarted the table
  int32_t num_preemptions = 0;
  int32_t num_cached_tokens = 0;      // the request's: what its first choice to start found
  uint64_t first_scheduled_step = 0;  // step ids begin at 1; 0: none
  uint64_t last_scheduled_step = 0;
  uint64_t last_sampled_step = 0;

  std::span<const int32_t> prompt;  // the request's
  std::vector<int32_t> output;
  std::span<const int32_t> stop_token_ids;  // the group's
  int64_t min_output_tokens = 0;            // before a stop token counts

  SequenceBlocks blocks;
  Precedence precedence;
  SequenceGroup* group = nullptr;

  int32_t num_prompt() const { return static_cast<int32_t>(prompt.size()); }
  int32_t num_known() const { return num_prompt() + static_cast<int32_t>(output.size()); }
  int32_t num_tokens() const { return num_known() + num_pending; }
  bool unfinished() const { return state != SequenceState::kFinished; }
  bool holds_blocks() const { return blocks.num_blocks > 0; }
  // Every output token that it may have was chosen, if not yet reported: there is nothing left to compute.
  bool at_limit() const { return num_tokens() - num_prompt() >= max_output_tokens; }
  // Tokens that step `step_id` may compute. One chosen by a step in flight can be taken on the device, where
  // that keeps it, from the step just before only; else the sequence sits out until the host knows it.
  int32_t num_schedulable(uint64_t step_id, bool device_keeps_tokens = true) const {
    if (num_pending > 0 && (!device_keeps_tokens || at_limit() || last_sampled_step + 1 != step_id)) return 0;
    return num_tokens() - num_computed;
  }
  PrefixTokens prefix_tokens() const;
};

// The sequences of one request. They live as long as it does, so that steps in flight can point to them.
struct SequenceGroup {
  std::shared_ptr<const Request> request;
  std::vector<Sequence> sequences;  // by choice
  PrefixRoot root = {};
  std::vector<int32_t> stop_token_ids;  // sorted; eos tokens too unless ignored
  int32_t num_unfinished = 0;
  // The choice that computes the prompt for those in kWaitingForPrompt; none once they have forked it.
  Sequence* leader = nullptr;
  int32_t num_shared_blocks = 0;  // full prompt blocks that siblings take from the leader
  bool started = false;           // a sequence of it was scheduled
  FairShare::Charge charge;
  std::vector<PositionLogprobs> prompt_logprobs;  // of choice 0, until its first token

  bool wants_prompt_logprobs() const { return request->sampling.prompt_logprobs.has_value(); }
};

inline PrefixTokens Sequence::prefix_tokens() const { return {group->root, prompt, output}; }

}  // namespace sextant
