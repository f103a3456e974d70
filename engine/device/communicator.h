// Communicator: what the ranks of one group say to one another about buffers: sums, gathers, broadcasts, sends. One object per
// rank and group; a rank may be in several groups (tensor parallel, pipeline parallel). Implementations: threads of one process
// in host memory (thread_communicator), NCCL on CUDA streams (nccl_communicator).
//
// Order: every rank of a group makes the same collective calls in the same order. Each call has a number, counted from 0 per
// rank and group; calls of the same number must agree in kind, count, dtype and root. Sends and receives are numbered per
// pair of ranks instead. A disagreement, or a rank that does not arrive in time, fails the group for good: every call on
// every rank then returns kDeviceError, whose message names the number, what each side called and the ranks at fault.
//
// Stream: an opaque handle of the device's (cudaStream_t). With one, a call enqueues and returns, and the buffers belong to it
// until the stream has passed; host communicators take nullptr and have finished when they return.
// Threads: calls by the rank's thread, one at a time; abort(), status(), number() and counters() by any.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/dtype.h"
#include "engine/base/result.h"

namespace sextant {

enum class CollectiveKind : uint8_t { kAllReduce, kAllGather, kReduceScatter, kGather, kBroadcast, kSend, kReceive };
inline constexpr int kNumCollectiveKinds = 7;
// "all_reduce", "all_gather", ...: the names of metrics and messages.
constexpr std::string_view collective_kind_name(CollectiveKind kind) {
  constexpr std::array<std::string_view, kNumCollectiveKinds> kNames = {
      "all_reduce", "all_gather", "reduce_scatter", "gather", "broadcast", "send", "receive"};
  return kNames[static_cast<size_t>(kind)];
}

// One rank's view of a call, as it is compared with the others' and named in errors.
struct CollectiveCall {
  CollectiveKind kind = CollectiveKind::kAllReduce;
  int64_t count = 0;  // elements, as the method below counts them; of all ranks together for kGather
  DType dtype = DType::kFloat32;
  int peer = -1;  // root of a broadcast or gather, other side of a send or receive; else -1

  bool operator==(const CollectiveCall&) const = default;
  uint64_t bytes() const { return static_cast<uint64_t>(count) * dtype_size(dtype); }
  std::string describe() const;  // "all_reduce of 576 float32", "broadcast of 4 int32 from rank 0"
};

// Of one rank since start. Bytes are the payload, not what an algorithm puts on wires: all_reduce, broadcast, send, receive:
// the buffer; all_gather and gather: all ranks' parts together; reduce_scatter: the whole input. memory_model has the formula.
struct CollectiveCounters {
  struct OfKind {
    uint64_t calls = 0;
    uint64_t bytes = 0;
  };
  std::array<OfKind, kNumCollectiveKinds> kinds;

  OfKind& of(CollectiveKind kind) { return kinds[static_cast<size_t>(kind)]; }
  const OfKind& of(CollectiveKind kind) const { return kinds[static_cast<size_t>(kind)]; }
  void add(const CollectiveCounters& other);
};

class Communicator {
 public:
  using Stream = void*;

  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  // "threads of this process", "NCCL 2.28.9": for --version and logs.
  virtual std::string description() const = 0;

  // data[i] = sum over ranks of data[i], in place; float32, float16, bfloat16. Every rank gets the same bits. Host
  // communicators sum in the order of ranks, in float32, rounded once; NCCL in an order of its own.
  Status all_reduce(void* data, int64_t count, DType dtype, Stream stream = nullptr);
  // to [size, count]: what every rank has at `from` [count], in the order of ranks. `from` may be its place in `to`.
  Status all_gather(const void* from, void* to, int64_t count, DType dtype, Stream stream = nullptr);
  // to [count] = sum over ranks of from [size, count], row rank(). `to` may be that row.
  Status reduce_scatter(const void* from, void* to, int64_t count, DType dtype, Stream stream = nullptr);
  // Rank r's counts[r] elements at `from`, one after another at `to` of the root; elsewhere `to` is not used. The same counts
  // on every rank. `from` must not overlap `to` but may be its place in it.
  Status gather(const void* from, void* to, std::span<const int64_t> counts, DType dtype, int root,
                Stream stream = nullptr);
  // The root's data on every rank.
  Status broadcast(void* data, int64_t count, DType dtype, int root, Stream stream = nullptr);
  // Point to point; they meet in the order of calls between a pair. A host communicator's send returns when it was received.
  Status send(const void* data, int64_t count, DType dtype, int peer, Stream stream = nullptr);
  Status receive(void* data, int64_t count, DType dtype, int peer, Stream stream = nullptr);

  // Ends what waits, here and on the ranks that it can reach, with kDeviceError "<reason>". The first reason stays.
  virtual void abort(const std::string& reason) = 0;
  // ok, or why the group failed. Asks the library too (ncclCommGetAsyncError).
  virtual Status status() = 0;
  // Who did not come to the oldest call that some rank of this process waits in, in words; empty when that is nobody, or unknown.
  virtual std::string missing() const { return {}; }

  // Collectives that this rank has entered (sends and receives not counted). Ranks that wait differ by at most one
  // on the host; on a stream this is what was enqueued.
  uint64_t number() const { return number_.load(std::memory_order_relaxed); }
  CollectiveCounters counters() const;

  // The call that this rank is in, for watchdogs: host communicators wait inside, on a stream a call returns at once. Any thread.
  struct Inside {
    CollectiveCall call;
    double seconds = 0;  // so far
  };
  std::optional<Inside> inside() const;
  // Spent inside calls since start.
  double inside_s() const;

  // What a step recorded as a graph moves: calls between begin and end are kept apart from the counters, and each replay of
  // the graph, announced by replayed(), counts them. Rank's thread.
  void begin_recording();
  CollectiveCounters end_recording();
  void replayed(const CollectiveCounters& recorded);

 protected:
  Communicator(int rank, int size) : rank_(rank), size_(size) {}

  virtual Status do_all_reduce(void* data, const CollectiveCall& call, Stream stream) = 0;
  virtual Status do_all_gather(const void* from, void* to, int64_t count, const CollectiveCall& call,
                               Stream stream) = 0;
  virtual Status do_reduce_scatter(const void* from, void* to, int64_t count, const CollectiveCall& call,
                                   Stream stream) = 0;
  virtual Status do_gather(const void* from, void* to, std::span<const int64_t> counts, const CollectiveCall& call,
                           Stream stream) = 0;
  virtual Status do_broadcast(void* data, const CollectiveCall& call, Stream stream) = 0;
  virtual Status do_send(const void* data, const CollectiveCall& call, Stream stream) = 0;
  virtual Status do_receive(void* data, const CollectiveCall& call, Stream stream) = 0;

 private:
  void check(const CollectiveCall& call) const;
  void enter(const CollectiveCall& call);
  Status leave(Status result);

  const int rank_;
  const int size_;
  std::atomic<uint64_t> number_{0};
  mutable std::mutex counters_mutex_;
  CollectiveCounters counters_;
  CollectiveCounters recorded_;
  bool recording_ = false;
  std::optional<CollectiveCall> inside_;
  int64_t inside_since_ns_ = 0;
  double inside_s_ = 0;
};

// "rank 2", "ranks 0, 2 and 3".
std::string name_ranks(std::span<const int> ranks);

}  // namespace sextant
