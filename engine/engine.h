// Engine: the public face. Token ids in, token ids out; it owns the engine thread, which alone touches the scheduler and
// the worker. Every accepted request ends in exactly one terminal event per choice, whatever happens to the client, the
// device or the process.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/clock.h"
#include "engine/base/result.h"
#include "engine/config.h"
#include "engine/core/request.h"
#include "engine/core/scheduler_output.h"
#include "engine/device/communicator.h"
#include "engine/device/device_reading.h"
#include "engine/group/rank_progress.h"

namespace sextant {

// What one step (or an abort) made of one choice of a request.
struct OutputEvent {
  RequestId request_id = 0;
  SequenceId sequence_id = 0;
  int32_t choice_idx = 0;
  std::vector<int32_t> token_ids;          // new ones; a stop token that ended the sequence is the last of them
  std::vector<PositionLogprobs> logprobs;  // one per new token, when asked for
  std::vector<PositionLogprobs>
      prompt_logprobs;                        // all prompt positions but the first, with the first event of choice 0
  std::optional<FinishReason> finish_reason;  // set in exactly one event per choice, its last
  std::optional<int32_t> stop_token_id;       // the stop token that ended it, when one did
  std::string error;                          // with kError: what failed
  int32_t num_cached_tokens = 0;              // prompt tokens found in the prefix cache (first event)
  // Engine clock (Engine::clock), nanoseconds. Zero when it has not happened.
  int64_t queued_ns = 0;           // accepted by submit()
  int64_t first_scheduled_ns = 0;  // first step that held it was scheduled
  int64_t step_end_ns = 0;         // the step that made this event ended
  int32_t num_preemptions = 0;     // of this sequence so far
};

// Where events go. deliver() is called on the engine thread once per step with all events of this sink's requests; it
// must not block and must not call back into the engine (post to an executor).
class OutputSink {
 public:
  virtual ~OutputSink() = default;
  virtual void deliver(std::vector<OutputEvent> events) = 0;
};

// Facts fixed after loading.
struct EngineInfo {
  std::string model_path;
  std::string architecture;    // "LlamaForCausalLM"
  std::string weight_type;     // of most weight bytes: "Q4_1", "BF16"
  std::string device;          // "cpu (avx512, 2 threads)"
  std::string kv_cache_dtype;  // "bfloat16"
  int32_t vocab_size = 0;
  int64_t max_model_len = 0;
  int32_t block_size = 0;
  int32_t num_blocks = 0;  // usable ones, without the null block
  int32_t tensor_parallel_size = 1;
  int32_t pipeline_parallel_size = 1;
  int32_t num_nodes = 1;
  int64_t num_parameters = 0;
  int64_t weight_bytes = 0;
  int64_t kv_cache_bytes = 0;
  int64_t workspace_bytes = 0;
  std::vector<int32_t> eos_token_ids;
  std::string memory_plan;  // for people, several lines
  double load_s = 0;        // weights read and repacked
};

// A moment's state and totals since start; taken from any thread.
struct EngineStats {
  int64_t num_requests_running = 0;  // sequences that hold blocks
  int64_t num_requests_waiting = 0;
  int64_t num_blocks_used = 0;        // by sequences; cached-free blocks do not count
  double kv_cache_usage = 0;          // 0..1
  uint64_t prefix_cache_queries = 0;  // tokens
  uint64_t prefix_cache_hits = 0;     // tokens
  uint64_t num_preemptions = 0;
  uint64_t prompt_tokens = 0;  // computed or found in the cache, once per request
  uint64_t generation_tokens = 0;
  uint64_t num_steps = 0;
  double step_busy_s = 0;          // time inside model execution
  double schedule_s = 0;           // time inside schedule() and update()
  double device_busy_s = 0;        // by the device's own clock; 0 where it has none
  CollectiveCounters collectives;  // of all ranks together
  uint64_t queue_rejections = 0;
  bool healthy = true;  // false after a device error
};

// Called on the engine thread after each step: for histograms that need every step.
struct StepInfo {
  int32_t num_tokens = 0;
  int32_t num_sequences = 0;
  double schedule_s = 0;
  double execute_s = 0;
};

class Engine {
 public:
  struct Options {
    EngineConfig config;                           // validated
    std::vector<int32_t> eos_token_ids;            // the tokenizer's; added to what the model files state
    std::string version = {};                      // the program's: equal on all nodes of a group
    std::function<void(const StepInfo&)> on_step;  // may be empty
    std::function<void(const std::string& plan)> on_memory_plan;  // before weights are read; may be empty
  };
  // Loads the model (blocking) and starts the engine thread.
  static Result<std::unique_ptr<Engine>> create(Options options);

  // Aborts what is left, joins. After a device failure that may wait for a driver that never answers: a process that must
  // end then ends without it.
  virtual ~Engine() = default;

  virtual const EngineInfo& info() const = 0;
  virtual const Clock& clock() const = 0;

  // Any thread. `request.request_id` must be 0; the id given is returned. Errors: kInvalidArgument (empty prompt, ids outside
  // the vocabulary, prompt + max_tokens over max_model_len, more KV than the whole cache), kUnavailable (queue full,
  // draining, or not healthy). After an ok result `sink` gets events until each of n choices had its finish_reason.
  virtual Result<RequestId> submit(Request request, std::shared_ptr<OutputSink> sink) = 0;
  // Any thread; unknown or ended ids are ignored. Takes effect before the next schedule().
  virtual void abort(RequestId request_id) = 0;
  virtual void finish(RequestId request_id, int32_t choice_idx, FinishReason reason) = 0;
  // A paused choice keeps its blocks but gets no tokens (a client that does not read).
  virtual void pause(RequestId request_id, int32_t choice_idx) = 0;
  virtual void resume(RequestId request_id, int32_t choice_idx) = 0;

  virtual EngineStats stats() const = 0;
  // What the GPU that the engine runs on says about itself; empty on other devices and where nothing can be read. At most
  // a second or so old; waits a tenth of a second at most.
  virtual std::vector<DeviceReading> device_readings() const { return {}; }
  // How each rank of a group does; empty without one.
  virtual std::vector<RankReading> rank_readings() const { return {}; }
  // No new requests (kUnavailable) from here on; running ones go on. True once nothing is left or false at the time-out.
  virtual void begin_drain() = 0;
  virtual bool wait_drained(double timeout_s) = 0;
  // Recounts every block on the engine thread; the first violated invariant, or ok. For tests and /health checks.
  virtual Status check_integrity() = 0;
  // Drops all cached-free blocks' contents (vLLM's /reset_prefix_cache); false while sequences run.
  virtual bool reset_prefix_cache() = 0;
};

// The process of a node above 0: no requests come here; the leader's engine schedules for all.
class GroupFollower {
 public:
  // Joins the group and loads its ranks (blocking). kInvalidArgument when the leader refuses it, with both values.
  static Result<std::unique_ptr<GroupFollower>> create(Engine::Options options);
  virtual ~GroupFollower() = default;

  virtual const EngineInfo& info() const = 0;
  // Carries out the leader's steps until it has ended (ok) or the group has failed (who is missing, or what failed).
  virtual Status follow() = 0;
  // Any thread: ends follow(). The leader, which cannot serve without this node, ends too.
  virtual void leave(const std::string& why) = 0;
  virtual Status status() const = 0;
  virtual std::vector<RankReading> rank_readings() const = 0;
};

}  // namespace sextant
