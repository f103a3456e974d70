// Claiming pieces (ticket_), and the two waits: of workers for pieces, of the caller for the last to be done.
#include "engine/device/thread_pool.h"

#include <algorithm>
#include <system_error>

#include "engine/base/check.h"

namespace sextant {
namespace {

void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr int64_t kMaxPieces = int64_t{1} << 31;

bool pieces_left(uint64_t ticket) { return (ticket & 0xffffffffu) < ticket >> 32; }

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
  }
  work_ready_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

int64_t ThreadPool::num_parts(int64_t n, int64_t grain) const {
  return std::min<int64_t>(num_threads(), n / std::max<int64_t>(grain, 1));
}

void ThreadPool::share_all(Job job, int64_t num_pieces) {
  CHECK(num_pieces >= 0 && num_pieces < kMaxPieces) << num_pieces << " pieces";
  if (num_pieces == 0) return;
  const std::lock_guard turn(turn_);
  if (workers_.empty() || num_pieces == 1) {
    for (int64_t piece = 0; piece < num_pieces; ++piece) job.call(job.target, 0, piece);
    return;
  }
  const auto count = static_cast<uint32_t>(num_pieces);
  job_ = job;
  num_done_.store(0);
  ticket_.store(uint64_t{count} << 32);
  if (sleeping_workers_.load() > 0) {
    // Taking the lock waits for a worker that has announced itself but does not sleep yet.
    { const std::lock_guard lock(mutex_); }
    work_ready_.notify_all();
  }
  work_off(0);
  const auto all_done = [&] { return num_done_.load() == count; };
  if (spin_until(all_done)) return;
  std::unique_lock lock(mutex_);
  caller_sleeps_.store(true);
  work_done_.wait(lock, all_done);
  caller_sleeps_.store(false);
}

void ThreadPool::work_off(int thread_idx) {
  while (pieces_left(ticket_.load())) {
    const uint64_t ticket = ticket_.fetch_add(1);
    if (!pieces_left(ticket)) return;  // others were faster
    job_.call(job_.target, thread_idx, static_cast<int64_t>(ticket & 0xffffffffu));
    if (num_done_.fetch_add(1) + 1 == ticket >> 32 && caller_sleeps_.load()) {
      { const std::lock_guard lock(mutex_); }
      work_done_.notify_one();
    }
  }
}

void ThreadPool::work(int thread_idx) {
  const auto called = [this] { return pieces_left(ticket_.load()) || stopping_.load(); };
  while (!stopping_.load()) {
    if (!spin_until(called)) {
      std::unique_lock lock(mutex_);
      sleeping_workers_.fetch_add(1);
      work_ready_.wait(lock, called);
      sleeping_workers_.fetch_sub(1);
    }
    work_off(thread_idx);
  }
}

}  // namespace sextant
