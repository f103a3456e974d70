// BlockRun: one CUDA thread block on one host thread. Each CUDA thread is a fibre (Boost.Context) that runs until it waits:
// at a block barrier or in a warp collective. A thread that never waits costs no switch. Which ready thread goes on is
// drawn from a seed, so that a missing barrier shows; seed 0 keeps the order of thread indices.
// A violation of CUDA's rules ends the block: run() returns what was wrong and where.
// Threads: one BlockRun per host thread; device code reaches it through current_block() and current_thread().
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace sextant::simt {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t{x} * y * z; }
};

inline constexpr int kWarpSize = 32;

// A copy that cp.async began: its bytes arrive at the wait of its group, or any time before.
struct AsyncCopy {
  void* to;
  const void* from;
  uint32_t bytes;       // written
  uint32_t read_bytes;  // read; the rest is zero
};
struct AsyncGroup {
  std::vector<AsyncCopy> copies;  // empty once they have arrived
  void arrive();
};

class Fibre;

struct ThreadState {
  Dim3 thread_idx{0, 0, 0};
  int linear = 0;
  Fibre* fibre = nullptr;  // while it waits
  bool done = false;
  const char* waits_at = nullptr;  // what it waits for; nullptr while it runs
  int waits_line = 0;
  AsyncGroup open_copies;                    // not yet committed
  std::vector<AsyncGroup> committed_copies;  // oldest first

  int lane() const { return linear % kWarpSize; }
  int warp() const { return linear / kWarpSize; }
};

class BlockRun {
 public:
  struct Launch {
    const void* kernel = nullptr;  // the function's address: its name is looked up for a report
    std::function<void()> body;
    Dim3 grid;
    Dim3 block;
    size_t dynamic_shared_bytes = 0;
    size_t max_shared_bytes = 48 << 10;  // static and dynamic together
  };
  enum class Violation { kNone, kRule, kAddress, kAlignment, kResources };

  BlockRun();
  ~BlockRun();
  BlockRun(const BlockRun&) = delete;
  BlockRun& operator=(const BlockRun&) = delete;

  // Runs block `block_idx`; empty when all went well, else what was wrong.
  std::string run(const Launch& launch, Dim3 block_idx, uint64_t seed);
  Violation violation() const { return violation_; }  // of the last run

  // Device code's side.
  const Launch& launch() const { return *launch_; }
  Dim3 block_idx() const { return block_idx_; }
  void sync_threads(const char* file, int line);
  // Waits until every lane of `mask` came to the same collective; the last one runs complete(args by lane, mask).
  void collective(const char* name, uint32_t mask, void* lane_args,
                  void (*complete)(void* const* lanes, uint32_t mask));
  void* static_shared(const void* key, size_t bytes, size_t alignment);
  void* dynamic_shared() { return dynamic_; }
  // Whether [p, p + bytes) is inside one array of the block's shared memory.
  bool is_shared(const void* p, size_t bytes) const;
  // A fair coin for what CUDA leaves open; false in the order of thread indices.
  bool flip() { return shuffled_ && (next_random() >> 33 & 1u) != 0; }
  // Ends the block. `what` is taken by value: the stack that made it is abandoned.
  [[noreturn]] void fail(std::string what, Violation violation = Violation::kRule);
  // Ends the block for a bad access ("read") of the running thread; to be called on its stack.
  [[noreturn]] void fail_at(const void* address, const char* access);
  // Whether the access hit the guard page of the running fibre's stack: then fail_at() is to be called from stack_top().
  bool stack_overflowed(const void* address);
  void* stack_top() const;

 private:
  struct Collective {  // lanes that came so far
    const char* name = nullptr;
    uint32_t mask = 0;
    uint32_t arrived = 0;
    void* args[kWarpSize] = {};
  };
  struct StaticShared {
    const void* key;
    size_t offset;
    size_t bytes;
  };
  friend class Fibre;
  static void fibre_entry(void* run);
  void fibre_loop();
  ThreadState* pop_ready();
  void make_ready(ThreadState* thread) { ready_.push_back(thread); }
  void wait(const char* what, int line);
  void switch_to(Fibre* fibre);
  void go_on(ThreadState* next);
  void release_barrier();
  std::string waiting_threads() const;
  std::string where() const;
  std::string describe_address(const void* address) const;  // in the block's shared memory; empty: elsewhere
  std::string describe_fault() const;
  uint64_t next_random();
  size_t choose_ready();
  void prepare_shared();
  void check_shared();  // ends the block when something was written beside its arrays

  const Launch* launch_ = nullptr;
  Dim3 block_idx_;
  uint64_t random_ = 0;
  bool shuffled_ = false;
  bool runs_ahead_ = false;            // one warp goes as far as it can while the others stand, then the next
  std::vector<uint64_t> warp_favour_;  // of each warp; the greatest that is ready goes on
  int num_alive_ = 0;
  int num_at_barrier_ = 0;
  std::vector<ThreadState> threads_;
  std::vector<ThreadState*> ready_;
  size_t ready_head_ = 0;
  std::vector<std::vector<Collective>> collectives_;  // by warp
  std::unique_ptr<Fibre> main_;
  std::vector<std::unique_ptr<Fibre>> fibres_;
  std::vector<Fibre*> free_fibres_;
  Fibre* current_ = nullptr;
  std::vector<StaticShared> static_shared_;
  // Static arrays grow from the start, each with a gap behind it; the dynamic one ends at the guard page. All that belongs
  // to no array stays poisoned and is checked when the block ends.
  std::byte* shared_ = nullptr;
  std::byte* dynamic_ = nullptr;
  size_t dynamic_bytes_ = 0;
  size_t static_end_ = 0;      // with the gaps
  size_t static_counted_ = 0;  // as the device counts: without them
  std::string failure_;
  Violation violation_ = Violation::kNone;
  const void* fault_address_ = nullptr;
  const char* fault_access_ = nullptr;
  bool fault_on_stack_ = false;
};

// Of the device code that this host thread runs; nullptr outside of kernels.
extern thread_local BlockRun* t_block;
extern thread_local ThreadState* t_thread;
inline BlockRun& current_block() { return *t_block; }
inline ThreadState& current_thread() { return *t_thread; }

}  // namespace sextant::simt
