#include "kernels/simt/nccl_world.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>

#include "kernels/simt/runtime_state.h"

namespace sextant::simt {
namespace {

struct TypeFacts {
  const char* name;
  size_t bytes;
};
constexpr TypeFacts kTypes[] = {{"int8", 1},   {"uint8", 1},   {"int32", 4},   {"uint32", 4},  {"int64", 8},
                                {"uint64", 8}, {"float16", 2}, {"float32", 4}, {"float64", 8}, {"bfloat16", 2}};

template <typename T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

// One element over all ranks; `Sum` is what partial results are kept in.
template <typename T, typename Sum, Sum (*kWiden)(T), T (*kNarrow)(Sum)>
void reduce(std::byte* out, const std::vector<const std::byte*>& in, size_t count, ncclRedOp_t op) {
  for (size_t i = 0; i < count; ++i) {
    Sum sum = kWiden(load<T>(in[0] + i * sizeof(T)));
    for (size_t rank = 1; rank < in.size(); ++rank) {
      const Sum x = kWiden(load<T>(in[rank] + i * sizeof(T)));
      switch (op) {
        case ncclSum:
        case ncclAvg: sum = static_cast<Sum>(sum + x); break;
        case ncclProd: sum = static_cast<Sum>(sum * x); break;
        case ncclMax: sum = std::max(sum, x); break;
        case ncclMin: sum = std::min(sum, x); break;
      }
    }
    if (op == ncclAvg) sum = static_cast<Sum>(sum / static_cast<Sum>(in.size()));
    const T result = kNarrow(sum);
    std::memcpy(out + i * sizeof(T), &result, sizeof(T));
  }
}
template <typename T, typename Sum>
Sum widen(T x) {
  return static_cast<Sum>(x);
}
template <typename T, typename Sum>
T narrow(Sum x) {
  return static_cast<T>(x);
}
template <typename T, typename Sum>
constexpr auto kReduce = &reduce<T, Sum, &widen<T, Sum>, &narrow<T, Sum>>;

void reduce_any(ncclDataType_t type, std::byte* out, const std::vector<const std::byte*>& in, size_t count,
                ncclRedOp_t op) {
  switch (type) {
    case ncclInt8: return kReduce<int8_t, int64_t>(out, in, count, op);
    case ncclUint8: return kReduce<uint8_t, uint64_t>(out, in, count, op);
    case ncclInt32: return kReduce<int32_t, int64_t>(out, in, count, op);
    case ncclUint32: return kReduce<uint32_t, uint64_t>(out, in, count, op);
    case ncclInt64: return kReduce<int64_t, int64_t>(out, in, count, op);
    case ncclUint64: return kReduce<uint64_t, uint64_t>(out, in, count, op);
    case ncclFloat16: return reduce<__half, float, &__half2float, &__float2half>(out, in, count, op);
    case ncclFloat32: return kReduce<float, float>(out, in, count, op);
    case ncclFloat64: return kReduce<double, double>(out, in, count, op);
    case ncclBfloat16: return reduce<__nv_bfloat16, float, &__bfloat162float, &__float2bfloat16>(out, in, count, op);
  }
}

const char* name_of(NcclCall::Kind kind) {
  switch (kind) {
    case NcclCall::Kind::kAllReduce: return "AllReduce";
    case NcclCall::Kind::kBroadcast: return "Broadcast";
    case NcclCall::Kind::kAllGather: return "AllGather";
    case NcclCall::Kind::kReduceScatter: return "ReduceScatter";
    case NcclCall::Kind::kSend: return "Send";
    case NcclCall::Kind::kReceive: return "Recv";
  }
  return "";
}

std::string list(const std::vector<int>& ranks) {
  std::string text;
  for (const int rank : ranks) text += (text.empty() ? "" : ", ") + std::to_string(rank);
  return text;
}

}  // namespace

size_t size_of(ncclDataType_t type) {
  const auto index = static_cast<size_t>(type);
  return index < std::size(kTypes) ? kTypes[index].bytes : 0;
}

std::string NcclCall::describe() const {
  static constexpr const char* kOps[] = {"sum", "product", "maximum", "minimum", "average"};
  std::string text = std::string(name_of(kind)) + " of " + std::to_string(count) + " " + kTypes[type].name;
  if (kind == Kind::kAllReduce || kind == Kind::kReduceScatter) text += std::string(", ") + kOps[op];
  if (kind == Kind::kBroadcast) text += " from rank " + std::to_string(peer);
  if (kind == Kind::kSend) text += " to rank " + std::to_string(peer);
  if (kind == Kind::kReceive) text += " from rank " + std::to_string(peer);
  return text;
}

std::string NcclWorld::join(int rank, int device) {
  const std::lock_guard lock(mutex_);
  if (devices_[static_cast<size_t>(rank)] != -1) return "rank " + std::to_string(rank) + " has joined already";
  if (device >= 0 && std::ranges::find(devices_, device) != devices_.end()) {
    return "device " + std::to_string(device) + " is that of two ranks";
  }
  devices_[static_cast<size_t>(rank)] = device;
  joined_.notify_all();
  return "";
}

std::string NcclWorld::wait_for_all(std::chrono::seconds patience) {
  std::unique_lock lock(mutex_);
  const auto all = [&] { return std::ranges::find(devices_, -1) == devices_.end(); };
  if (joined_.wait_for(lock, patience, all)) return "";
  std::vector<int> absent;
  for (int rank = 0; rank < num_ranks(); ++rank) {
    if (devices_[static_cast<size_t>(rank)] == -1) absent.push_back(rank);
  }
  return "rank " + list(absent) + " of " + std::to_string(num_ranks()) + " did not join";
}

uint64_t NcclWorld::device_bits() const {
  const std::lock_guard lock(mutex_);
  uint64_t bits = 0;
  for (const int device : devices_) {
    if (device >= 0) bits |= uint64_t{1} << device;
  }
  return bits;
}

Outcome NcclWorld::meet(int rank, const NcclCall& call, const WorkPtr& self) {
  const std::lock_guard lock(mutex_);
  if (aborted_) return {};
  if (!failure_.empty()) return {.error = cudaErrorLaunchFailure, .report = failure_};
  return call.is_point_to_point() ? meet_peer(rank, call, self) : meet_all(rank, call, self);
}

Outcome NcclWorld::meet_all(int rank, const NcclCall& call, const WorkPtr& self) {
  const auto index = static_cast<size_t>(rank);
  const uint64_t number = next_[index]++;
  while (first_meeting_ + meetings_.size() <= number) {
    meetings_.push_back({.calls = std::vector<const NcclCall*>(devices_.size()),
                         .items = std::vector<WorkPtr>(devices_.size()),
                         .store = std::vector<NcclCall>(devices_.size(), call)});
  }
  Meeting& meeting = meetings_[number - first_meeting_];
  if (meeting.first < 0) meeting.first = rank;
  meeting.store[index] = call;
  meeting.calls[index] = &meeting.store[index];
  const NcclCall& other = meeting.store[static_cast<size_t>(meeting.first)];
  if (call.describe() != other.describe()) {
    return fail("NCCL: collective " + std::to_string(number) + " is " + call.describe() + " on rank " +
                std::to_string(rank) + " and " + other.describe() + " on rank " + std::to_string(meeting.first));
  }
  meeting.items[index] = self;
  if (++meeting.arrived < devices_.size()) return {.waits = true};
  move_data(meeting);
  Outcome outcome;
  for (const WorkPtr& item : meeting.items) {
    if (item != self) outcome.completes.push_back(item);
  }
  meetings_.pop_front();  // every rank came to this one, so none is at an earlier one
  ++first_meeting_;
  return outcome;
}

Outcome NcclWorld::meet_peer(int rank, const NcclCall& call, const WorkPtr& self) {
  const bool sends = call.kind == NcclCall::Kind::kSend;
  std::deque<Waiting>& channel = channels_[sends ? std::pair(rank, call.peer) : std::pair(call.peer, rank)];
  if (channel.empty() || channel.front().call.kind == call.kind) {
    channel.push_back({rank, call, self});
    return {.waits = true};
  }
  const Waiting other = channel.front();
  channel.pop_front();
  if (other.call.count != call.count || other.call.type != call.type) {
    channel.push_front(other);
    return fail("NCCL: rank " + std::to_string(rank) + " is in " + call.describe() + ", rank " +
                std::to_string(other.rank) + " in " + other.call.describe());
  }
  const NcclCall& from = sends ? call : other.call;
  const NcclCall& to = sends ? other.call : call;
  if (call.count > 0) std::memmove(to.to, from.from, call.count * size_of(call.type));
  return {.completes = {other.item}};
}

void NcclWorld::move_data(const Meeting& meeting) {
  const NcclCall& call = meeting.store[0];
  const size_t ranks = meeting.calls.size();
  const size_t bytes = call.count * size_of(call.type);
  if (bytes == 0) return;
  std::vector<const std::byte*> in;
  for (const NcclCall* each : meeting.calls) in.push_back(static_cast<const std::byte*>(each->from));
  // First all is read, then all is written: buffers may be the same.
  std::vector<std::byte> result;
  switch (call.kind) {
    case NcclCall::Kind::kAllReduce:
    case NcclCall::Kind::kReduceScatter: {
      const size_t count = call.kind == NcclCall::Kind::kAllReduce ? call.count : call.count * ranks;
      result.resize(count * size_of(call.type));
      reduce_any(call.type, result.data(), in, count, call.op);
      break;
    }
    case NcclCall::Kind::kAllGather:
      for (const std::byte* part : in) result.insert(result.end(), part, part + bytes);
      break;
    case NcclCall::Kind::kBroadcast: {
      const std::byte* root = in[static_cast<size_t>(call.peer)];
      result.assign(root, root + bytes);
      break;
    }
    default: break;
  }
  const bool scatters = call.kind == NcclCall::Kind::kReduceScatter;
  for (size_t rank = 0; rank < ranks; ++rank) {
    std::memcpy(meeting.calls[rank]->to, result.data() + (scatters ? rank * bytes : 0),
                scatters ? bytes : result.size());
  }
}

// Every rank's device fails: with NCCL they would hang.
Outcome NcclWorld::fail(const std::string& what) {
  failure_ = what;
  for (const int id : devices_) {
    if (id < 0) continue;
    int none = 0;
    Runtime::instance().device(id).sticky.compare_exchange_strong(none, cudaErrorLaunchFailure);
  }
  return {.error = cudaErrorLaunchFailure, .report = what, .completes = take_waiting()};
}

std::vector<WorkPtr> NcclWorld::take_waiting() {
  std::vector<WorkPtr> items;
  for (const Meeting& meeting : meetings_) {
    for (const WorkPtr& item : meeting.items) {
      if (item != nullptr) items.push_back(item);
    }
  }
  for (const auto& [ends, channel] : channels_) {
    for (const Waiting& waiting : channel) items.push_back(waiting.item);
  }
  meetings_.clear();
  channels_.clear();
  return items;
}

std::vector<WorkPtr> NcclWorld::abort() {
  const std::lock_guard lock(mutex_);
  aborted_ = true;
  return take_waiting();
}

std::vector<WorkPtr> NcclWorld::lose(int rank) {
  const std::lock_guard lock(mutex_);
  lost_ = true;
  if (!failure_.empty()) return {};
  return fail("NCCL: the process of rank " + std::to_string(rank) + " is gone").completes;
}

int NcclWorld::local_device() const {
  const std::lock_guard lock(mutex_);
  for (const int device : devices_) {
    if (device >= 0) return device;
  }
  return 0;
}

std::string NcclWorld::failure() const {
  const std::lock_guard lock(mutex_);
  return aborted_ && failure_.empty() ? "NCCL: aborted" : failure_;
}

ncclResult_t NcclWorld::async_error() const {
  const std::lock_guard lock(mutex_);
  if (lost_) return ncclRemoteError;
  if (!failure_.empty()) return ncclInvalidUsage;
  return aborted_ ? ncclRemoteError : ncclSuccess;
}

std::string NcclWorld::waiting() const {
  const std::lock_guard lock(mutex_);
  std::string text;
  for (const Meeting& meeting : meetings_) {
    std::vector<int> present;
    std::vector<int> absent;
    for (int rank = 0; rank < num_ranks(); ++rank) {
      (meeting.calls[static_cast<size_t>(rank)] != nullptr ? present : absent).push_back(rank);
    }
    if (present.empty()) continue;
    text += "\n  NCCL: rank " + list(present) + " in " +
            meeting.store[static_cast<size_t>(present.front())].describe() + ", missing is rank " + list(absent);
  }
  for (const auto& [ends, channel] : channels_) {
    for (const Waiting& waiting : channel) {
      text += "\n  NCCL: rank " + std::to_string(waiting.rank) + " in " + waiting.call.describe();
    }
  }
  return text;
}

}  // namespace sextant::simt
