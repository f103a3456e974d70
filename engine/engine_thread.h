// EngineThread: the running engine. Other threads put commands into a queue; the engine's thread alone touches the
// scheduler and the worker, so neither needs a lock. Events leave once per step and sink.
// When the device fails (the worker says so, throws, or gives no result in time) the steps in flight are written to a file,
// every request ends with an error, and nothing is computed any more. A thread that is stuck in the worker is replaced by
// the watchdog's: "the engine's thread" is then that one.
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
#include "engine/device/backend.h"
#include "engine/engine.h"
#include "engine/exec/step_executor.h"
#include "engine/step_dump.h"
#include "engine/step_watchdog.h"

namespace sextant {

class EngineThread final : public Engine {
 public:
  struct Parts {
    EngineInfo info;
    SchedulerConfig config;            // the limits that submit() checks
    std::unique_ptr<Backend> backend;  // outlives the worker
    std::unique_ptr<StepExecutor> worker;
    std::unique_ptr<Scheduler> scheduler;  // without a queue limit of its own: submit() has it
    std::function<void(const StepInfo&)> on_step;
    EngineConfig engine_config = {};  // what a record of failed steps states, and where it goes
    double step_timeout_s = 0;        // 0: none
    std::function<std::vector<DeviceReading>()> device_readings = {};
    std::shared_ptr<const Clock> clock = {};  // null: SteadyClock's
  };
  explicit EngineThread(Parts parts);
  ~EngineThread() override;

  const EngineInfo& info() const override { return parts_.info; }
  const Clock& clock() const override { return parts_.clock ? *parts_.clock : SteadyClock::instance(); }
  Result<RequestId> submit(Request request, std::shared_ptr<OutputSink> sink) override;
  void abort(RequestId request_id) override;
  void finish(RequestId request_id, int32_t choice_idx, FinishReason reason) override;
  void pause(RequestId request_id, int32_t choice_idx) override;
  void resume(RequestId request_id, int32_t choice_idx) override;
  EngineStats stats() const override;
  void begin_drain() override { draining_.store(true); }
  bool wait_drained(double timeout_s) override;
  std::vector<DeviceReading> device_readings() const override;
  std::vector<RankReading> rank_readings() const override { return parts_.worker->rank_readings(); }
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

  // A step that the worker has, from before submit() until collect() gave its output.
  struct StepInFlight {
    std::shared_ptr<const SchedulerOutput> output;
    int64_t submitted_ns;
    double schedule_s;  // on schedule() so far
  };

  // What became of a turn of the engine's thread. kReplaced: it was stuck in the worker, and another thread has taken
  // everything over; it must touch nothing and end.
  enum class Turn { kIdle, kWorked, kReplaced };

  Status validate(const Request& request) const;
  Result<RequestId> reserve_place();
  void push(Command command);
  // Runs `command` on the engine thread and waits for its end; at once when the thread has ended.
  void call(const Command& command);
  void run();
  Turn step();
  Turn submit_step();
  Turn collect_step();
  void start_request(std::shared_ptr<const Request> request, std::shared_ptr<OutputSink> sink);
  void note_first_scheduled(const SchedulerOutput& output, int64_t now_ns);
  // engine_thread_failure.cpp
  int64_t busy_since_ns() const;
  void take_over();
  void fail(const std::string& message);
  StepDump record_steps(const std::string& reason) const;
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

  StepWatchdog watchdog_;
  std::thread thread_;
};

}  // namespace sextant
