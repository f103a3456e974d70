// Claiming pieces, and the two waits: of workers for the next job, of the caller for the last piece to be done.
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

constexpr int64_t kLineBytes = 64;
constexpr int kLinesAtATime = 1;
constexpr int kCountBits = 24;
constexpr uint64_t kCountMask = (uint64_t{1} << kCountBits) - 1;

uint64_t count_of(uint64_t state) { return state & kCountMask; }
uint64_t job_of(uint64_t state) { return state >> kCountBits; }
// Whether job a came after job b; their numbers begin again after 2^40.
bool is_later(uint64_t a, uint64_t b) { return a != b && ((a - b) & ((uint64_t{1} << 40) - 1)) < (uint64_t{1} << 39); }

}  // namespace

// Asks `ready` until it says yes or kSpin is over.
template <typename Ready>
bool ThreadPool::spin_until(int thread_idx, Ready&& ready) {
  if (ready()) return true;
  Ahead& ahead = ahead_[static_cast<size_t>(thread_idx)];
  if (const char* begin = expected_.load(std::memory_order_relaxed); begin != ahead.seen) {
    // Another expectation's size may be read with it: then the wrong lines are brought in.
    const int64_t bytes = num_expected_bytes_.load(std::memory_order_relaxed);
    ahead.seen = begin;
    ahead.at = begin + bytes * thread_idx;
    ahead.num_lines = std::min(bytes, kExpectedBytes) / kLineBytes;
  }
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      if (ahead.num_lines < kLinesAtATime) {
        pause_cpu();
        continue;
      }
      for (int line = 0; line < kLinesAtATime; ++line) __builtin_prefetch(ahead.at + line * kLineBytes, 0, 2);
      ahead.at += kLinesAtATime * kLineBytes;
      ahead.num_lines -= kLinesAtATime;
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

ThreadPool::ThreadPool(int num_threads) {
  CHECK_GE(num_threads, 1);
  workers_.reserve(static_cast<size_t>(num_threads - 1));
  claims_ = std::vector<Claims>(static_cast<size_t>(num_threads));
  ahead_ = std::vector<Ahead>(static_cast<size_t>(num_threads));
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
  CHECK(num_pieces >= 0 && num_pieces <= kMaxPieces) << num_pieces << " pieces";
  if (num_pieces == 0) return;
  const std::lock_guard turn(turn_);
  if (workers_.empty() || num_pieces == 1) {
    for (int64_t piece = 0; piece < num_pieces; ++piece) job.call(job.target, 0, piece);
    return;
  }
  job_ = job;
  num_done_.store(0, std::memory_order_relaxed);
  const auto count = static_cast<uint64_t>(num_pieces);
  const uint64_t current = (job_of(current_.load(std::memory_order_relaxed)) + 1) << kCountBits | count;
  current_.store(current);
  if (sleeping_workers_.load() > 0) {
    // Taking the lock waits for a worker that has announced itself but does not sleep yet.
    { const std::lock_guard lock(mutex_); }
    work_ready_.notify_all();
  }
  work_off(current, 0);
  const auto all_done = [&] { return num_done_.load() == count; };
  if (spin_until(0, all_done)) return;
  std::unique_lock lock(mutex_);
  caller_sleeps_.store(true);
  work_done_.wait(lock, all_done);
  caller_sleeps_.store(false);
}

void ThreadPool::expect(const void* begin, int64_t bytes_of_thread) {
  num_expected_bytes_.store(bytes_of_thread, std::memory_order_relaxed);
  expected_.store(static_cast<const char*>(begin), std::memory_order_relaxed);
}

// The next of a thread's own pieces in that job; -1: none is left, or the job is over.
int64_t ThreadPool::claim(uint64_t current, size_t of_thread) {
  const uint64_t threads = claims_.size(), job = job_of(current);
  std::atomic<uint64_t>& state = claims_[of_thread].state;
  uint64_t seen = state.load();
  for (;;) {
    if (is_later(job_of(seen), job)) return -1;
    const uint64_t claimed = job_of(seen) == job ? count_of(seen) : 0;  // else of a job before
    const uint64_t piece = of_thread + claimed * threads;
    if (piece >= count_of(current)) return -1;
    if (state.compare_exchange_weak(seen, job << kCountBits | (claimed + 1))) return static_cast<int64_t>(piece);
  }
}

void ThreadPool::work_off(uint64_t current, int thread_idx) {
  const uint64_t count = count_of(current);
  for (size_t i = 0; i < claims_.size(); ++i) {
    uint64_t num_done = 0;
    for (int64_t piece; (piece = claim(current, (static_cast<size_t>(thread_idx) + i) % claims_.size())) >= 0;
         ++num_done) {
      job_.call(job_.target, thread_idx, piece);
    }
    if (num_done == 0) continue;
    // What is done of a thread's pieces is counted before another's are looked at.
    if (num_done_.fetch_add(num_done) + num_done == count) {
      if (caller_sleeps_.load()) {
        { const std::lock_guard lock(mutex_); }
        work_done_.notify_one();
      }
      return;
    }
  }
}

void ThreadPool::work(int thread_idx) {
  uint64_t seen = 0;
  const auto called = [&] { return current_.load() != seen || stopping_.load(); };
  while (!stopping_.load()) {
    if (!spin_until(thread_idx, called)) {
      std::unique_lock lock(mutex_);
      sleeping_workers_.fetch_add(1);
      work_ready_.wait(lock, called);
      sleeping_workers_.fetch_sub(1);
    }
    seen = current_.load();
    work_off(seen, thread_idx);
  }
}

}  // namespace sextant
