// Scheduler::check_integrity: recounts from the sequences what the lists, counters and the block pool claim.
#include <algorithm>
#include <string>

#include "engine/core/scheduler.h"

namespace sextant {
namespace {

Status violated(const Sequence& sequence, const std::string& what) {
  return internal_error("sequence " + std::to_string(sequence.sequence_id) + " " + what);
}

}  // namespace

Status Scheduler::check_integrity() const {
  std::vector<const SequenceBlocks*> holders;
  int64_t num_unfinished = 0;
  int64_t num_unstarted = 0;
  size_t num_queued = 0;
  size_t num_paused = 0;
  size_t num_running = 0;
  for (const auto& [request_id, group] : groups_) {
    if (!group->started) ++num_unstarted;
    int32_t num_unfinished_in_group = 0;
    for (const Sequence& sequence : group->sequences) {
      if (!sequence.unfinished()) {
        if (sequence.holds_blocks()) return violated(sequence, "is finished and holds blocks");
        continue;
      }
      ++num_unfinished_in_group;
      holders.push_back(&sequence.blocks);
      const bool queued = sequence.state == SequenceState::kWaiting;
      const bool paused = sequence.state == SequenceState::kPaused;
      const bool running = sequence.state == SequenceState::kRunning;
      num_queued += queued;
      num_paused += paused;
      num_running += running;
      if (queue_.contains(sequence) != queued) return violated(sequence, "and the queue disagree");
      if ((std::ranges::count(paused_, &sequence) == 1) != paused)
        return violated(sequence, "and the paused ones disagree");
      if ((std::ranges::count(running_, &sequence) == 1) != running)
        return violated(sequence, "and the running ones disagree");
      if (paused != (sequence.pause_requested && sequence.state != SequenceState::kWaitingForPrompt)) {
        return violated(sequence, "is not in the state that pause() or resume() asked for");
      }
      if (sequence.state == SequenceState::kWaitingForPrompt && (group->leader == nullptr || sequence.holds_blocks())) {
        return violated(sequence, "waits for a prompt that nobody computes");
      }
      if (running && !sequence.holds_blocks()) return violated(sequence, "runs without blocks");
      if (sequence.num_computed > sequence.blocks.num_blocks * manager_.block_size()) {
        return violated(sequence, "has " + std::to_string(sequence.num_computed) + " computed tokens in " +
                                      std::to_string(sequence.blocks.num_blocks) + " blocks");
      }
      if (sequence.num_computed > sequence.num_tokens() || sequence.num_pending < 0 ||
          (sequence.num_pending > 0 && sequence.last_sampled_step <= last_updated_step_) ||
          static_cast<int32_t>(sequence.output.size()) + sequence.num_pending > sequence.max_output_tokens) {
        return violated(sequence, "counts " + std::to_string(sequence.num_known()) + " known, " +
                                      std::to_string(sequence.num_pending) + " pending, " +
                                      std::to_string(sequence.num_computed) + " computed tokens");
      }
      if (sequence.num_blocks_sent > sequence.blocks.num_blocks)
        return violated(sequence, "sent blocks it does not hold");
    }
    if (num_unfinished_in_group == 0 || num_unfinished_in_group != group->num_unfinished) {
      return internal_error("request " + std::to_string(request_id) + " counts its unfinished choices wrongly");
    }
    num_unfinished += num_unfinished_in_group;
  }
  for (const DeferredBlocks& deferred : deferred_) {
    holders.push_back(&deferred.blocks);
    if (deferred.release_step <= last_updated_step_)
      return internal_error("blocks were not returned after their last step");
  }
  if (queue_.size() != num_queued || paused_.size() != num_paused || running_.size() != num_running) {
    return internal_error("a list holds sequences that have ended");
  }
  if (!std::ranges::is_sorted(running_, {}, [](const Sequence* sequence) { return sequence->precedence; })) {
    return internal_error("running sequences are out of order");
  }
  if (static_cast<int64_t>(running_.size()) > max_num_seqs_)
    return internal_error("more than max_num_seqs are running");
  if (num_unfinished != num_unfinished_ || num_unstarted != num_unstarted_requests_) {
    return internal_error("unfinished or unstarted requests are counted wrongly");
  }
  if (num_in_flight_ == 0 && (!deferred_.empty() || !ended_groups_.empty())) {
    return internal_error("something is kept for steps in flight, and there is none");
  }
  return manager_.check_integrity(holders);
}

}  // namespace sextant
