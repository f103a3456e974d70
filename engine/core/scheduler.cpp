// The life of requests: added, queued, paused, ended. What a step holds is scheduler_step.cpp.
#include "engine/core/scheduler.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "engine/base/check.h"

namespace sextant {
namespace {

int32_t narrow(int64_t value) {
  CHECK(value >= 0 && value <= std::numeric_limits<int32_t>::max()) << value;
  return static_cast<int32_t>(value);
}

bool earlier(const Sequence* a, const Sequence* b) { return a->precedence < b->precedence; }

}  // namespace

Scheduler::Scheduler(Options options)
    : options_(std::move(options)),
      max_num_seqs_(narrow(options_.scheduler.max_num_seqs)),
      max_num_batched_tokens_(narrow(options_.scheduler.max_num_batched_tokens)),
      by_priority_(options_.scheduler.scheduling_policy == "priority"),
      manager_({options_.spec, options_.num_blocks, options_.cache.enable_prefix_caching}),
      ring_(static_cast<size_t>(options_.scheduler.max_steps_in_flight)) {
  CHECK_GE(max_num_seqs_, 1);
  CHECK_GE(max_num_batched_tokens_, max_num_seqs_) << "a step must hold a token of every running sequence";
  CHECK_GE(options_.max_model_len, 2);
  CHECK(!ring_.empty());
  running_.reserve(static_cast<size_t>(max_num_seqs_));
}

Scheduler::~Scheduler() = default;

Status Scheduler::add(std::shared_ptr<const Request> request) {
  const SamplingParams& sampling = request->sampling;
  const int64_t num_prompt = static_cast<int64_t>(request->prompt_token_ids.size());
  if (num_prompt == 0) return invalid_argument("the prompt is empty; it needs at least one token", "prompt");
  if (num_prompt >= options_.max_model_len) {
    return invalid_argument("the prompt has " + std::to_string(num_prompt) +
                                " tokens, which leaves no room for output in a context of " +
                                std::to_string(options_.max_model_len),
                            "prompt", "context_length_exceeded");
  }
  if (!options_.scheduler.enable_chunked_prefill && num_prompt > max_num_batched_tokens_) {
    return invalid_argument("the prompt has " + std::to_string(num_prompt) +
                                " tokens; without chunked prefill at most " + std::to_string(max_num_batched_tokens_) +
                                " (max_num_batched_tokens) can be computed",
                            "prompt");
  }
  if (sampling.n < 1 || sampling.n > SamplingParams::kMaxN || sampling.max_tokens < 1) {
    return invalid_argument(
        "n must be from 1 to " + std::to_string(SamplingParams::kMaxN) + " and max_tokens at least 1", "n");
  }
  // The last token chosen is reported but needs no keys and values.
  const int64_t max_output = std::min(sampling.max_tokens, options_.max_model_len - num_prompt);
  const int64_t num_blocks = manager_.num_blocks_for(num_prompt + max_output - 1);
  if (num_blocks > manager_.num_total_blocks()) {
    return invalid_argument("the request needs up to " + std::to_string(num_blocks) + " KV cache blocks (" +
                                std::to_string(num_prompt) + " prompt and " + std::to_string(max_output) +
                                " output tokens); the whole cache has " + std::to_string(manager_.num_total_blocks()) +
                                ". Ask for fewer tokens, or give the server more kv_cache_memory_bytes",
                            "max_tokens");
  }
  const int64_t num_places = std::max<int64_t>(0, max_num_seqs_ - static_cast<int64_t>(running_.size()));
  const int64_t max_unstarted = options_.scheduler.max_num_queued_reqs + num_places;
  const int64_t of_tenant = fair_share_.num_waiting(request->tenant);
  const int64_t num_tenants = fair_share_.num_tenants() + (of_tenant == 0 ? 1 : 0);
  if (num_unstarted_requests_ >= max_unstarted && (num_tenants <= 1 || of_tenant >= max_unstarted / num_tenants)) {
    return unavailable("the queue is full: " + std::to_string(num_unstarted_requests_) +
                       " requests wait (max_num_queued_reqs is " +
                       std::to_string(options_.scheduler.max_num_queued_reqs) + "); try again later");
  }

  auto owned = std::make_unique<SequenceGroup>();
  SequenceGroup& group = *owned;
  CHECK(groups_.emplace(request->request_id, std::move(owned)).second)
      << "request id " << request->request_id << " is in use";
  group.request = std::move(request);
  if (options_.cache.enable_prefix_caching) {
    const std::string parts[] = {options_.cache_root, group.request->cache_salt, group.request->tenant};
    group.root = make_prefix_root(parts);
  }
  group.stop_token_ids = sampling.stop_token_ids;
  if (!sampling.ignore_eos) {
    group.stop_token_ids.insert(group.stop_token_ids.end(), options_.eos_token_ids.begin(),
                                options_.eos_token_ids.end());
  }
  std::ranges::sort(group.stop_token_ids);
  group.num_shared_blocks = narrow((num_prompt - 1) / manager_.block_size());
  group.num_unfinished = sampling.n;
  group.charge = fair_share_.add(group.request->tenant, num_prompt, max_output, sampling.n);
  group.sequences.resize(static_cast<size_t>(sampling.n));
  for (int32_t i = 0; i < sampling.n; ++i) {
    Sequence& sequence = group.sequences[static_cast<size_t>(i)];
    sequence.sequence_id = next_sequence_id_++;
    sequence.request_id = group.request->request_id;
    sequence.choice_idx = i;
    sequence.precedence = {by_priority_ ? group.request->priority : 0, group.charge.start, group.request->arrival_ns,
                           sequence.sequence_id};
    sequence.group = &group;
    sequence.prompt = group.request->prompt_token_ids;
    sequence.max_output_tokens = narrow(max_output);
    sequence.min_output_tokens = sampling.min_tokens;
    sequence.stop_token_ids = group.stop_token_ids;
    sequence.blocks = manager_.make_sequence_blocks();
    sequence.state = SequenceState::kWaitingForPrompt;
  }
  num_unfinished_ += sampling.n;
  ++num_unstarted_requests_;
  choose_leader(group);
  return ok_status();
}

void Scheduler::abort(RequestId request_id) {
  SequenceGroup* group = find_group(request_id);
  if (group == nullptr) return;
  // From the last choice, so that none is made leader only to be ended next.
  for (auto sequence = group->sequences.rbegin(); sequence != group->sequences.rend(); ++sequence) {
    if (sequence->unfinished()) end_sequence(*sequence, FinishReason::kAbort, emit_event(*sequence));
  }
  delete_ended_groups();
}

void Scheduler::finish(RequestId request_id, int32_t choice_idx, FinishReason reason) {
  Sequence* sequence = find_unfinished(request_id, choice_idx);
  if (sequence == nullptr) return;
  end_sequence(*sequence, reason, emit_event(*sequence));
  delete_ended_groups();
}

void Scheduler::finish_all(FinishReason reason) {
  std::vector<SequenceGroup*> groups;
  for (const auto& [request_id, group] : groups_) groups.push_back(group.get());
  std::ranges::sort(groups, {}, [](const SequenceGroup* group) { return group->sequences.front().sequence_id; });
  for (SequenceGroup* group : groups) {
    for (auto sequence = group->sequences.rbegin(); sequence != group->sequences.rend(); ++sequence) {
      if (sequence->unfinished()) end_sequence(*sequence, reason, emit_event(*sequence));
    }
  }
  delete_ended_groups();
}

void Scheduler::fail_all() {
  num_in_flight_ = 0;
  last_updated_step_ = last_step_id_;
  release_deferred_blocks();
  finish_all(FinishReason::kError);
  manager_.reset_prefix_cache();
}

void Scheduler::pause(RequestId request_id, int32_t choice_idx) {
  Sequence* sequence = find_unfinished(request_id, choice_idx);
  if (sequence == nullptr || sequence->pause_requested) return;
  sequence->pause_requested = true;
  if (sequence->state == SequenceState::kWaitingForPrompt) return;  // enqueue() will see it
  take_out(*sequence);
  enqueue(*sequence);
}

void Scheduler::resume(RequestId request_id, int32_t choice_idx) {
  Sequence* sequence = find_unfinished(request_id, choice_idx);
  if (sequence == nullptr || !sequence->pause_requested) return;
  sequence->pause_requested = false;
  if (sequence->state == SequenceState::kWaitingForPrompt) return;
  take_out(*sequence);
  enqueue(*sequence);
}

bool Scheduler::has_work() const { return num_unfinished_ > 0 || num_in_flight_ > 0 || !finished_unsent_.empty(); }

int32_t Scheduler::num_steps_in_flight() const { return num_in_flight_; }

void Scheduler::take_events(std::vector<SequenceEvent>& events) {
  events.clear();
  std::swap(events, events_);
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats;
  stats.num_running = static_cast<int64_t>(running_.size()) +
                      std::ranges::count_if(paused_, [](const Sequence* sequence) { return sequence->holds_blocks(); });
  stats.num_waiting = num_unfinished_ - stats.num_running;
  stats.num_blocks_total = manager_.num_total_blocks();
  stats.num_blocks_used = stats.num_blocks_total - manager_.num_free_blocks();
  stats.prefix_cache_queries = prefix_cache_queries_;
  stats.prefix_cache_hits = prefix_cache_hits_;
  stats.num_preemptions = num_preemptions_;
  return stats;
}

bool Scheduler::reset_prefix_cache() {
  if (stats().num_blocks_used > 0) return false;
  manager_.reset_prefix_cache();
  return true;
}

SequenceGroup* Scheduler::find_group(RequestId request_id) {
  const auto it = groups_.find(request_id);
  return it == groups_.end() ? nullptr : it->second.get();
}

Sequence* Scheduler::find_unfinished(RequestId request_id, int32_t choice_idx) {
  SequenceGroup* group = find_group(request_id);
  if (group == nullptr || choice_idx < 0 || choice_idx >= static_cast<int32_t>(group->sequences.size())) return nullptr;
  Sequence& sequence = group->sequences[static_cast<size_t>(choice_idx)];
  return sequence.unfinished() ? &sequence : nullptr;
}

// The first choice whose prompt nobody computes goes ahead; with nothing to share, all do.
void Scheduler::choose_leader(SequenceGroup& group) {
  group.leader = nullptr;
  for (Sequence& sequence : group.sequences) {
    if (sequence.state != SequenceState::kWaitingForPrompt) continue;
    enqueue(sequence);
    if (group.num_shared_blocks == 0) continue;
    group.leader = &sequence;
    return;
  }
}

// The leader's prompt is scheduled as far as siblings share it: they take those blocks by reference and queue
// up.
void Scheduler::release_siblings(SequenceGroup& group, const Sequence* forked_from) {
  group.leader = nullptr;
  for (Sequence& sequence : group.sequences) {
    if (sequence.state != SequenceState::kWaitingForPrompt) continue;
    manager_.fork(forked_from->blocks, group.num_shared_blocks, sequence.blocks);
    sequence.num_computed = group.num_shared_blocks * manager_.block_size();
    sequence.num_cached_tokens = forked_from->num_cached_tokens;
    enqueue(sequence);
  }
}

// Into the queue, or aside while it is paused.
void Scheduler::enqueue(Sequence& sequence) {
  if (sequence.pause_requested) {
    sequence.state = SequenceState::kPaused;
    paused_.push_back(&sequence);
  } else {
    sequence.state = SequenceState::kWaiting;
    queue_.push(sequence);
  }
}

// Out of whichever list its state puts it in.
void Scheduler::take_out(Sequence& sequence) {
  switch (sequence.state) {
    case SequenceState::kWaiting: queue_.remove(sequence); return;
    case SequenceState::kRunning: {
      const auto it = std::lower_bound(running_.begin(), running_.end(), &sequence, earlier);
      CHECK(it != running_.end() && *it == &sequence) << "sequence " << sequence.sequence_id << " is not running";
      running_.erase(it);
      return;
    }
    case SequenceState::kPaused: CHECK_EQ(std::erase(paused_, &sequence), size_t{1}); return;
    case SequenceState::kWaitingForPrompt:
    case SequenceState::kFinished: return;
  }
}

// `event` is its last, queued already: it gets the reason, the rest is the caller's.
void Scheduler::end_sequence(Sequence& sequence, FinishReason reason, SequenceEvent& event) {
  SequenceGroup& group = *sequence.group;
  publish(sequence);
  take_out(sequence);
  release_blocks(sequence);
  sequence.state = SequenceState::kFinished;
  if (sequence.first_scheduled_step != 0) finished_unsent_.push_back(sequence.sequence_id);
  event.finish_reason = reason;
  --num_unfinished_;
  --group.num_unfinished;
  if (group.leader == &sequence) choose_leader(group);
  if (group.num_unfinished > 0) return;
  if (!group.started) --num_unstarted_requests_;
  int64_t num_output = 0;
  for (const Sequence& one : group.sequences) num_output += static_cast<int64_t>(one.output.size());
  fair_share_.on_ended(group.request->tenant, group.charge, group.started, num_output, group.request->sampling.n);
  if (num_unfinished_ == 0) fair_share_.reset();
  const auto it = groups_.find(sequence.request_id);
  ended_groups_.push_back(std::move(it->second));
  groups_.erase(it);
}

// Steps in flight hold pointers to sequences, finished or not.
void Scheduler::delete_ended_groups() {
  std::erase_if(ended_groups_, [this](const std::unique_ptr<SequenceGroup>& group) {
    return std::ranges::all_of(group->sequences, [this](const Sequence& sequence) {
      return sequence.last_scheduled_step <= last_updated_step_;
    });
  });
}

SequenceEvent& Scheduler::emit_event(const Sequence& sequence) {
  SequenceEvent& event = events_.emplace_back();
  event.request_id = sequence.request_id;
  event.sequence_id = sequence.sequence_id;
  event.choice_idx = sequence.choice_idx;
  event.num_cached_tokens = sequence.num_cached_tokens;
  event.num_preemptions = sequence.num_preemptions;
  event.first_scheduled_step = sequence.first_scheduled_step;
  return event;
}

}  // namespace sextant
