// The blocks of one grid spread over the host's cores. The caller takes part, so a grid never waits for a sleeping worker.
// Number of threads: SEXTANT_SIMT_THREADS, else one per core.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kernels/simt/block_run.h"

namespace sextant::simt {

struct GridResult {
  BlockRun::Violation violation = BlockRun::Violation::kNone;
  std::string report;
};

class WorkerPool {
 public:
  static WorkerPool& instance();
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Runs all blocks; one grid at a time. seed 0: blocks in order, as far as one thread is concerned.
  GridResult run(const BlockRun::Launch& launch, uint64_t seed);

 private:
  struct Grid {
    const BlockRun::Launch* launch = nullptr;
    uint64_t seed = 0;
    uint64_t num_blocks = 0;
    uint64_t stride = 1;  // coprime to num_blocks: block i runs as (start + i stride) mod num_blocks
    uint64_t start = 0;
    std::atomic<uint64_t> next = 0;
    std::atomic<bool> failed = false;
    std::mutex mutex;
    GridResult result;
  };
  WorkerPool();
  void worker();
  static void run_blocks(Grid& grid);

  std::mutex run_mutex_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable finished_;
  Grid* grid_ = nullptr;
  uint64_t generation_ = 0;
  int num_inside_ = 0;
  bool ends_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace sextant::simt
