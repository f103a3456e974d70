// Executor: what was enqueued, as a graph of work whose edges are "after": the order of a stream, events, captured graphs.
// Work runs on the threads that wait for results, late, in each device's order of enqueueing (seed 0) or a random legal one.
// While a device's work runs its memory can be accessed, else not.
// Threads: any; one mutex. One piece of work runs at a time, but host functions, which may run beside.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace sextant::simt {

struct WorkItem;
using WorkPtr = std::shared_ptr<WorkItem>;

struct Outcome {
  int error = 0;  // a cudaError_t
  std::string report = {};
  bool waits = false;                   // not done: another piece of work will name it
  std::vector<WorkPtr> completes = {};  // pieces that waited and are done now
};

// What one piece of work does; shared by all launches of a graph.
struct Work {
  const char* name;
  int device;        // where its failure counts
  uint64_t devices;  // whose memory it may touch, a bit each
  bool is_host_function = false;
  const void* kernel = nullptr;  // for its name in reports
  std::function<Outcome()> run = {};
  std::function<Outcome(const WorkPtr& self)> meet = {};  // instead of run: work that others finish
};

struct WorkItem {
  std::shared_ptr<const Work> work;
  uint64_t id = 0;
  const void* lane = nullptr;  // the stream, for the random order
  int missing = 0;             // what must come before and is not done
  bool done = false;
  std::chrono::steady_clock::time_point finished;
  std::vector<WorkPtr> dependents;
  std::function<void()> on_done = {};  // with the executor's mutex held
};

class Executor {
 public:
  using Lock = std::unique_lock<std::mutex>;
  // What the devices do around work; called without the mutex.
  struct Hooks {
    std::function<void(uint64_t devices)> open;  // exactly these are accessible
    std::function<bool(int device)> has_failed;  // its work is not run any more
    std::function<void(int device, const Outcome& outcome)> failed;
    std::function<Outcome(const Work& work)> check;  // after each piece of work
  };
  explicit Executor(Hooks hooks) : hooks_(std::move(hooks)) {}

  Lock lock() { return Lock(mutex_); }
  // All below: with the mutex held through `lock`.
  void set_seed(uint64_t seed);
  WorkPtr add(std::shared_ptr<const Work> work, const void* lane, const std::vector<WorkPtr>& after);
  void complete(const WorkPtr& item);
  // Work that waits is asked once more.
  void resume(const WorkPtr& item);
  // Runs work until `done`. False: nothing can run and nothing came for a long time.
  bool drive(Lock& lock, const std::function<bool()>& done);
  bool drive_until_done(Lock& lock, const WorkPtr& item);
  bool drive_device(Lock& lock, int device);
  // Lets one piece of work run: what a query does, so that polling makes progress.
  void drive_one(Lock& lock);
  // Runs what is ready, until nothing is.
  void drive_ready(Lock& lock);
  void forget_all();  // drops what has not run
  size_t num_pending() const { return num_pending_; }
  uint64_t progress() const { return num_executed_; }
  bool has_ready() const { return !ready_.empty(); }
  bool is_driven() const { return num_drivers_ > 0; }

 private:
  WorkPtr pick();
  WorkPtr take(size_t idx);
  void execute(Lock& lock, const WorkPtr& item);
  void leave();

  Hooks hooks_;
  std::mutex mutex_;
  std::mutex running_;  // taken without mutex_, for the time that work runs
  std::condition_variable changed_;
  std::vector<WorkPtr> ready_;
  std::vector<size_t> pending_of_device_;
  uint64_t seed_ = 0;
  uint64_t random_ = 0;
  const void* favourite_ = nullptr;
  uint64_t last_devices_ = 0;  // of the work that was picked last
  uint64_t next_id_ = 0;
  uint64_t num_executed_ = 0;
  size_t num_pending_ = 0;
  int num_running_ = 0;
  bool busy_ = false;  // some of them is no host function
  int num_drivers_ = 0;
};

// Whether this thread runs a host function, which may not call CUDA.
extern thread_local bool t_in_host_function;

}  // namespace sextant::simt
