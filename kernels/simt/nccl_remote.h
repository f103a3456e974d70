// NCCL between processes under emulation, over loopback TCP. The process that made the id holds the world: its own ranks come as
// ever, and each rank of another process has a connection, over which its calls come with their data and go back with their
// results. In the world such a call is work like any other, on host memory.
// Threads: one that accepts, one that reads and one that writes per connection.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kernels/simt/nccl_world.h"

namespace sextant::simt {

// Where this process is found, as an id holds it; listens from the first call on.
struct NcclAddress {
  uint64_t key = 0;    // of the world, in the process that made the id
  uint64_t token = 0;  // of that process: what connections have to begin with
  uint16_t port = 0;
};
NcclAddress make_nccl_address(uint64_t key);
bool is_of_this_process(const NcclAddress& address);

// A rank's side of a world that another process holds.
class RemoteNcclWorld final : public NcclWorld, public std::enable_shared_from_this<RemoteNcclWorld> {
 public:
  RemoteNcclWorld(const NcclAddress& address, int num_ranks) : NcclWorld(num_ranks), address_(address) {}
  ~RemoteNcclWorld() override;

  std::string join(int rank, int device) override;
  std::string wait_for_all(std::chrono::seconds patience) override;
  Outcome meet(int rank, const NcclCall& call, const WorkPtr& self) override;
  std::vector<WorkPtr> abort() override;
  ncclResult_t async_error() const override;
  std::string waiting() const override;

 private:
  struct Pending {
    WorkPtr item;
    NcclCall call;
    bool answered = false;
    std::string error;
    std::vector<std::byte> result;
  };
  static void read(const std::weak_ptr<RemoteNcclWorld>& weak, int socket);  // the reader's thread
  void take(uint64_t number, bool failed, bool is_welcome, std::vector<std::byte> data);
  void lose(const std::string& why);

  const NcclAddress address_;
  int socket_ = -1;
  int rank_ = -1;
  std::thread reader_;
  mutable std::mutex state_mutex_;
  std::condition_variable changed_;
  bool complete_ = false;
  std::string lost_;
  uint64_t next_number_ = 0;
  std::map<uint64_t, Pending> pending_;  // by number of the call
};

// The world of an id that this process made; made by whoever comes first, a rank of this process or of another. nccl.cpp has it.
std::shared_ptr<NcclWorld> nccl_world_of(uint64_t key, int num_ranks);

}  // namespace sextant::simt
