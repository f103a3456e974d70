#include "engine/exec/rank_thread.h"

#include <exception>
#include <string>
#include <utility>

namespace sextant {

RankThread::~RankThread() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void RankThread::post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_one();
}

void RankThread::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // what it holds goes on this thread, before the next
    lock.lock();
  }
}

Status run_on_ranks(std::span<const std::unique_ptr<RankThread>> threads,
                    const std::function<Status(size_t rank)>& body,
                    const std::function<void(const Status&)>& on_error) {
  struct Shared {
    std::mutex mutex;
    std::condition_variable done;
    size_t num_left;
    Status first_error;
  } shared;
  shared.num_left = threads.size();
  for (size_t rank = 0; rank < threads.size(); ++rank) {
    threads[rank]->post([&, rank] {
      Status status;
      try {
        status = body(rank);
      } catch (const std::exception& error) {
        status = internal_error(error.what());
      }
      bool is_first = false;
      if (!status.ok()) {
        if (threads.size() > 1) {
          status = Status(status.code(), "rank " + std::to_string(rank) + ": " + status.message(), status.param(),
                          status.error_code());
        }
        const std::lock_guard lock(shared.mutex);
        is_first = shared.first_error.ok();
        if (is_first) shared.first_error = status;
      }
      if (is_first && on_error) on_error(status);
      const std::lock_guard lock(shared.mutex);
      if (--shared.num_left == 0) shared.done.notify_one();  // under the mutex: `shared` lives until the waiter has it
    });
  }
  std::unique_lock lock(shared.mutex);
  shared.done.wait(lock, [&] { return shared.num_left == 0; });
  return shared.first_error;
}

}  // namespace sextant
