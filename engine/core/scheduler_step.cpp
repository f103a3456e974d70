// One step: what it holds, and what came of it. The hot loops are here: no allocation per sequence, no maps.
#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/core/scheduler.h"

namespace sextant {

std::shared_ptr<const SchedulerOutput> Scheduler::schedule() {
  CHECK_LT(num_in_flight_, static_cast<int32_t>(ring_.size())) << "more steps in flight than max_steps_in_flight";
  auto step = std::make_shared<SchedulerOutput>();
  step->step_id = last_step_id_ + 1;
  const size_t num_expected = std::min(running_.size() + queue_.size(), static_cast<size_t>(max_num_seqs_));
  step->sequences.reserve(num_expected);
  step->token_ids.reserve(num_expected);
  step->new_blocks.resize(static_cast<size_t>(manager_.num_groups()));
  for (NewBlocks& new_blocks : step->new_blocks) {
    new_blocks.offsets.reserve(num_expected + 1);
    new_blocks.offsets.push_back(0);
  }
  StepInFlight& record = step_in_flight(num_in_flight_);
  record.step_id = step->step_id;
  record.sequences.clear();

  int32_t budget = max_num_batched_tokens_;
  const uint64_t num_preemptions = num_preemptions_;
  const bool all_served = schedule_running(*step, record, budget);
  // After a shortage nobody new comes in to take what the running ones lack; unless the engine would stand
  // still.
  const bool stands_still = record.sequences.empty() && num_in_flight_ == 0;
  if (stands_still || (all_served && num_preemptions == num_preemptions_)) schedule_waiting(*step, record, budget);
  close_step(*step, record);
  return step;
}

// Every running sequence gets a token, long ones what is left of the budget: a prompt does not hold up the
// others. False when one found no block.
bool Scheduler::schedule_running(SchedulerOutput& step, StepInFlight& record, int32_t& budget) {
  bool all_served = true;
  const auto stages = static_cast<size_t>(options_.num_pipeline_stages);
  const size_t share = (running_.size() + stages - 1) / stages;
  for (size_t i = 0; i < running_.size(); ++i) {  // make_room() may shorten it behind i
    Sequence& sequence = *running_[i];
    int32_t num_tokens = sequence.num_schedulable(step.step_id, stages == 1);
    if (num_tokens == 0) continue;
    if (record.sequences.size() >= share) break;
    num_tokens = std::min(num_tokens, budget - static_cast<int32_t>(running_.size() - i - 1));
    const int32_t room = sequence.blocks.num_blocks * manager_.block_size() - sequence.num_computed;
    if (num_tokens > room) num_tokens = make_room(sequence, num_tokens);
    if (num_tokens == 0) {
      all_served = false;
      continue;
    }
    place(sequence, num_tokens, step, record);
    budget -= num_tokens;
  }
  return all_served;
}

// Strictly in order: when the first cannot come in, nobody overtakes it.
void Scheduler::schedule_waiting(SchedulerOutput& step, StepInFlight& record, int32_t& budget) {
  while (budget > 0 && !queue_.empty() && static_cast<int32_t>(running_.size()) < max_num_seqs_) {
    Sequence& sequence = queue_.front();
    const int32_t num_tokens = admit(sequence, step.step_id, budget);
    if (num_tokens == 0) return;
    place(sequence, num_tokens, step, record);
    budget -= num_tokens;
  }
}

// Moves the front of the queue into the batch when the blocks for all its tokens so far can be had (so that
// prompts do not start only to evict each other halfway). The number of tokens to compute now; 0: not yet.
int32_t Scheduler::admit(Sequence& sequence, uint64_t step_id, int32_t budget) {
  SequenceGroup& group = *sequence.group;
  if (!sequence.holds_blocks() && sequence.last_scheduled_step > last_updated_step_) return 0;
  if (sequence.num_schedulable(step_id, options_.num_pipeline_stages == 1) == 0) return 0;
  PrefixMatch match;
  int32_t num_tokens = 0;
  while (true) {
    const bool looks_up = !sequence.holds_blocks() && !group.wants_prompt_logprobs();
    if (looks_up) {
      const int32_t max_blocks = (sequence.num_known() - 1) / manager_.block_size();
      match = manager_.find_prefix(sequence.blocks, sequence.prefix_tokens(), max_blocks);
    }
    const int32_t num_computed = sequence.num_computed + match.num_blocks * manager_.block_size();
    num_tokens = sequence.num_tokens() - num_computed;
    if (num_tokens > budget) {
      // Without chunked prefill a prompt waits for a step with room for all of it. What a preempted sequence
      // computes again may exceed any step, and is split all the same.
      if (!options_.scheduler.enable_chunked_prefill && num_tokens <= max_num_batched_tokens_) return 0;
      num_tokens = budget;
    }
    const int64_t num_wanted =
        manager_.num_blocks_for(sequence.num_tokens()) - sequence.blocks.num_blocks - match.num_blocks;
    if (num_wanted <= manager_.num_free_blocks() - match.num_free) break;
    if (!deferred_.empty() || !reclaim_from_idle(sequence)) return 0;
  }
  queue_.remove(sequence);
  sequence.state = SequenceState::kRunning;
  const auto behind =
      std::upper_bound(running_.begin(), running_.end(), &sequence,
                       [](const Sequence* a, const Sequence* b) { return a->precedence < b->precedence; });
  running_.insert(behind, &sequence);
  if (match.num_blocks > 0) {
    manager_.take(sequence.blocks, match);
    sequence.num_computed = match.num_blocks * manager_.block_size();
  }
  if (!group.started) {
    group.started = true;
    --num_unstarted_requests_;
    fair_share_.on_started(group.request->tenant, group.charge.start);
    if (options_.cache.enable_prefix_caching && !group.wants_prompt_logprobs()) {
      sequence.num_cached_tokens = sequence.num_computed;
      prefix_cache_queries_ += static_cast<uint64_t>(sequence.num_prompt());
      prefix_cache_hits_ += static_cast<uint64_t>(sequence.num_computed);
    }
  }
  CHECK(manager_.allocate(sequence.blocks, int64_t{sequence.num_computed} + num_tokens));
  return num_tokens;
}

// Writes a sequence with room for num_tokens tokens into the step.
void Scheduler::place(Sequence& sequence, int32_t num_tokens, SchedulerOutput& step, StepInFlight& record) {
  if (sequence.first_scheduled_step == 0) {
    sequence.first_scheduled_step = step.step_id;
    step.new_sequences.push_back({sequence.sequence_id, sequence.choice_idx, sequence.group->request});
  }
  const int32_t begin = sequence.num_computed;
  const int32_t end = begin + num_tokens;
  const bool samples = end == sequence.num_tokens();
  const bool last_token_on_device = end > sequence.num_known();
  ScheduledSequence& scheduled = step.sequences.emplace_back();  // written in place: it is in the hot loop
  scheduled.sequence_id = sequence.sequence_id;
  scheduled.num_computed_tokens = begin;
  scheduled.num_scheduled_tokens = num_tokens;
  scheduled.token_offset = step.num_tokens();
  scheduled.num_prompt_tokens = sequence.num_prompt();
  scheduled.restarts_block_table = sequence.num_blocks_sent == 0;
  scheduled.samples = samples;
  scheduled.last_token_on_device = last_token_on_device;
  record.sequences.push_back(&sequence);

  const int32_t num_prompt = sequence.num_prompt();
  if (begin < num_prompt) {
    step.token_ids.insert(step.token_ids.end(), sequence.prompt.begin() + begin,
                          sequence.prompt.begin() + std::min(end, num_prompt));
  }
  if (last_token_on_device) {
    CHECK_EQ(num_tokens, 1);
    step.token_ids.push_back(0);
  } else if (begin >= num_prompt && num_tokens == 1) {
    step.token_ids.push_back(sequence.output[static_cast<size_t>(begin - num_prompt)]);
  } else if (end > num_prompt) {
    step.token_ids.insert(step.token_ids.end(), sequence.output.begin() + (std::max(begin, num_prompt) - num_prompt),
                          sequence.output.begin() + (end - num_prompt));
  }
  for (size_t g = 0; g < step.new_blocks.size(); ++g) {
    NewBlocks& new_blocks = step.new_blocks[g];
    if (sequence.num_blocks_sent < sequence.blocks.num_blocks) {
      const auto block_ids =
          sequence.blocks.tables[g].block_ids().subspan(static_cast<size_t>(sequence.num_blocks_sent));
      new_blocks.block_ids.insert(new_blocks.block_ids.end(), block_ids.begin(), block_ids.end());
    }
    new_blocks.offsets.push_back(static_cast<int32_t>(new_blocks.block_ids.size()));
  }
  sequence.num_blocks_sent = sequence.blocks.num_blocks;
  sequence.num_computed = end;
  sequence.last_scheduled_step = step.step_id;
  if (samples) {
    sequence.last_sampled_step = step.step_id;
    ++sequence.num_pending;
  }
  if (begin >= num_prompt) return;
  SequenceGroup& group = *sequence.group;
  if (group.leader == &sequence && end >= group.num_shared_blocks * manager_.block_size()) forking_.push_back(&group);
}

// Only now, with the step complete, may others find or share what it computes (kv_cache_manager.h).
void Scheduler::close_step(SchedulerOutput& step, StepInFlight& record) {
  step.finished_sequences.swap(finished_unsent_);
  finished_unsent_.clear();
  if (step.sequences.empty() && step.finished_sequences.empty()) {
    step.step_id = 0;
    return;
  }
  last_step_id_ = step.step_id;
  if (step.sequences.empty()) return;  // nothing comes back from it
  ++num_in_flight_;
  for (Sequence* sequence : record.sequences) publish(*sequence);
  for (SequenceGroup* group : forking_) release_siblings(*group, group->leader);
  forking_.clear();
}

void Scheduler::update(const SchedulerOutput& step, ModelOutput output) {
  CHECK_GT(num_in_flight_, 0) << "update of step " << step.step_id << " with none in flight";
  StepInFlight& record = step_in_flight(0);
  CHECK_EQ(record.step_id, step.step_id) << "steps are updated in the order they were scheduled";
  CHECK_EQ(output.step_id, step.step_id);
  CHECK_EQ(record.sequences.size(), step.sequences.size());
  CHECK_EQ(output.sequences.size(), step.sequences.size());
  ring_begin_ = (ring_begin_ + 1) % static_cast<int32_t>(ring_.size());
  --num_in_flight_;
  last_updated_step_ = step.step_id;

  events_.reserve(events_.size() + step.sequences.size());
  for (size_t i = 0; i < record.sequences.size(); ++i) {
    Sequence& sequence = *record.sequences[i];
    const ScheduledSequence& scheduled = step.sequences[i];
    SequenceOutput& sequence_output = output.sequences[i];
    CHECK_EQ(sequence_output.sequence_id, scheduled.sequence_id);
    if (!sequence.unfinished()) continue;  // ended while this step was in flight: its token is dropped
    if (!sequence_output.prompt_logprobs.empty()) take_prompt_logprobs(sequence, scheduled, sequence_output);
    if (scheduled.samples) take_token(sequence, sequence_output);
  }
  release_deferred_blocks();
  delete_ended_groups();
}

void Scheduler::take_token(Sequence& sequence, SequenceOutput& output) {
  if (output.token_ids.empty()) {
    // Nothing chosen yet (a device that holds tokens back): its last token is computed again.
    CHECK_EQ(num_in_flight_, 0) << "sequence " << sequence.sequence_id << " got no token with later steps in flight";
    --sequence.num_pending;
    --sequence.num_computed;
    return;
  }
  CHECK_EQ(output.token_ids.size(), size_t{1}) << "sequence " << sequence.sequence_id << " was to choose one token";
  const int32_t token_id = output.token_ids.front();
  sequence.output.push_back(token_id);
  --sequence.num_pending;
  const int64_t num_output = static_cast<int64_t>(sequence.output.size());

  SequenceEvent& event = emit_event(sequence);
  event.new_token_ids = std::move(output.token_ids);
  event.logprobs = std::move(output.logprobs);
  if (num_output == 1 && sequence.choice_idx == 0) event.prompt_logprobs = std::move(sequence.group->prompt_logprobs);
  if (num_output >= sequence.min_output_tokens && std::ranges::binary_search(sequence.stop_token_ids, token_id)) {
    event.stop_token_id = token_id;
    end_sequence(sequence, FinishReason::kStop, event);
  } else if (num_output >= sequence.max_output_tokens) {
    end_sequence(sequence, FinishReason::kLength, event);
  }
}

// Row p tells about prompt token p + 1. After a preemption rows come again; what is known already is passed
// over.
void Scheduler::take_prompt_logprobs(Sequence& sequence, const ScheduledSequence& scheduled, SequenceOutput& output) {
  SequenceGroup& group = *sequence.group;
  if (sequence.choice_idx != 0 || !group.wants_prompt_logprobs() || !sequence.output.empty()) return;
  for (size_t row = 0; row < output.prompt_logprobs.size(); ++row) {
    const size_t position = static_cast<size_t>(scheduled.num_computed_tokens) + row;
    if (position == group.prompt_logprobs.size())
      group.prompt_logprobs.push_back(std::move(output.prompt_logprobs[row]));
  }
}

Scheduler::StepInFlight& Scheduler::step_in_flight(int32_t idx) {
  return ring_[static_cast<size_t>((ring_begin_ + idx) % static_cast<int32_t>(ring_.size()))];
}

}  // namespace sextant
