// ThreadPool: the caller and num_threads - 1 workers run one function together, again and again.
// Workers spin for at most kSpin before they sleep, and so does the caller at the end of a run: ops that follow one another in
// a step meet awake threads, an idle process uses no CPU. Runs of several callers take turns. Which thread does what is decided
// by its index alone, so work assignment is the same every time.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace sextant {

class ThreadPool {
 public:
  static constexpr std::chrono::microseconds kSpin{20};

  // num_threads >= 1. Threads that the system refuses to start are done without: see num_threads().
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(thread_idx) once on each thread, 0 being the caller, and returns when all have. body must not throw (that ends the
  // program) and must not call run on the same pool.
  template <typename Body>
  void run(Body&& body) {
    using Target = std::remove_reference_t<Body>;
    run_on_all({[](void* target, int thread_idx) noexcept { (*static_cast<Target*>(target))(thread_idx); },
                const_cast<void*>(static_cast<const void*>(&body))});
  }

  // Calls body(begin, end) for consecutive parts of [0, n), one per thread at most, each of `grain` elements or more (but for
  // the last); on the caller alone when there is only one part.
  template <typename Body>
  void parallel_for(int64_t n, int64_t grain, Body&& body) {
    const int64_t parts = num_parts(n, grain);
    if (parts <= 1) {
      if (n > 0) body(int64_t{0}, n);
      return;
    }
    run([&](int thread_idx) {
      const int64_t begin = n * thread_idx / parts, end = n * (thread_idx + 1) / parts;
      if (thread_idx < parts && begin < end) body(begin, end);
    });
  }

 private:
  struct Job {
    void (*call)(void* target, int thread_idx) noexcept = nullptr;
    void* target = nullptr;
  };

  int64_t num_parts(int64_t n, int64_t grain) const;
  void run_on_all(Job job);
  void work(int thread_idx);

  std::vector<std::thread> workers_;
  std::mutex turn_;  // held during a run

  // job_ is written before round_ goes up and read after it was seen to have: round_ orders them. Workers count down pending_.
  Job job_;
  bool stopping_ = false;  // ordered by round_ like job_
  alignas(64) std::atomic<uint32_t> round_{0};
  alignas(64) std::atomic<int> pending_{0};
  // A thread announces itself here before it sleeps; then it looks at round_ (pending_) once more. The other side changes that
  // first and looks here second, all sequentially consistent: one of the two sees the other.
  alignas(64) std::atomic<int> sleeping_workers_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::mutex mutex_;
  std::condition_variable work_ready_;
  std::condition_variable work_done_;
};

}  // namespace sextant
