// NcclWorld: one emulated communicator. The ranks' calls meet when their streams reach them; the last one to come moves the
// data and lets the others go on. Calls that do not fit one another fail and are named.
// Sums go over the ranks in order; 16-bit types are summed in fp32 and rounded once (NCCL rounds at each step of its ring).
// Threads: any; its own mutex.
#pragma once

#include <nccl.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kernels/simt/executor.h"

namespace sextant::simt {

struct NcclCall {
  enum class Kind : uint8_t { kAllReduce, kBroadcast, kAllGather, kReduceScatter, kSend, kReceive };
  Kind kind;
  const void* from;
  void* to;
  size_t count;
  ncclDataType_t type;
  ncclRedOp_t op;
  int peer;  // the root of a broadcast, the other side of a send or receive

  bool is_point_to_point() const { return kind == Kind::kSend || kind == Kind::kReceive; }
  std::string describe() const;
};
size_t size_of(ncclDataType_t type);  // 0: not a type

class NcclWorld {
 public:
  explicit NcclWorld(int num_ranks) : devices_(static_cast<size_t>(num_ranks), -1), next_(devices_.size()) {}
  virtual ~NcclWorld() = default;
  static constexpr int kOfAnotherProcess = -2;  // as a rank's device

  int num_ranks() const { return static_cast<int>(devices_.size()); }
  // Empty, or why the rank cannot join.
  virtual std::string join(int rank, int device);
  // Waits until all ranks have joined; else names those who did not.
  virtual std::string wait_for_all(std::chrono::seconds patience);
  uint64_t device_bits() const;

  virtual Outcome meet(int rank, const NcclCall& call, const WorkPtr& self);
  virtual std::vector<WorkPtr> abort();  // what waited
  virtual ncclResult_t async_error() const;
  // The process of a rank is gone: what waited. Nothing when all of the world's own ranks have left before.
  std::vector<WorkPtr> lose(int rank);
  int local_device() const;  // of the first rank of this process
  std::string failure() const;
  virtual std::string waiting() const;  // "rank 1 waits in AllReduce of 4 float32 for ranks 0, 2"

 private:
  struct Meeting {
    std::vector<const NcclCall*> calls;  // by rank
    std::vector<WorkPtr> items;
    std::vector<NcclCall> store;
    size_t arrived = 0;
    int first = -1;
  };
  struct Waiting {
    int rank;
    NcclCall call;
    WorkPtr item;
  };
  Outcome meet_all(int rank, const NcclCall& call, const WorkPtr& self);
  Outcome meet_peer(int rank, const NcclCall& call, const WorkPtr& self);
  Outcome fail(const std::string& what);
  std::vector<WorkPtr> take_waiting();
  static void move_data(const Meeting& meeting);

  mutable std::mutex mutex_;
  std::condition_variable joined_;
  std::vector<int> devices_;    // by rank; -1: has not joined
  std::vector<uint64_t> next_;  // by rank: its next collective
  uint64_t first_meeting_ = 0;
  std::deque<Meeting> meetings_;                                 // from first_meeting_
  std::map<std::pair<int, int>, std::deque<Waiting>> channels_;  // by sender and receiver
  bool aborted_ = false;
  bool lost_ = false;
  std::string failure_;
};

}  // namespace sextant::simt
