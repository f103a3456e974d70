// RankThread: the thread of one rank. A device's current context, CPU affinity and NCCL's calls belong to a thread, so all
// that a rank does, from opening its device to destroying it, is posted here. Tasks run one at a time, in order.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

#include "engine/base/status.h"

namespace sextant {

class RankThread {
 public:
  RankThread() : thread_([this] { run(); }) {}
  ~RankThread();  // runs what was posted, then joins
  RankThread(const RankThread&) = delete;
  RankThread& operator=(const RankThread&) = delete;

  // Any thread. A task must not throw; it may post.
  void post(std::function<void()> task);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

// Runs body(rank) on each thread and waits for all. The first error by time, as kDeviceError or what it was, with the rank
// named where there are several; on_error is called with it at once, on the failing rank's thread, so that it can let others go
// who wait for that rank. What `body` throws is kInternal.
Status run_on_ranks(std::span<const std::unique_ptr<RankThread>> threads,
                    const std::function<Status(size_t rank)>& body, const std::function<void(const Status&)>& on_error);

}  // namespace sextant
