// The two barriers of a run: start (round_) and end (pending_).
#include "engine/device/thread_pool.h"

#include <algorithm>
#include <system_error>

#include "engine/base/check.h"

namespace sextant {
namespace {

void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

// Asks `ready` until it says yes or kSpin is over.
template <typename Ready>
bool spin_until(Ready&& ready) {
  const auto end = std::chrono::steady_clock::now() + ThreadPool::kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause_cpu();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  CHECK_GE(num_threads, 1);
  workers_.reserve(static_cast<size_t>(num_threads - 1));
  for (int i = 1; i < num_threads; ++i) {
    try {
      workers_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {
      break;  // a limit on threads: slower, not wrong
    }
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    round_.fetch_add(1);
  }
  work_ready_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

int64_t ThreadPool::num_parts(int64_t n, int64_t grain) const {
  return std::min<int64_t>(num_threads(), n / std::max<int64_t>(grain, 1));
}

void ThreadPool::run_on_all(Job job) {
  const std::lock_guard turn(turn_);
  if (workers_.empty()) {
    job.call(job.target, 0);
    return;
  }
  job_ = job;
  pending_.store(static_cast<int>(workers_.size()));
  round_.fetch_add(1);
  if (sleeping_workers_.load() > 0) {
    // Taking the lock waits for a worker that has announced itself but does not sleep yet.
    { const std::lock_guard lock(mutex_); }
    work_ready_.notify_all();
  }
  job.call(job.target, 0);
  const auto all_done = [this] { return pending_.load() == 0; };
  if (spin_until(all_done)) return;
  std::unique_lock lock(mutex_);
  caller_sleeps_.store(true);
  work_done_.wait(lock, all_done);
  caller_sleeps_.store(false);
}

void ThreadPool::work(int thread_idx) {
  uint32_t seen = 0;
  for (;;) {
    const auto called = [&] { return round_.load() != seen; };
    if (!spin_until(called)) {
      std::unique_lock lock(mutex_);
      sleeping_workers_.fetch_add(1);
      work_ready_.wait(lock, called);
      sleeping_workers_.fetch_sub(1);
    }
    ++seen;  // a run ends only when every worker has done it: rounds are never skipped
    if (stopping_) return;
    job_.call(job_.target, thread_idx);
    if (pending_.fetch_sub(1) == 1 && caller_sleeps_.load()) {
      { const std::lock_guard lock(mutex_); }
      work_done_.notify_one();
    }
  }
}

}  // namespace sextant
