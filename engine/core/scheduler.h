// Scheduler: decides what each step computes. There is no prefill phase and no decode phase: a step gives
// every sequence some tokens from one budget, running sequences first (each at least one), then waiting ones
// in the order of the policy. One thread (the engine's). Pure: no device, text, JSON, clock or threads.
//
//   while (scheduler.has_work()) {
//     auto step = scheduler.schedule();
//     // The worker gets every step that has sequences or finished_sequences.
//     if (!step->empty()) scheduler.update(*step, output);
//     scheduler.take_events(events);
//   }
//
// Contract with the engine and the worker:
// - Steps run in the order they were scheduled, all of them (kv_cache_manager.h rests on that), and are
//   updated in that order; steps without sequences are not updated.
// - schedule() may run before the update() of up to max_steps_in_flight - 1 steps.
// - When schedule() returns a step without sequences while none is in flight, it will go on doing so until
//   add(), abort(), finish(), pause() or resume() is called: the engine can sleep.
// - A step without sequences may still carry finished_sequences, whose state the worker drops then.
//   has_work() stays true until they were handed out.
// - A sequence's first step lists it in new_sequences: that is when it was first scheduled (the core has no
//   clock).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/base/status.h"
#include "engine/config.h"
#include "engine/core/fair_share.h"
#include "engine/core/kv_cache_manager.h"
#include "engine/core/kv_cache_spec.h"
#include "engine/core/request.h"
#include "engine/core/request_queue.h"
#include "engine/core/scheduler_output.h"
#include "engine/core/sequence.h"

namespace sextant {

// What became of one choice of a request. Exactly one event per choice has a finish_reason: its last.
struct SequenceEvent {
  SequenceEvent() {}  // user-provided: else vectors of events first clear the bytes, a tenth of a step's time
  RequestId request_id = 0;
  SequenceId sequence_id = 0;
  int32_t choice_idx = 0;
  int32_t num_cached_tokens = 0;           // of the request's prompt, found in the prefix cache
  int32_t num_preemptions = 0;             // of this sequence so far
  std::vector<int32_t> new_token_ids;      // a stop token that ended the sequence is the last of them
  std::vector<PositionLogprobs> logprobs;  // one per new token, when asked for
  // Of all prompt positions but the first; comes with the first token of choice 0.
  std::vector<PositionLogprobs> prompt_logprobs;
  std::optional<FinishReason> finish_reason;
  std::optional<int32_t> stop_token_id;  // the eos or stop token that ended it, when one did
  uint64_t first_scheduled_step = 0;     // step_id of its first step; 0: never scheduled
};

struct SchedulerStats {
  int64_t num_running = 0;            // sequences that hold a place in the batch, or paused ones that hold blocks
  int64_t num_waiting = 0;            // the other unfinished ones
  int64_t num_blocks_used = 0;        // by sequences; free blocks with cached contents do not count
  int64_t num_blocks_total = 0;       // without the null block
  uint64_t prefix_cache_queries = 0;  // prompt tokens looked up; each request once
  uint64_t prefix_cache_hits = 0;     // of these, found
  uint64_t num_preemptions = 0;       // running sequences that lost their blocks
};

// A sequence of the steps in flight, as the worker was told of it.
struct SequenceSnapshot {
  SequenceId sequence_id = 0;
  int32_t choice_idx = 0;
  std::shared_ptr<const Request> request;
  std::vector<int32_t> output_token_ids;           // those that the host knows
  std::vector<std::vector<BlockId>> block_tables;  // per cache group, the steps' new blocks included
};

class Scheduler {
 public:
  struct Options {
    SchedulerConfig scheduler;
    CacheConfig cache;
    int64_t max_model_len = 0;  // prompt + output tokens of one sequence
    KvCacheSpec spec;           // block_size and groups; the core ignores shapes and dtypes
    int32_t num_blocks = 0;     // of the device's cache, with the null block 0: one less can be used
    std::vector<int32_t> eos_token_ids;
    // Of a pipeline: a step gets its share of the running sequences, so that as many steps are under way as
    // there are stages, and no token that only the last stage knows.
    int32_t num_pipeline_stages = 1;
    std::string cache_root;  // model revision, KV dtype, adapter: separates prefix caches
  };
  explicit Scheduler(Options options);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Sequence ids are given out here, n consecutive ones per request. Errors: kUnavailable when
  // max_num_queued_reqs requests wait beyond those that a place in the batch is free for, and the tenant has its share of
  // these (one that has less still comes in: at most as many again); kInvalidArgument
  // for a prompt that is empty, leaves no room for an output token within max_model_len, exceeds a step
  // without chunked prefill, or for a request that needs more blocks than there are.
  Status add(std::shared_ptr<const Request> request);

  // These ignore ids that are unknown or ended. Terminal events are queued at once; tokens still in flight
  // are dropped. Blocks return when the last step that names them was updated: with up to 2 steps in flight
  // that is before the second schedule() from here, with k before the k-th.
  void abort(RequestId request_id);
  void finish(RequestId request_id, int32_t choice_idx, FinishReason reason);
  // A paused sequence gets no tokens and gives up its place in the batch. It keeps its blocks until others
  // need them. While the choice that computes the prompt is paused, its siblings wait for it.
  void pause(RequestId request_id, int32_t choice_idx);
  void resume(RequestId request_id, int32_t choice_idx);
  // Ends every unfinished sequence, for shutdown.
  void finish_all(FinishReason reason);
  // The device failed: ends all with kError, forgets the steps in flight (they get no update()) and the
  // prefix cache.
  void fail_all();

  std::shared_ptr<const SchedulerOutput> schedule();
  // Folds a step's outcome in. `output` is consumed: its vectors end up in the events.
  void update(const SchedulerOutput& step, ModelOutput output);
  // Replaces `events` by those queued since the last call; give the same vector again and its memory is
  // reused.
  void take_events(std::vector<SequenceEvent>& events);

  // Unfinished sequences (paused ones too), steps in flight, or finished sequences that the worker was not
  // told of.
  bool has_work() const;
  int32_t num_steps_in_flight() const;
  // Each sequence of the steps in flight once, ended and preempted ones too; for the record of a failure.
  std::vector<SequenceSnapshot> sequences_in_flight() const;
  SchedulerStats stats() const;
  // Recounts every block, reference, queue and state; the first violated invariant, or ok.
  Status check_integrity() const;
  // Drops the contents of cached blocks; false (and nothing done) while sequences hold blocks.
  bool reset_prefix_cache();

 private:
  struct StepInFlight {
    uint64_t step_id = 0;
    std::vector<Sequence*> sequences;  // as in the SchedulerOutput; finished ones are kept alive for it
  };
  // Blocks that a finished or preempted sequence left while steps in flight still name them.
  struct DeferredBlocks {
    uint64_t release_step = 0;
    SequenceId sequence_id = 0;
    SequenceBlocks blocks;
  };

  // scheduler.cpp: the life of requests
  SequenceGroup* find_group(RequestId request_id);
  Sequence* find_unfinished(RequestId request_id, int32_t choice_idx);
  void release_siblings(SequenceGroup& group, const Sequence* forked_from);
  void choose_leader(SequenceGroup& group);
  void enqueue(Sequence& sequence);
  void take_out(Sequence& sequence);
  void end_sequence(Sequence& sequence, FinishReason reason, SequenceEvent& event);
  void delete_ended_groups();
  SequenceEvent& emit_event(const Sequence& sequence);

  // scheduler_blocks.cpp: who has blocks, and who must give them up
  int32_t make_room(Sequence& sequence, int32_t num_tokens);
  bool reclaim_from_idle(const Sequence& before);
  void preempt(Sequence& sequence);
  void release_blocks(Sequence& sequence);
  void release_deferred_blocks();
  void publish(Sequence& sequence);

  // scheduler_step.cpp: one step
  bool schedule_running(SchedulerOutput& step, StepInFlight& record, int32_t& budget);
  void schedule_waiting(SchedulerOutput& step, StepInFlight& record, int32_t& budget);
  int32_t admit(Sequence& sequence, uint64_t step_id, int32_t budget);
  void place(Sequence& sequence, int32_t num_tokens, SchedulerOutput& step, StepInFlight& record);
  void close_step(SchedulerOutput& step, StepInFlight& record);
  void take_token(Sequence& sequence, SequenceOutput& output);
  void take_prompt_logprobs(Sequence& sequence, const ScheduledSequence& scheduled, SequenceOutput& output);
  StepInFlight& step_in_flight(int32_t idx);

  Options options_;
  int32_t max_num_seqs_;
  int32_t max_num_batched_tokens_;
  bool by_priority_;
  KvCacheManager manager_;

  std::unordered_map<RequestId, std::unique_ptr<SequenceGroup>> groups_;  // with unfinished sequences
  std::vector<std::unique_ptr<SequenceGroup>> ended_groups_;              // that steps in flight may point to
  RequestQueue queue_;
  FairShare fair_share_;
  std::vector<Sequence*> running_;  // by precedence
  std::vector<Sequence*> paused_;
  std::vector<DeferredBlocks> deferred_;
  std::vector<SequenceId> finished_unsent_;  // the worker knows them and was not told that they ended
  std::vector<SequenceGroup*> forking_;      // in schedule(): whose shared blocks this step completes
  std::vector<SequenceEvent> events_;

  std::vector<StepInFlight> ring_;  // max_steps_in_flight
  int32_t ring_begin_ = 0;
  int32_t num_in_flight_ = 0;
  uint64_t last_step_id_ = 0;
  uint64_t last_updated_step_ = 0;

  SequenceId next_sequence_id_ = 1;
  int64_t num_unfinished_ = 0;
  int64_t num_unstarted_requests_ = 0;  // no sequence of theirs was scheduled yet
  uint64_t prefix_cache_queries_ = 0;
  uint64_t prefix_cache_hits_ = 0;
  uint64_t num_preemptions_ = 0;
};

}  // namespace sextant
