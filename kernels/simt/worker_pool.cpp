#include "kernels/simt/worker_pool.h"

#include <cstdlib>
#include <numeric>

#include "kernels/simt/fault_handler.h"

namespace sextant::simt {
namespace {

uint64_t mix(uint64_t x) {  // SplitMix64
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

size_t num_threads() {
  const char* text = std::getenv("SEXTANT_SIMT_THREADS");
  const long wanted = text == nullptr ? 0 : std::strtol(text, nullptr, 10);
  const size_t cores = std::thread::hardware_concurrency();
  return wanted > 0 ? static_cast<size_t>(wanted) : cores > 0 ? cores : 1;
}

}  // namespace

WorkerPool& WorkerPool::instance() {
  static WorkerPool pool;
  return pool;
}

WorkerPool::WorkerPool() {
  for (size_t i = 1; i < num_threads(); ++i) threads_.emplace_back([this] { worker(); });
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::run_blocks(Grid& grid) {
  thread_local BlockRun block;
  prepare_thread_for_faults();
  const Dim3& extent = grid.launch->grid;
  while (!grid.failed.load(std::memory_order_relaxed)) {
    const uint64_t turn = grid.next.fetch_add(1, std::memory_order_relaxed);
    if (turn >= grid.num_blocks) return;
    const auto at =
        static_cast<uint64_t>((static_cast<unsigned __int128>(turn) * grid.stride + grid.start) % grid.num_blocks);
    const Dim3 index{static_cast<unsigned>(at % extent.x), static_cast<unsigned>(at / extent.x % extent.y),
                     static_cast<unsigned>(at / extent.x / extent.y)};
    const uint64_t seed = grid.seed == 0 ? 0 : mix(grid.seed + at) | 1;
    std::string report = block.run(*grid.launch, index, seed);
    if (report.empty()) continue;
    grid.failed = true;
    const std::lock_guard lock(grid.mutex);
    if (grid.result.report.empty()) grid.result = {block.violation(), std::move(report)};
  }
}

void WorkerPool::worker() {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [&] { return ends_ || (grid_ != nullptr && generation_ != seen); });
    if (ends_) return;
    seen = generation_;
    Grid& grid = *grid_;
    ++num_inside_;
    lock.unlock();
    run_blocks(grid);
    lock.lock();
    if (--num_inside_ == 0) finished_.notify_all();
  }
}

GridResult WorkerPool::run(const BlockRun::Launch& launch, uint64_t seed) {
  const std::lock_guard one(run_mutex_);
  Grid grid;
  grid.launch = &launch;
  grid.seed = seed;
  grid.num_blocks = launch.grid.count();
  if (seed != 0) {
    grid.start = mix(seed) % grid.num_blocks;
    grid.stride = mix(seed ^ 1) % grid.num_blocks;
    while (std::gcd(grid.stride, grid.num_blocks) != 1) ++grid.stride;
  }
  if (grid.num_blocks == 1 || threads_.empty()) {
    run_blocks(grid);
    return std::move(grid.result);
  }
  {
    const std::lock_guard lock(mutex_);
    grid_ = &grid;
    ++generation_;
  }
  work_.notify_all();
  run_blocks(grid);
  std::unique_lock lock(mutex_);
  grid_ = nullptr;  // who has not come by now, comes too late
  finished_.wait(lock, [&] { return num_inside_ == 0; });
  return std::move(grid.result);
}

}  // namespace sextant::simt
