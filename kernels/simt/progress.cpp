#include "kernels/simt/progress.h"

#include <condition_variable>
#include <mutex>
#include <thread>

#include "kernels/simt/runtime_state.h"
#include "kernels/simt/worker_pool.h"

namespace sextant::simt {
namespace {

constexpr std::chrono::milliseconds kLate{20};

class Progress {
 public:
  Progress() : thread_([this] { run(); }) {}
  ~Progress() {
    {
      const std::lock_guard lock(mutex_);
      ends_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

 private:
  void run() {
    Executor& executor = Runtime::instance().executor();
    uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, kLate, [&] { return ends_; })) {
      lock.unlock();
      auto work = executor.lock();
      if (executor.has_ready() && !executor.is_driven() && executor.progress() == seen) {
        executor.drive(work, [&] { return !executor.has_ready(); });
      }
      seen = executor.progress();
      work.unlock();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool ends_ = false;
  std::thread thread_;
};

}  // namespace

void ensure_progress() {
  WorkerPool::instance();  // outlives the thread that uses it
  static Progress progress;
}

}  // namespace sextant::simt
