// StepWatchdog: notices that the results of a step do not come. The thread that waits for them may be inside a driver that
// never returns: then another one, the watchdog's, takes over what that thread had.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

namespace sextant {

class StepWatchdog {
 public:
  // No thread, and nothing is ever overdue, with a time-out of 0. `take_over` runs on the watchdog's thread, at most once.
  StepWatchdog(double timeout_s, std::function<void()> take_over);
  ~StepWatchdog();  // waits for take_over() to return
  StepWatchdog(const StepWatchdog&) = delete;
  StepWatchdog& operator=(const StepWatchdog&) = delete;

  // By the watched thread, around each call that may not return. In between it touches nothing that take_over() does.
  // `busy_since_ns` (SteadyClock): when the device began with what is waited for.
  void enter(int64_t busy_since_ns);
  // False when the time was up: what the thread had is another's now.
  [[nodiscard]] bool leave();

 private:
  void run();

  const int64_t timeout_ns_;
  const std::function<void()> take_over_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool entered_ = false;
  bool taken_over_ = false;
  bool stopping_ = false;
  int64_t busy_since_ns_ = 0;
  int64_t next_look_ns_ = 0;
  std::thread thread_;
};

}  // namespace sextant
