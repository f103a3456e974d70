// The NCCL API over NcclWorld: communicators, groups, and the work that a call becomes. An id names the process that made it;
// ranks of others come to its world over TCP.
#include <nccl.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>

#include "kernels/simt/nccl_remote.h"
#include "kernels/simt/nccl_world.h"
#include "kernels/simt/runtime_state.h"

using sextant::simt::NcclCall;
using sextant::simt::NcclWorld;
using sextant::simt::Runtime;
using sextant::simt::size_of;
using sextant::simt::Work;
using sextant::simt::WorkPtr;

struct ncclComm {
  std::shared_ptr<NcclWorld> world;
  int rank;
  int device;
  WorkPtr last;  // calls of one communicator follow one another, whatever their streams
};

namespace {

struct Registry {
  std::mutex mutex;
  uint64_t next_id = 1;
  std::map<uint64_t, std::weak_ptr<NcclWorld>> worlds;
  std::set<ncclComm_t> comms;
};
Registry& registry() {
  static Registry* const all = new Registry();  // never destroyed: as the runtime
  return *all;
}

struct Call {
  ncclComm_t comm;
  NcclCall call;
  cudaStream_t stream;
};
struct Group {
  int depth = 0;
  std::vector<Call> calls;
  std::vector<std::shared_ptr<NcclWorld>> joining;
};
thread_local Group t_group;
thread_local std::string t_last_error;

ncclResult_t refuse(ncclResult_t result, const std::string& why) {
  t_last_error = why;
  return result;
}

std::chrono::seconds patience() {
  const char* text = std::getenv("SEXTANT_SIMT_PATIENCE_S");
  return std::chrono::seconds(text == nullptr ? 60 : std::strtol(text, nullptr, 10));
}

std::string explain_stuck() {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  std::string text;
  for (const auto& [id, weak] : all.worlds) {
    if (const auto world = weak.lock()) text += world->waiting();
  }
  return text;
}

bool is_comm(ncclComm_t comm) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  return all.comms.contains(comm);
}

// The calls of one stream: collectives one after another, sends and receives between them beside one another, because a
// send and a receive may wait for the same peer.
ncclResult_t enqueue_on(cudaStream_t handle, const std::vector<Call>& calls) {
  Runtime& runtime = Runtime::instance();
  auto lock = runtime.executor().lock();
  for (size_t begin = 0; begin < calls.size();) {
    size_t end = begin + 1;
    while (end < calls.size() && calls[begin].call.is_point_to_point() && calls[end].call.is_point_to_point()) ++end;
    std::vector<Work> works;
    CUstream_st* stream = nullptr;
    for (size_t i = begin; i < end; ++i) {
      const ncclComm& comm = *calls[i].comm;
      stream = handle == nullptr ? &runtime.device(comm.device).legacy : runtime.find(handle);
      if (stream == nullptr || stream->device != comm.device) {
        return refuse(ncclInvalidUsage, "the stream is not one of the communicator's device");
      }
      Work work{.name = "NCCL", .device = comm.device, .devices = comm.world->device_bits()};
      work.meet = [world = comm.world, rank = comm.rank, call = calls[i].call](const WorkPtr& self) {
        return world->meet(rank, call, self);
      };
      works.push_back(std::move(work));
    }
    WorkPtr last = calls[begin].comm->last;
    const cudaError_t error = runtime.enqueue_together(*stream, std::move(works), last, &last);
    if (error != cudaSuccess) return refuse(ncclUnhandledCudaError, cudaGetErrorString(error));
    for (; begin < end; ++begin) calls[begin].comm->last = last;
  }
  return ncclSuccess;
}

ncclResult_t enqueue(const std::vector<Call>& calls) {
  std::vector<std::pair<cudaStream_t, std::vector<Call>>> by_stream;
  for (const Call& call : calls) {
    // The null handle is another stream on each device.
    auto found = std::ranges::find_if(by_stream, [&](const auto& known) {
      return known.first == call.stream && known.second[0].comm->device == call.comm->device;
    });
    if (found == by_stream.end()) found = by_stream.insert(by_stream.end(), {call.stream, {}});
    found->second.push_back(call);
  }
  for (const auto& [stream, of_stream] : by_stream) {
    if (const ncclResult_t result = enqueue_on(stream, of_stream); result != ncclSuccess) return result;
  }
  return ncclSuccess;
}

ncclResult_t submit(NcclCall call, size_t from_count, size_t to_count, ncclComm_t comm, cudaStream_t stream) {
  if (!is_comm(comm)) return refuse(ncclInvalidArgument, "not a communicator");
  Runtime& runtime = Runtime::instance();
  const size_t size = size_of(call.type);
  if (size == 0) return refuse(ncclInvalidArgument, "not a data type");
  if (call.op < ncclSum || call.op > ncclAvg) return refuse(ncclInvalidArgument, "not a reduction");
  if (call.peer < 0 || call.peer >= comm->world->num_ranks()) return refuse(ncclInvalidArgument, "no such rank");
  if (runtime.device(comm->device).sticky != 0) return refuse(ncclUnhandledCudaError, "the device has failed");
  const auto holds = [&](const void* p, size_t count) {
    return count == 0 || runtime.device(comm->device).memory.holds(p, count * size);
  };
  if (!holds(call.from, from_count) || !holds(call.to, to_count)) {
    return refuse(ncclInvalidArgument, call.describe() + ": a buffer is not memory of the rank's device, or too short");
  }
  if (t_group.depth > 0) {
    t_group.calls.push_back({comm, call, stream});
    return ncclSuccess;
  }
  return enqueue({{comm, call, stream}});
}

}  // namespace

namespace sextant::simt {

std::shared_ptr<NcclWorld> nccl_world_of(uint64_t key, int num_ranks) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  std::shared_ptr<NcclWorld> world = all.worlds[key].lock();
  if (world == nullptr) all.worlds[key] = world = std::make_shared<NcclWorld>(num_ranks);
  return world;
}

}  // namespace sextant::simt

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  *id = {};
  const sextant::simt::NcclAddress address = sextant::simt::make_nccl_address(all.next_id++);
  std::memcpy(id->internal, &address, sizeof address);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int num_ranks, ncclUniqueId id, int rank) {
  Runtime& runtime = Runtime::instance();
  if (runtime.entry() != cudaSuccess) return refuse(ncclUnhandledCudaError, "the device cannot be used");
  if (comm == nullptr || num_ranks < 1 || rank < 0 || rank >= num_ranks) {
    return refuse(ncclInvalidArgument, "rank " + std::to_string(rank) + " of " + std::to_string(num_ranks));
  }
  {
    const auto lock = runtime.executor().lock();
    runtime.explain_stuck = &explain_stuck;
  }
  sextant::simt::NcclAddress address;
  std::memcpy(static_cast<void*>(&address), static_cast<const void*>(&id),
              sizeof address);  // its bytes are all that it has
  std::shared_ptr<NcclWorld> world;
  if (sextant::simt::is_of_this_process(address)) {
    world = sextant::simt::nccl_world_of(address.key, num_ranks);
  } else {
    world = std::make_shared<sextant::simt::RemoteNcclWorld>(address, num_ranks);
  }
  if (world->num_ranks() != num_ranks) {
    return refuse(ncclInvalidUsage, "ranks disagree on their number: " + std::to_string(num_ranks) + " and " +
                                        std::to_string(world->num_ranks()));
  }
  std::string why = world->join(rank, sextant::simt::t_device);
  if (!why.empty()) return refuse(ncclInvalidUsage, why);
  auto made = std::make_unique<ncclComm>(ncclComm{world, rank, sextant::simt::t_device, nullptr});
  if (t_group.depth > 0) {
    t_group.joining.push_back(world);
  } else {
    why = world->wait_for_all(patience());
    if (!why.empty()) return refuse(ncclSystemError, why);
  }
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  *comm = made.get();
  all.comms.insert(made.release());
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  return is_comm(comm) ? ncclSuccess : refuse(ncclInvalidArgument, "not a communicator");
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  if (all.comms.erase(comm) == 0) return refuse(ncclInvalidArgument, "not a communicator");
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  if (!is_comm(comm)) return refuse(ncclInvalidArgument, "not a communicator");
  sextant::simt::Executor& executor = Runtime::instance().executor();
  {
    const auto lock = executor.lock();
    for (const WorkPtr& item : comm->world->abort()) executor.complete(item);
  }
  return ncclCommDestroy(comm);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  if (!is_comm(comm)) return refuse(ncclInvalidArgument, "not a communicator");
  *error = comm->world->async_error();
  return ncclSuccess;
}
ncclResult_t ncclCommCount(ncclComm_t comm, int* count) {
  if (!is_comm(comm)) return refuse(ncclInvalidArgument, "not a communicator");
  *count = comm->world->num_ranks();
  return ncclSuccess;
}
ncclResult_t ncclCommCuDevice(ncclComm_t comm, int* device) {
  if (!is_comm(comm)) return refuse(ncclInvalidArgument, "not a communicator");
  *device = comm->device;
  return ncclSuccess;
}
ncclResult_t ncclCommUserRank(ncclComm_t comm, int* rank) {
  if (!is_comm(comm)) return refuse(ncclInvalidArgument, "not a communicator");
  *rank = comm->rank;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
  }
  return "unknown result code";
}
const char* ncclGetLastError(ncclComm_t) { return t_last_error.c_str(); }

ncclResult_t ncclAllReduce(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  return submit({NcclCall::Kind::kAllReduce, from, to, count, type, op, 0}, count, count, comm, stream);
}
ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  const bool is_root = is_comm(comm) && comm->rank == root;
  return submit({NcclCall::Kind::kBroadcast, from, to, count, type, ncclSum, root}, is_root ? count : 0, count, comm,
                stream);
}
ncclResult_t ncclAllGather(const void* from, void* to, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  const size_t ranks = is_comm(comm) ? static_cast<size_t>(comm->world->num_ranks()) : 0;
  return submit({NcclCall::Kind::kAllGather, from, to, count, type, ncclSum, 0}, count, count * ranks, comm, stream);
}
ncclResult_t ncclReduceScatter(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  const size_t ranks = is_comm(comm) ? static_cast<size_t>(comm->world->num_ranks()) : 0;
  return submit({NcclCall::Kind::kReduceScatter, from, to, count, type, op, 0}, count * ranks, count, comm, stream);
}
ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return submit({NcclCall::Kind::kSend, from, nullptr, count, type, ncclSum, peer}, count, 0, comm, stream);
}
ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return submit({NcclCall::Kind::kReceive, nullptr, to, count, type, ncclSum, peer}, 0, count, comm, stream);
}

ncclResult_t ncclGroupStart() {
  ++t_group.depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (t_group.depth == 0) return refuse(ncclInvalidUsage, "no group was begun");
  if (--t_group.depth > 0) return ncclSuccess;
  const Group group = std::exchange(t_group, {});
  for (const auto& world : group.joining) {
    const std::string why = world->wait_for_all(patience());
    if (!why.empty()) return refuse(ncclSystemError, why);
  }
  return group.calls.empty() ? ncclSuccess : enqueue(group.calls);
}
