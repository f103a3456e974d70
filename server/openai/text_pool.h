// TextPool: a few threads for JSON, templates and tokenisation, with a bounded queue, so that I/O threads
// only do I/O. Any thread may submit. Must not know what the jobs do.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include "engine/base/bounded_queue.h"

namespace sextant::openai {

class TextPool {
 public:
  using Job = std::function<void()>;  // must not throw

  TextPool(size_t num_threads, size_t max_queued);
  ~TextPool();  // waits for running jobs; queued ones are destroyed without having run
  TextPool(const TextPool&) = delete;
  TextPool& operator=(const TextPool&) = delete;

  // False when the queue is full: the job will not run.
  [[nodiscard]] bool try_submit(Job job);

 private:
  void run();

  BoundedQueue<Job> queue_;
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace sextant::openai
