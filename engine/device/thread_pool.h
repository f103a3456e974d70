// ThreadPool: the caller and num_threads - 1 workers work off the pieces of one job together, again and again.
// Of T threads each begins with its own pieces, every Tth, the same ones in each job of as many: claiming them disturbs no other thread,
// and a job whose pieces become larger or smaller is shared evenly. Then it claims from the others', one at a time: a thread that the
// system has taken off its CPU holds up the piece that it is in, nothing else, and one that has claimed none is not waited for. Workers spin for at most kSpin before they
// sleep, and so does the caller at the end of a job: ops that follow one another in a step meet awake threads, an idle process uses
// no CPU, and a CPU whose thread waits is soon free for the one that is waited for (bench/results/server_amd_epyc_zen5.md: longer spins
// keep less beside a process that burns a core, shorter ones gain nothing). While they spin, threads bring in the memory that expect()
// named. Jobs of several callers take turns. Which thread does a piece is a matter of chance: results must not depend on it.
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
  static constexpr int64_t kMaxPieces = (int64_t{1} << 24) - 1;

  // num_threads >= 1. Threads that the system refuses to start are done without: see num_threads().
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(thread_idx, piece) once for each piece in [0, num_pieces), on some thread, 0 being the caller, and returns when all
  // are done. body must not throw (that ends the program) and must not call share on the same pool.
  template <typename Body>
  void share(int64_t num_pieces, Body&& body) {
    using Target = std::remove_reference_t<Body>;
    share_all({[](void* target, int thread_idx, int64_t piece) noexcept {
                 (*static_cast<Target*>(target))(thread_idx, piece);
               },
               const_cast<void*>(static_cast<const void*>(&body))},
              num_pieces);
  }

  // The memory that one of the next jobs will read from its start to its end, each thread so much of it: waiting threads bring the
  // first kExpectedBytes of their parts into their caches. A hint: the memory need not be there, nothing is read.
  static constexpr int64_t kExpectedBytes = 32 << 10;
  void expect(const void* begin, int64_t bytes_of_thread);

  // Calls body(begin, end) for consecutive parts of [0, n), one per thread at most, each of `grain` elements or more (but for
  // the last); on the caller alone when there is only one part.
  template <typename Body>
  void parallel_for(int64_t n, int64_t grain, Body&& body) {
    const int64_t parts = num_parts(n, grain);
    if (parts <= 1) {
      if (n > 0) body(int64_t{0}, n);
      return;
    }
    share(parts, [&](int, int64_t part) { body(n * part / parts, n * (part + 1) / parts); });
  }

 private:
  struct Job {
    void (*call)(void* target, int thread_idx, int64_t piece) noexcept = nullptr;
    void* target = nullptr;
  };
  // What has been claimed of a thread's own pieces, by itself and by others: the job's number above, a count below (as in current_).
  struct alignas(64) Claims {
    std::atomic<uint64_t> state{0};
  };
  // What a thread has yet to bring in of the memory that expect() named; its own.
  struct alignas(64) Ahead {
    const char* seen = nullptr;
    const char* at = nullptr;
    int64_t num_lines = 0;
  };

  int64_t num_parts(int64_t n, int64_t grain) const;
  void share_all(Job job, int64_t num_pieces);
  template <typename Ready>
  bool spin_until(int thread_idx, Ready&& ready);
  int64_t claim(uint64_t current, size_t of_thread);
  void work_off(uint64_t current, int thread_idx);
  void work(int thread_idx);

  std::vector<std::thread> workers_;
  std::mutex turn_;             // held during a job
  std::vector<Claims> claims_;  // by thread, one for each that was asked for
  std::vector<Ahead> ahead_;

  // The job's number in the upper 40 bits, its pieces in the lower 24. job_ is written before it, and read only by who holds a
  // piece, which the caller waits for.
  alignas(64) std::atomic<uint64_t> current_{0};
  Job job_;
  std::atomic<const char*> expected_{nullptr};
  std::atomic<int64_t> num_expected_bytes_{0};
  alignas(64) std::atomic<uint64_t> num_done_{0};
  // A thread announces itself here before it sleeps; then it looks at current_ (num_done_) once more. The other side changes that
  // first and looks here second, all sequentially consistent: one of the two sees the other.
  alignas(64) std::atomic<int> sleeping_workers_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable work_ready_;
  std::condition_variable work_done_;
};

}  // namespace sextant
