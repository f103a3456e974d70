// Worker threads over a bounded queue.
#include "server/openai/text_pool.h"

#include <optional>
#include <utility>

#include "engine/base/check.h"

namespace sextant::openai {

TextPool::TextPool(size_t num_threads, size_t max_queued) : queue_(max_queued) {
  CHECK_GE(num_threads, 1u);
  threads_.reserve(num_threads);
  for (size_t i = 0; i < num_threads; ++i) threads_.emplace_back([this] { run(); });
}

TextPool::~TextPool() {
  stopping_.store(true);
  queue_.close();
  for (std::thread& thread : threads_) thread.join();
}

bool TextPool::try_submit(Job job) { return queue_.try_push(std::move(job)); }

void TextPool::run() {
  while (std::optional<Job> job = queue_.pop()) {
    if (!stopping_.load()) (*job)();
  }
}

}  // namespace sextant::openai
