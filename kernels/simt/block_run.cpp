#include "kernels/simt/block_run.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/simt/address_check.h"
#include "kernels/simt/fibre.h"
#include "kernels/simt/kernel_name.h"
#include "kernels/simt/runtime_state.h"

namespace sextant::simt {

thread_local BlockRun* t_block = nullptr;
thread_local ThreadState* t_thread = nullptr;

namespace {
constexpr size_t kSharedCapacity = 512 << 10;
constexpr size_t kGap = 64;                // behind a static array
constexpr size_t kDynamicAlignment = 128;  // of the start; what it leaves before the guard page is checked
constexpr auto kPoison = std::byte{0xFF};  // NaN in every float format, -1 as an index
}  // namespace

BlockRun::BlockRun() : main_(std::make_unique<Fibre>()) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* mapping = mmap(nullptr, kSharedCapacity + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) {
    std::perror("simt: no memory for a block's shared memory");
    std::abort();
  }
  shared_ = static_cast<std::byte*>(mapping);
  allow_access(shared_, kSharedCapacity);  // a thread's stack may have lain there, and its marks with it
  mprotect(shared_ + kSharedCapacity, page, PROT_NONE);
  std::memset(shared_, static_cast<int>(kPoison), kSharedCapacity);
  dynamic_ = shared_ + kSharedCapacity;
}

BlockRun::~BlockRun() {
  allow_access(shared_, kSharedCapacity);
  munmap(shared_, kSharedCapacity + static_cast<size_t>(sysconf(_SC_PAGESIZE)));
}

void AsyncGroup::arrive() {
  for (const AsyncCopy& copy : copies) {
    std::memset(copy.to, 0, copy.bytes);
    if (copy.read_bytes > 0) std::memcpy(copy.to, copy.from, copy.read_bytes);
  }
  copies.clear();
}

uint64_t BlockRun::next_random() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_;
}

// An even choice among threads keeps warps abreast, so that half of the orders favour warps instead: a race between two
// barriers shows when one warp is far ahead.
size_t BlockRun::choose_ready() {
  if (!runs_ahead_) return ready_head_ + next_random() % (ready_.size() - ready_head_);
  size_t best = ready_head_;
  for (size_t i = ready_head_ + 1; i < ready_.size(); ++i) {
    if (warp_favour_[static_cast<size_t>(ready_[i]->warp())] > warp_favour_[static_cast<size_t>(ready_[best]->warp())])
      best = i;
  }
  return best;
}

ThreadState* BlockRun::pop_ready() {
  if (ready_head_ == ready_.size()) return nullptr;
  if (shuffled_) std::swap(ready_[ready_head_], ready_[choose_ready()]);
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

// The running fibre gives way to `next`: its thread waits, or has ended.
void BlockRun::go_on(ThreadState* next) {
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
    if (!thread->open_copies.copies.empty() || !thread->committed_copies.empty()) {
      fail("thread ended before its cp.async copies were waited for");
    }
    --num_alive_;
    if (num_at_barrier_ > 0 && num_at_barrier_ == num_alive_) release_barrier();
    ThreadState* next = pop_ready();
    if (next != nullptr && next->fibre == nullptr) {  // has not begun: here and now
      self->thread = next;
      continue;
    }
    free_fibres_.push_back(self);
    go_on(next);
  }
}

void BlockRun::wait(const char* what, int line) {
  ThreadState* self = t_thread;
  self->fibre = current_;
  self->waits_at = what;
  self->waits_line = line;
  go_on(pop_ready());
  t_thread = self;
  self->waits_at = nullptr;
}

void BlockRun::sync_threads(const char* file, int line) {
  t_thread->waits_at = file;
  t_thread->waits_line = line;
  if (++num_at_barrier_ < num_alive_) {
    wait(file, line);
    return;
  }
  release_barrier();
  t_thread->waits_at = nullptr;
}

// All threads that have not ended are at a barrier. It must be the same one, and threads that ended must be whole warps.
void BlockRun::release_barrier() {
  const ThreadState* first = nullptr;
  for (size_t i = 0; i < threads_.size(); ++i) {
    const ThreadState& thread = threads_[i];
    if (thread.done != threads_[i / kWarpSize * kWarpSize].done) {
      fail("divergent barrier: part of a warp has ended, the rest waits\n" + waiting_threads());
    }
    if (thread.done) continue;
    if (first == nullptr) first = &thread;
    if (thread.waits_line != first->waits_line || std::strcmp(thread.waits_at, first->waits_at) != 0) {
      fail("divergent barrier: thread " + std::to_string(first->linear) + " waits at line " +
           std::to_string(first->waits_line) + ", thread " + std::to_string(thread.linear) + " at line " +
           std::to_string(thread.waits_line) + " of " + thread.waits_at);
    }
  }
  num_at_barrier_ = 0;
  for (ThreadState& thread : threads_) {
    if (!thread.done && &thread != t_thread) make_ready(&thread);
  }
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
  static_counted_ = (static_counted_ + alignment - 1) / alignment * alignment + bytes;
  if (static_counted_ + dynamic_bytes_ > launch_->max_shared_bytes) {
    fail("shared memory: the kernel needs " + std::to_string(static_counted_ + dynamic_bytes_) +
             " bytes, allowed are " + std::to_string(launch_->max_shared_bytes),
         Violation::kResources);
  }
  const size_t offset = (static_end_ + alignment - 1) / alignment * alignment;
  static_end_ = offset + bytes + kGap;
  static_shared_.push_back({key, offset, bytes});
  allow_access(shared_ + offset, bytes);
  return shared_ + offset;
}

bool BlockRun::is_shared(const void* p, size_t bytes) const {
  const auto* at = static_cast<const std::byte*>(p);
  if (at >= dynamic_ && at + bytes <= dynamic_ + dynamic_bytes_) return true;
  for (const StaticShared& array : static_shared_) {
    if (at >= shared_ + array.offset && at + bytes <= shared_ + array.offset + array.bytes) return true;
  }
  return false;
}

void BlockRun::prepare_shared() {
  allow_access(shared_, kSharedCapacity);
  std::memset(shared_, static_cast<int>(kPoison), static_end_);
  std::byte* end = shared_ + kSharedCapacity;
  std::memset(dynamic_, static_cast<int>(kPoison), static_cast<size_t>(end - dynamic_));
  static_shared_.clear();
  static_end_ = 0;
  static_counted_ = 0;
  dynamic_bytes_ = launch_->dynamic_shared_bytes;
  dynamic_ = end - (dynamic_bytes_ + kDynamicAlignment - 1) / kDynamicAlignment * kDynamicAlignment;
  deny_access(shared_, kSharedCapacity);
  allow_access(dynamic_, dynamic_bytes_);
}

void BlockRun::check_shared() {
  allow_access(shared_, kSharedCapacity);
  const auto intact = [](const std::byte* from, const std::byte* to) {
    return std::all_of(from, to, [](std::byte b) { return b == kPoison; });
  };
  std::string past;
  for (const StaticShared& array : static_shared_) {
    const std::byte* end = shared_ + array.offset + array.bytes;
    if (!intact(end, end + kGap)) past = "a static array of " + std::to_string(array.bytes) + " bytes";
  }
  if (!intact(dynamic_ - kGap, dynamic_)) past = "the start of dynamic shared memory";
  if (!intact(dynamic_ + dynamic_bytes_, shared_ + kSharedCapacity)) {
    past = "the " + std::to_string(dynamic_bytes_) + " bytes of dynamic shared memory";
  }
  if (!past.empty()) {
    failure_ = where() + ": the block wrote past " + past;
    violation_ = Violation::kAddress;
  }
}

std::string BlockRun::describe_address(const void* address) const {
  const auto* at = static_cast<const std::byte*>(address);
  if (at >= shared_ && at < shared_ + kSharedCapacity + (64 << 10)) {
    return std::to_string(at - dynamic_) + " bytes from the start of dynamic shared memory of " +
           std::to_string(dynamic_bytes_) + " bytes";
  }
  return "";
}

bool BlockRun::stack_overflowed(const void* address) {
  fault_on_stack_ = current_->guards(address);
  return fault_on_stack_;
}
void* BlockRun::stack_top() const { return current_->stack_top(); }

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

std::string BlockRun::where() const {
  const auto triple = [](const Dim3& d) {
    return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
  };
  return kernel_name(launch_->kernel) + ", block " + triple(block_idx_) +
         (t_thread == nullptr ? "" : ", thread " + triple(t_thread->thread_idx));
}

void BlockRun::fail(std::string what, Violation violation) {
  failure_ = where() + ": " + what;
  violation_ = violation;
  std::string().swap(what);  // what the abandoned stack holds would never be freed
  switch_to(main_.get());    // never resumed: run() resets every fibre
  std::abort();
}

void BlockRun::fail_at(const void* address, const char* access) {
  fault_address_ = address;
  fault_access_ = access;
  switch_to(main_.get());
  std::abort();
}

// Of a bad access; on the host thread's own stack, because the fibre's may be used up.
std::string BlockRun::describe_fault() const {
  if (fault_on_stack_) return where() + ": the thread's stack is used up";
  std::string place = describe_address(fault_address_);
  if (place.empty()) place = describe_device_address(fault_address_);
  if (place.empty()) place = "not in device memory";
  std::array<char, 24> number = {};
  std::snprintf(number.data(), number.size(), "%p", fault_address_);
  return where() + ": illegal " + fault_access_ + ", " + place + " (address " + number.data() + ")";
}

std::string BlockRun::run(const Launch& launch, Dim3 block_idx, uint64_t seed) {
  launch_ = &launch;
  block_idx_ = block_idx;
  shuffled_ = seed != 0;
  random_ = seed;
  failure_.clear();
  violation_ = Violation::kNone;
  fault_access_ = nullptr;
  fault_on_stack_ = false;
  prepare_shared();
  const size_t num_threads = launch.block.count();
  num_alive_ = static_cast<int>(num_threads);
  num_at_barrier_ = 0;
  threads_.resize(num_threads);
  runs_ahead_ = flip();
  warp_favour_.resize((num_threads + kWarpSize - 1) / kWarpSize);
  for (uint64_t& favour : warp_favour_) favour = runs_ahead_ ? next_random() : 0;
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
    thread.open_copies.copies.clear();
    thread.committed_copies.clear();
    ready_.push_back(&thread);
  }

  t_block = this;
  current_ = main_.get();
  go_on(pop_ready());
  t_block = nullptr;
  if (fault_access_ != nullptr) {
    failure_ = describe_fault();
    violation_ = Violation::kAddress;
  }
  t_thread = nullptr;
  if (failure_.empty()) check_shared();
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
