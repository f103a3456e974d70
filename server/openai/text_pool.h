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

  // At most so many jobs wait, and so many bytes with them.
  TextPool(size_t num_threads, size_t max_queued, size_t max_queued_bytes);
  ~TextPool();  // waits for running jobs; queued ones are destroyed without having run
  TextPool(const TextPool&) = delete;
  TextPool& operator=(const TextPool&) = delete;

  // False when the queue is full: the job will not run. `num_bytes`: what waits in memory with it; where no other job
  // waits, any number is taken.
  [[nodiscard]] bool try_submit(Job job, size_t num_bytes);

 private:
  struct Queued {
    Job job;
    size_t num_bytes;
  };
  void run();

  const size_t max_queued_bytes_;
  BoundedQueue<Queued> queue_;
  std::atomic<size_t> num_queued_bytes_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace sextant::openai
