// EngineThread: the running engine. Other threads put commands into a queue; the engine's thread alone touches the
// scheduler and the worker, so neither needs a lock. Events leave once per step and sink.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/core/scheduler.h"
#include "engine/engine.h"
#include "engine/exec/worker.h"

namespace sextant {

class EngineThread final : public Engine {
 public:
  struct Parts {
    EngineInfo info;
    SchedulerConfig config;            // the limits that submit() checks
    std::unique_ptr<Backend> backend;  // outlives the worker
    std::unique_ptr<Worker> worker;
    std::unique_ptr<Scheduler> scheduler;  // without a queue limit of its own: submit() has it
    std::function<void(const StepInfo&)> on_step;
  };
  explicit EngineThread(Parts parts);
  ~EngineThread() override;

  const EngineInfo& info() const override { return parts_.info; }
  const Clock& clock() const override { return SteadyClock::instance(); }
  Result<RequestId> submit(Request request, std::shared_ptr<OutputSink> sink) override;
  void abort(RequestId request_id) override;
  void finish(RequestId request_id, int32_t choice_idx, FinishReason reason) override;
  void pause(RequestId request_id, int32_t choice_idx) override;
  void resume(RequestId request_id, int32_t choice_idx) override;
  EngineStats stats() const override;
  void begin_drain() override { draining_.store(true); }
  bool wait_drained(double timeout_s) override;
  Status check_integrity() override;
  bool reset_prefix_cache() override;

 private:
  using Command = std::function<void()>;  // runs on the engine thread

  // A request from submit() to its last terminal event. Engine thread only.
  struct ActiveRequest {
    std::shared_ptr<const Request> request;
    std::shared_ptr<OutputSink> sink;
    int32_t num_unfinished_choices = 0;
    std::vector<int64_t> first_scheduled_ns;  // per choice; 0: not yet
  };

  // A step that the worker has, from submit_step() to collect_step().
  struct StepInFlight {
    std::shared_ptr<const SchedulerOutput> output;
    int64_t submitted_ns;
    double schedule_s;  // on schedule() so far
  };

  Status validate(const Request& request) const;
  Result<RequestId> reserve_place();
  void push(Command command);
  // Runs `command` on the engine thread and waits for its end; at once when the thread has ended.
  void call(const Command& command);
  void run();
  bool step();  // false when there was nothing to do
  bool submit_step();
  void collect_step();
  void start_request(std::shared_ptr<const Request> request, std::shared_ptr<OutputSink> sink);
  void note_first_scheduled(const SchedulerOutput& output, int64_t now_ns);
  void fail(const std::string& message);
  void deliver_events(int64_t step_end_ns);
  OutputEvent make_event(SequenceEvent& event, const ActiveRequest& active, int64_t step_end_ns) const;
  void publish_stats();

  Parts parts_;
  std::atomic<uint64_t> next_request_id_{1};
  std::atomic<bool> draining_{false};
  std::atomic<bool> healthy_{true};

  mutable std::mutex mutex_;  // guards what follows, up to the blank line
  std::condition_variable wake_;
  std::condition_variable drained_;
  std::vector<Command> commands_;
  EngineStats stats_;
  int64_t num_active_requests_ = 0;       // accepted, not yet ended
  int64_t num_unscheduled_requests_ = 0;  // of these, not yet in a step
  bool stopping_ = false;

  // Engine thread only.
  std::unordered_map<RequestId, ActiveRequest> active_;
  std::deque<StepInFlight> steps_;  // oldest first; at most max_steps_in_flight
  int64_t last_collected_ns_ = 0;
  std::vector<SequenceEvent> events_;
  EngineStats totals_;
  std::string failure_;
  int64_t num_left_queue_ = 0;  // since the last publish_stats()
  int64_t num_ended_ = 0;
  std::thread thread_;
};

}  // namespace sextant
