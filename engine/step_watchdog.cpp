#include "engine/step_watchdog.h"

#include <chrono>
#include <utility>

#include "engine/base/clock.h"

namespace sextant {

StepWatchdog::StepWatchdog(double timeout_s, std::function<void()> take_over)
    : timeout_ns_(static_cast<int64_t>(timeout_s * 1e9)), take_over_(std::move(take_over)) {
  if (timeout_ns_ > 0) thread_ = std::thread([this] { run(); });
}

StepWatchdog::~StepWatchdog() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void StepWatchdog::enter(int64_t busy_since_ns) {
  if (timeout_ns_ <= 0) return;
  bool is_due_sooner = false;
  {
    std::lock_guard lock(mutex_);
    entered_ = true;
    busy_since_ns_ = busy_since_ns;
    is_due_sooner = busy_since_ns + timeout_ns_ < next_look_ns_;
  }
  if (is_due_sooner) changed_.notify_one();
}

bool StepWatchdog::leave() {
  if (timeout_ns_ <= 0) return true;
  std::lock_guard lock(mutex_);
  entered_ = false;
  return !taken_over_;
}

// Wakes about once per time-out, not per step: what was entered after a look is not due before the next one.
void StepWatchdog::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const int64_t now_ns = SteadyClock::instance().now_ns();
    if (entered_ && now_ns - busy_since_ns_ >= timeout_ns_) {
      taken_over_ = true;
      lock.unlock();
      take_over_();
      return;
    }
    next_look_ns_ = (entered_ ? busy_since_ns_ : now_ns) + timeout_ns_;
    changed_.wait_for(lock, std::chrono::nanoseconds(next_look_ns_ - now_ns));
  }
}

}  // namespace sextant
