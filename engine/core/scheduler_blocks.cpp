// Who holds blocks, and who gives them up when they run out.
//
// No livelock: blocks go to the running sequence of highest precedence first, and it can take those of every
// other one. When it finds none, they are on their way from steps in flight, and nobody behind it gets any in
// between. A request that would not fit alone was refused by add().
#include <algorithm>
#include <unordered_set>
#include <utility>

#include "engine/base/check.h"
#include "engine/core/scheduler.h"

namespace sextant {

// Blocks for up to num_tokens more tokens of a running sequence, preempting others as needed; how many it got
// room for. 0: it must wait for steps in flight, or was preempted itself.
int32_t Scheduler::make_room(Sequence& sequence, int32_t num_tokens) {
  while (true) {
    const int64_t capacity = (int64_t{sequence.blocks.num_blocks} + manager_.num_free_blocks()) * manager_.block_size();
    const int32_t fit = static_cast<int32_t>(std::min<int64_t>(num_tokens, capacity - sequence.num_computed));
    if (fit > 0) {
      CHECK(manager_.allocate(sequence.blocks, int64_t{sequence.num_computed} + fit));
      return fit;
    }
    if (!deferred_.empty()) return 0;
    if (reclaim_from_idle(sequence)) continue;
    // Those before `sequence` in running_ are in this step already; the last is `sequence` itself or behind
    // it.
    preempt(*running_.back());
    if (sequence.state != SequenceState::kRunning) return 0;
  }
}

// Takes the blocks of one sequence that has no place in the batch: a paused one of any precedence (its client
// does not read), else the last of those that wait behind `before`. False when there is none.
bool Scheduler::reclaim_from_idle(const Sequence& before) {
  Sequence* victim = nullptr;
  for (Sequence* sequence : paused_) {
    if (sequence->holds_blocks() && (victim == nullptr || victim->precedence < sequence->precedence)) victim = sequence;
  }
  if (victim == nullptr) {
    victim = queue_.last_holder();
    if (victim == nullptr || !(before.precedence < victim->precedence)) return false;
  }
  preempt(*victim);
  return true;
}

// It will compute everything again, except what the prefix cache still has by then.
void Scheduler::preempt(Sequence& sequence) {
  if (sequence.first_scheduled_step != 0) {  // a sibling that was only forked loses nothing of its own
    ++sequence.num_preemptions;
    ++num_preemptions_;
  }
  publish(sequence);
  release_blocks(sequence);
  sequence.num_computed = 0;
  sequence.num_blocks_sent = 0;
  if (sequence.state != SequenceState::kRunning) return;
  take_out(sequence);
  enqueue(sequence);
}

void Scheduler::release_blocks(Sequence& sequence) {
  if (!sequence.holds_blocks()) return;
  if (sequence.last_scheduled_step > last_updated_step_) {
    deferred_.push_back({sequence.last_scheduled_step, sequence.sequence_id, manager_.detach(sequence.blocks)});
  } else {
    manager_.free(sequence.blocks);
  }
}

void Scheduler::release_deferred_blocks() {
  std::erase_if(deferred_, [this](DeferredBlocks& deferred) {
    if (deferred.release_step > last_updated_step_) return false;
    manager_.free(deferred.blocks);
    return true;
  });
}

std::vector<SequenceSnapshot> Scheduler::sequences_in_flight() const {
  std::vector<SequenceSnapshot> snapshots;
  std::unordered_set<const Sequence*> seen;
  for (int32_t i = 0; i < num_in_flight_; ++i) {
    const auto slot = static_cast<size_t>(ring_begin_ + i) % ring_.size();
    for (const Sequence* sequence : ring_[slot].sequences) {
      if (!seen.insert(sequence).second) continue;
      // One that ended or was preempted since has left its blocks to those steps.
      const SequenceBlocks* blocks = &sequence->blocks;
      for (const DeferredBlocks& deferred : deferred_) {
        if (deferred.sequence_id == sequence->sequence_id) blocks = &deferred.blocks;
      }
      SequenceSnapshot& snapshot = snapshots.emplace_back();
      snapshot.sequence_id = sequence->sequence_id;
      snapshot.choice_idx = sequence->choice_idx;
      snapshot.request = sequence->group->request;
      snapshot.output_token_ids = sequence->output;
      for (const BlockTable& table : blocks->tables) {
        snapshot.block_tables.emplace_back(table.block_ids().begin(), table.block_ids().end());
      }
    }
  }
  return snapshots;
}

void Scheduler::publish(Sequence& sequence) {
  const int32_t num_tokens = std::min(sequence.num_computed, sequence.num_known());
  if (num_tokens < (sequence.blocks.num_published + 1) * manager_.block_size()) return;
  manager_.publish(sequence.blocks, sequence.prefix_tokens(), num_tokens / manager_.block_size());
}

}  // namespace sextant
