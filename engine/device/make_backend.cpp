#include "engine/device/make_backend.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "engine/base/log.h"
#include "engine/device/cpu_backend.h"
#include "engine/device/cuda_backend.h"
#include "engine/device/cuda_device.h"
#include "engine/device/nccl_communicator.h"
#include "engine/device/numa.h"
#include "engine/device/thread_communicator.h"
#include "engine/device/usable_cpus.h"

namespace sextant {
namespace {

// Whether `--device` means CUDA here, or why it can mean nothing.
Result<bool> means_cuda(const DeviceConfig& config) {
  if (config.device == "cpu") return false;
  if (config.device == "cuda-emulated") {
    if (cuda_is_emulated()) return true;
    return unsupported("this build holds the real CUDA backend, not the emulator", "device");
  }
  if (config.device == "cuda") {
    if (!cuda_is_emulated()) return true;
    return unsupported(
        "this build has no CUDA: configure with the preset `cuda` (it needs the CUDA toolkit), or use --device cpu",
        "device");
  }
  return !cuda_is_emulated() && cuda_available();
}

// Binds the calling thread as config.cpu_bind says; num_threads of `of_rank`, unless the user chose it, becomes what fits there.
Status take_place(const DeviceConfig& config, int rank, int size, DeviceConfig& of_rank) {
  const std::vector<NumaNode> nodes = numa_nodes(allowed_cpus());
  ASSIGN_OR_RETURN(const RankPlace place, place_of_rank(config.cpu_bind, nodes, rank, size));
  if (!place.interleave_nodes.empty()) {
    const bool done = interleave_memory(place.interleave_nodes);
    LOG_INFO << "this machine has " << nodes.size() << " NUMA nodes: "
             << (done ? "memory is spread over them; " : "the system refused to spread memory over them; ")
             << "--tensor-parallel-size " << nodes.size()
             << " would keep each one's threads with its share of the weights";
  }
  if (place.cpus.empty()) return ok_status();
  const auto count = static_cast<int64_t>(place.cpus.size());
  if (config.num_threads == 0) {
    const bool chosen = config.cpu_bind != "auto";  // then a list's length is the user's choice too
    of_rank.num_threads = chosen || of_rank.num_threads == 0 ? count : std::min(of_rank.num_threads, count);
  }
  if (bind_to_cpus(place.cpus)) {
    LOG_INFO << "rank " << rank << " runs on " << count << " CPUs from " << place.cpus.front();
  } else {
    LOG_WARNING << "rank " << rank << " could not be bound to its " << count << " CPUs: the system refused";
  }
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<Backend>> make_backend(const DeviceConfig& config) { return make_rank_backend(config, 0, 1); }

Result<std::unique_ptr<Backend>> make_rank_backend(const DeviceConfig& config, int rank, int size, DType activation) {
  ASSIGN_OR_RETURN(const bool is_cuda, means_cuda(config));
  DeviceConfig of_rank = config;
  if (size > 1) {
    const int of_process = config.num_threads > 0 ? static_cast<int>(config.num_threads) : usable_cpus();
    // The first ranks get what does not divide.
    of_rank.num_threads = std::max(1, of_process / size + (rank < of_process % size ? 1 : 0));
  }
  if (!is_cuda) RETURN_IF_ERROR(take_place(config, rank, size, of_rank));
  return is_cuda ? make_cuda_backend(of_rank, rank, activation) : make_cpu_backend(of_rank);
}

Result<RankMeeting> make_rank_meeting(const DeviceConfig& config, int size, double timeout_s) {
  ASSIGN_OR_RETURN(const bool is_cuda, means_cuda(config));
  if (is_cuda) {
    ASSIGN_OR_RETURN(const NcclId id, make_nccl_id());
    return RankMeeting([id, size, ledger = make_nccl_ledger(size)](int rank) {
      return make_nccl_communicator(id, rank, size, ledger);
    });
  }
  auto ranks = std::make_shared<std::vector<std::unique_ptr<Communicator>>>(make_thread_communicators(size, timeout_s));
  return RankMeeting([ranks](int rank) -> Result<std::unique_ptr<Communicator>> {
    return std::move((*ranks)[static_cast<size_t>(rank)]);
  });
}

Result<std::string> make_group_id(const DeviceConfig& config) {
  ASSIGN_OR_RETURN(const bool is_cuda, means_cuda(config));
  if (!is_cuda) return std::string();
  ASSIGN_OR_RETURN(const NcclId id, make_nccl_id());
  return std::string(reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size());
}

Result<RankMeeting> make_remote_meeting(const DeviceConfig& config, TcpMeetingPoint& point, uint32_t group,
                                        const std::string& id, std::vector<TcpMeetingPoint::Address> addresses,
                                        Deadline deadline, double timeout_s) {
  ASSIGN_OR_RETURN(const bool is_cuda, means_cuda(config));
  if (!is_cuda) {
    return RankMeeting([&point, group, addresses = std::move(addresses), deadline, timeout_s](int rank) {
      return point.join(group, rank, addresses, deadline, timeout_s);
    });
  }
  NcclId nccl;
  if (id.size() != nccl.bytes.size()) return data_loss("a node's NCCL id is damaged");
  std::memcpy(nccl.bytes.data(), id.data(), id.size());
  return RankMeeting([nccl, size = static_cast<int>(addresses.size())](int rank) {
    return make_nccl_communicator(nccl, rank, size, nullptr);
  });
}

}  // namespace sextant
