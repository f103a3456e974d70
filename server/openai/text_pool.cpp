// Worker threads over a bounded queue.
#include "server/openai/text_pool.h"

#include <optional>
#include <utility>

#include "engine/base/check.h"

namespace sextant::openai {

TextPool::TextPool(size_t num_threads, size_t max_queued, size_t max_queued_bytes)
    : max_queued_bytes_(max_queued_bytes), queue_(max_queued) {
  CHECK_GE(num_threads, 1u);
  threads_.reserve(num_threads);
  for (size_t i = 0; i < num_threads; ++i) threads_.emplace_back([this] { run(); });
}

TextPool::~TextPool() {
  stopping_.store(true);
  queue_.close();
  for (std::thread& thread : threads_) thread.join();
}

bool TextPool::try_submit(Job job, size_t num_bytes) {
  const size_t before = num_queued_bytes_.fetch_add(num_bytes);
  if ((before == 0 || before + num_bytes <= max_queued_bytes_) && queue_.try_push({std::move(job), num_bytes})) {
    return true;
  }
  num_queued_bytes_.fetch_sub(num_bytes);
  return false;
}

void TextPool::run() {
  while (std::optional<Queued> queued = queue_.pop()) {
    num_queued_bytes_.fetch_sub(queued->num_bytes);
    if (!stopping_.load()) queued->job();
  }
}

}  // namespace sextant::openai
