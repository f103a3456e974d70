#include "kernels/simt/block_run.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels/simt/fibre.h"

namespace sextant::simt {

thread_local BlockRun* t_block = nullptr;
thread_local ThreadState* t_thread = nullptr;

namespace {
constexpr size_t kSharedCapacity = 256 << 10;
constexpr int kPoison = 0xFF;  // NaN in every float format, -1 as an index
}  // namespace

BlockRun::BlockRun() : main_(std::make_unique<Fibre>()) {
  shared_ = static_cast<std::byte*>(std::aligned_alloc(1024, kSharedCapacity));
}

BlockRun::~BlockRun() { std::free(shared_); }

ThreadState* BlockRun::pop_ready() {
  if (ready_head_ == ready_.size()) return nullptr;
  if (shuffled_) {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    std::swap(ready_[ready_head_], ready_[ready_head_ + random_ % (ready_.size() - ready_head_)]);
  }
  ThreadState* next = ready_[ready_head_++];
  if (ready_head_ == ready_.size()) {
    ready_.clear();
    ready_head_ = 0;
  }
  return next;
}

void BlockRun::switch_to(Fibre* fibre) {
  Fibre* from = current_;
  current_ = fibre;
  fibre->switch_from(*from);
}

// The running fibre gives way: its thread waits, or has ended.
void BlockRun::yield_to_next() {
  ThreadState* next = pop_ready();
  if (next == nullptr) {
    if (num_alive_ > 0) fail("deadlock: no thread can go on\n" + waiting_threads());
    switch_to(main_.get());
    return;
  }
  if (next->fibre != nullptr) {
    switch_to(next->fibre);
    return;
  }
  if (free_fibres_.empty()) {
    fibres_.push_back(std::make_unique<Fibre>(&BlockRun::fibre_entry, this));
    free_fibres_.push_back(fibres_.back().get());
  }
  Fibre* fibre = free_fibres_.back();
  free_fibres_.pop_back();
  fibre->thread = next;
  switch_to(fibre);
}

void BlockRun::fibre_entry(void* run) { static_cast<BlockRun*>(run)->fibre_loop(); }

void BlockRun::fibre_loop() {
  Fibre* self = current_;
  while (true) {
    ThreadState* thread = self->thread;
    t_thread = thread;
    launch_->body();
    thread->done = true;
    if (!thread->open_copies.empty() || !thread->committed_copies.empty()) {
      fail("thread ended before its cp.async copies were waited for");
    }
    --num_alive_;
    if (num_at_barrier_ > 0 && num_at_barrier_ == num_alive_) {
      fail("divergent barrier: a thread ended while others wait\n" + waiting_threads());
    }
    // A thread that has not begun can run here at once.
    if (ready_head_ < ready_.size() && !shuffled_ && ready_[ready_head_]->fibre == nullptr) {
      self->thread = pop_ready();
      continue;
    }
    free_fibres_.push_back(self);
    yield_to_next();
  }
}

void BlockRun::wait(const char* what, int line) {
  ThreadState* self = t_thread;
  self->fibre = current_;
  self->waits_at = what;
  self->waits_line = line;
  yield_to_next();
  t_thread = self;
  self->waits_at = nullptr;
}

void BlockRun::sync_threads(const char* file, int line) {
  const int arrived = ++num_at_barrier_;
  if (arrived == num_alive_) {
    if (num_alive_ != static_cast<int>(threads_.size())) {
      // Legal only when whole warps are gone; a warp in part is divergence.
      for (const ThreadState& thread : threads_) {
        if (thread.done && !threads_[static_cast<size_t>(thread.warp()) * kWarpSize].done) {
          fail("divergent barrier at " + std::string(file) + ":" + std::to_string(line) + ": part of a warp has ended");
        }
      }
    }
    for (ThreadState& thread : threads_) {
      if (thread.done || &thread == t_thread) continue;
      if (thread.waits_line != line || std::strcmp(thread.waits_at, file) != 0) {
        fail("divergent barrier: some threads wait at line " + std::to_string(thread.waits_line) + ", others at line " +
             std::to_string(line) + " of " + file);
      }
    }
    num_at_barrier_ = 0;
    for (ThreadState& thread : threads_) {
      if (!thread.done && &thread != t_thread) make_ready(&thread);
    }
    return;
  }
  wait(file, line);
}

void BlockRun::collective(const char* name, uint32_t mask, void* lane_args,
                          void (*complete)(void* const* lanes, uint32_t mask)) {
  ThreadState* self = t_thread;
  const uint32_t bit = 1u << self->lane();
  if ((mask & bit) == 0) fail(std::string(name) + ": the calling lane is not in the mask");
  std::vector<Collective>& open = collectives_[static_cast<size_t>(self->warp())];
  auto found = std::find_if(open.begin(), open.end(), [&](const Collective& c) { return (c.mask & bit) != 0; });
  if (found == open.end()) {
    found = open.emplace(open.end());
    found->name = name;
    found->mask = mask;
  } else if (found->mask != mask || std::strcmp(found->name, name) != 0) {
    fail("warp divergence: one lane is in " + std::string(name) + ", another in " + found->name +
         (found->mask != mask ? " with another mask" : ""));
  }
  found->arrived |= bit;
  found->args[self->lane()] = lane_args;
  if (found->arrived != mask) {
    wait(name, 0);
    return;
  }
  complete(found->args, mask);
  open.erase(found);
  const size_t first = static_cast<size_t>(self->warp()) * kWarpSize;
  for (size_t lane = 0; lane < kWarpSize && first + lane < threads_.size(); ++lane) {
    if ((mask >> lane & 1u) != 0 && &threads_[first + lane] != self) make_ready(&threads_[first + lane]);
  }
}

void* BlockRun::static_shared(const void* key, size_t bytes, size_t alignment) {
  for (const StaticShared& known : static_shared_) {
    if (known.key == key) return shared_ + known.offset;
  }
  const size_t offset = (shared_used_ + alignment - 1) / alignment * alignment;
  if (offset + bytes > launch_->max_shared_bytes || offset + bytes > kSharedCapacity) {
    fail("shared memory: " + std::to_string(offset + bytes) + " bytes used, the launch allows " +
         std::to_string(launch_->max_shared_bytes));
  }
  shared_used_ = offset + bytes;
  static_shared_.push_back({key, offset});
  return shared_ + offset;
}

bool BlockRun::is_shared(const void* p, size_t bytes) const {
  const auto* at = static_cast<const std::byte*>(p);
  return at >= shared_ && at + bytes <= shared_ + shared_used_;
}

std::string BlockRun::waiting_threads() const {
  std::string text;
  int told = 0;
  for (const ThreadState& thread : threads_) {
    if (thread.done || thread.waits_at == nullptr || ++told > 8) continue;
    text += "  thread " + std::to_string(thread.linear) + " waits at " + thread.waits_at +
            (thread.waits_line > 0 ? ":" + std::to_string(thread.waits_line) : "") + "\n";
  }
  return text;
}

void BlockRun::fail(const std::string& what) {
  const ThreadState* thread = t_thread;
  failure_ = launch_->kernel + ", block (" + std::to_string(block_idx_.x) + ", " + std::to_string(block_idx_.y) + ", " +
             std::to_string(block_idx_.z) + "), thread (" + std::to_string(thread->thread_idx.x) + ", " +
             std::to_string(thread->thread_idx.y) + ", " + std::to_string(thread->thread_idx.z) + "): " + what;
  switch_to(main_.get());  // never resumed: run() resets every fibre
  std::abort();
}

std::string BlockRun::run(const Launch& launch, Dim3 block_idx, uint64_t seed) {
  launch_ = &launch;
  block_idx_ = block_idx;
  shuffled_ = seed != 0;
  random_ = seed;
  failure_.clear();
  static_shared_.clear();
  const size_t num_threads = launch.block.count();
  num_alive_ = static_cast<int>(num_threads);
  num_at_barrier_ = 0;
  threads_.resize(num_threads);
  collectives_.assign((num_threads + kWarpSize - 1) / kWarpSize, {});
  ready_.clear();
  ready_head_ = 0;
  for (size_t i = 0; i < num_threads; ++i) {
    ThreadState& thread = threads_[i];
    thread.thread_idx = {static_cast<unsigned>(i % launch.block.x),
                         static_cast<unsigned>(i / launch.block.x % launch.block.y),
                         static_cast<unsigned>(i / launch.block.x / launch.block.y)};
    thread.linear = static_cast<int>(i);
    thread.fibre = nullptr;
    thread.done = false;
    thread.waits_at = nullptr;
    thread.open_copies.clear();
    thread.committed_copies.clear();
    ready_.push_back(&thread);
  }
  shared_used_ = launch.dynamic_shared_bytes;
  std::memset(shared_, kPoison, std::min(kSharedCapacity, launch.max_shared_bytes));

  t_block = this;
  current_ = main_.get();
  yield_to_next();
  t_block = nullptr;
  t_thread = nullptr;
  if (!failure_.empty()) {
    free_fibres_.clear();
    for (auto& fibre : fibres_) {
      fibre->reset();
      free_fibres_.push_back(fibre.get());
    }
  }
  return failure_;
}

}  // namespace sextant::simt
