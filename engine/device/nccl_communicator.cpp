#include "engine/device/nccl_communicator.h"

#include <atomic>
#include <chrono>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/base/check.h"

#if defined(SEXTANT_NCCL)
#include <cuda_runtime.h>
#include <nccl.h>

#include <cstring>
#endif

namespace sextant {

// The calls of ranks that have not all been made yet, by number; any thread.
class NcclLedger {
 public:
  explicit NcclLedger(int size) : next_(static_cast<size_t>(size)) {}

  // Rank's next collective. An error when another rank called something else under that number: for good.
  Status enter(int rank, const CollectiveCall& call) {
    const std::lock_guard lock(mutex_);
    if (!failure_.ok()) return failure_;
    const uint64_t number = next_[static_cast<size_t>(rank)]++;
    if (number == first_ + calls_.size()) calls_.push_back({call, rank, 0});
    Entry& entry = calls_[number - first_];
    if (entry.call != call) {
      return fail("collective " + std::to_string(number) + ": rank " + std::to_string(entry.rank) + " calls " +
                  entry.call.describe() + ", rank " + std::to_string(rank) + " calls " + call.describe());
    }
    if (++entry.num_ranks == static_cast<int>(next_.size())) {
      calls_.pop_front();  // all came to those before it, too
      ++first_;
    }
    return ok_status();
  }
  Status fail(const std::string& why) {
    if (failure_.ok()) failure_ = Status(StatusCode::kDeviceError, why);
    return failure_;
  }
  Status abort(const std::string& reason) {
    const std::lock_guard lock(mutex_);
    return fail(reason);
  }
  // The failure; else, of ranks that wait on the device, who did not come to the oldest call that is not complete.
  Status status() const {
    const std::lock_guard lock(mutex_);
    return failure_;
  }
  std::string missing() const {
    const std::lock_guard lock(mutex_);
    if (calls_.empty()) return {};
    std::vector<int> present, absent;
    for (size_t rank = 0; rank < next_.size(); ++rank)
      (next_[rank] > first_ ? present : absent).push_back(static_cast<int>(rank));
    return "collective " + std::to_string(first_) + " (" + calls_.front().call.describe() + "): " + name_ranks(absent) +
           " of " + std::to_string(next_.size()) + " did not arrive; " + name_ranks(present) + " did";
  }

 private:
  struct Entry {
    CollectiveCall call;
    int rank;  // the first that came
    int num_ranks;
  };
  mutable std::mutex mutex_;
  std::vector<uint64_t> next_;  // by rank
  uint64_t first_ = 0;          // number of calls_[0]
  std::deque<Entry> calls_;
  Status failure_;
};

std::shared_ptr<NcclLedger> make_nccl_ledger(int size) { return std::make_shared<NcclLedger>(size); }

#if defined(SEXTANT_NCCL)
namespace {

Status nccl_status(ncclResult_t result, const std::string& what) {
  if (result == ncclSuccess) return ok_status();
  std::string why = what + ": " + ncclGetErrorString(result);
  const char* detail = ncclGetLastError(nullptr);
  if (detail != nullptr && *detail != '\0') why += std::string(" (") + detail + ")";
  return Status(StatusCode::kDeviceError, why);
}

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return ncclFloat32;
    case DType::kFloat16: return ncclFloat16;
    case DType::kBFloat16: return ncclBfloat16;
    case DType::kInt64: return ncclInt64;
    case DType::kInt32: return ncclInt32;
    case DType::kFloat8E4M3:
    case DType::kFloat8E5M2:
    case DType::kInt8:
    case DType::kUint8: return ncclUint8;
  }
  return ncclUint8;
}

size_t elements(int64_t count) { return static_cast<size_t>(count); }
cudaStream_t cuda_stream(void* stream) { return static_cast<cudaStream_t>(stream); }

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(ncclComm_t comm, int rank, int num_ranks, std::shared_ptr<NcclLedger> ledger)
      : Communicator(rank, num_ranks), ledger_(std::move(ledger)), comm_(comm) {}
  ~NcclCommunicator() override {
    const std::lock_guard lock(mutex_);
    if (ncclComm_t comm = comm_.exchange(nullptr)) ncclCommDestroy(comm);
  }

  std::string description() const override {
    int version = 0;
    ncclGetVersion(&version);
    return "NCCL " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
           std::to_string(version % 100);
  }

  void abort(const std::string& reason) override {
    if (ledger_) static_cast<void>(ledger_->abort(reason));
    // A call that is stuck inside NCCL, which connects ranks at their first one, holds the mutex: NCCL lets go of it when aborted.
    bool locked = mutex_.try_lock();
    for (int waits = 0; !locked && waits < 1000; ++waits) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      locked = mutex_.try_lock();
    }
    if (!locked) {
      ncclCommAbort(comm_.exchange(nullptr));
      return;
    }
    if (failure_.ok()) failure_ = Status(StatusCode::kDeviceError, reason);
    if (ncclComm_t comm = comm_.exchange(nullptr)) ncclCommAbort(comm);
    mutex_.unlock();
  }
  Status status() override {
    if (ledger_) RETURN_IF_ERROR(ledger_->status());
    const std::lock_guard lock(mutex_);
    if (comm_ == nullptr) return failure_;
    ncclResult_t error = ncclSuccess;
    RETURN_IF_ERROR(nccl_status(ncclCommGetAsyncError(comm_, &error), "asking NCCL for errors"));
    return error == ncclInProgress ? ok_status() : nccl_status(error, "NCCL");
  }
  std::string missing() const override { return ledger_ ? ledger_->missing() : std::string(); }

 private:
  // Compares the call with the other ranks', then enqueues it.
  template <typename Enqueue>
  Status run(const CollectiveCall& call, Enqueue&& enqueue) {
    const bool is_pair = call.kind == CollectiveKind::kSend || call.kind == CollectiveKind::kReceive;
    if (ledger_ && !is_pair) RETURN_IF_ERROR(ledger_->enter(rank(), call));
    const std::lock_guard lock(mutex_);
    if (comm_ == nullptr) return failure_;
    return nccl_status(enqueue(), call.describe());
  }

  Status do_all_reduce(void* data, const CollectiveCall& call, Stream stream) override {
    return run(call, [&] {
      return ncclAllReduce(data, data, elements(call.count), nccl_type(call.dtype), ncclSum, comm_,
                           cuda_stream(stream));
    });
  }
  Status do_all_gather(const void* from, void* to, int64_t count, const CollectiveCall& call, Stream stream) override {
    return run(call, [&] {
      return ncclAllGather(from, to, elements(count), nccl_type(call.dtype), comm_, cuda_stream(stream));
    });
  }
  Status do_reduce_scatter(const void* from, void* to, int64_t count, const CollectiveCall& call,
                           Stream stream) override {
    return run(call, [&] {
      return ncclReduceScatter(from, to, elements(count), nccl_type(call.dtype), ncclSum, comm_, cuda_stream(stream));
    });
  }
  // NCCL has had a gather of its own since 2.28 only, and of equal parts.
  Status do_gather(const void* from, void* to, std::span<const int64_t> counts, const CollectiveCall& call,
                   Stream stream) override {
    return run(call, [&] {
      ncclResult_t result = ncclGroupStart();
      const auto note = [&result](ncclResult_t next) {
        if (result == ncclSuccess) result = next;
      };
      std::byte* place = static_cast<std::byte*>(to);
      const int64_t mine = counts[static_cast<size_t>(rank())];
      if (rank() != call.peer && mine > 0)
        note(ncclSend(from, elements(mine), nccl_type(call.dtype), call.peer, comm_, cuda_stream(stream)));
      for (int other = 0; other < size() && rank() == call.peer; ++other) {
        const int64_t count = counts[static_cast<size_t>(other)];
        const size_t bytes = elements(count) * dtype_size(call.dtype);
        if (other != rank() && count > 0) {
          note(ncclRecv(place, elements(count), nccl_type(call.dtype), other, comm_, cuda_stream(stream)));
        } else if (place != from && bytes > 0 &&
                   cudaMemcpyAsync(place, from, bytes, cudaMemcpyDeviceToDevice, cuda_stream(stream)) != cudaSuccess) {
          note(ncclUnhandledCudaError);
        }
        place += bytes;
      }
      const ncclResult_t ended = ncclGroupEnd();
      return result == ncclSuccess ? ended : result;
    });
  }
  Status do_broadcast(void* data, const CollectiveCall& call, Stream stream) override {
    return run(call, [&] {
      return ncclBroadcast(data, data, elements(call.count), nccl_type(call.dtype), call.peer, comm_,
                           cuda_stream(stream));
    });
  }
  Status do_send(const void* data, const CollectiveCall& call, Stream stream) override {
    return run(call, [&] {
      return ncclSend(data, elements(call.count), nccl_type(call.dtype), call.peer, comm_, cuda_stream(stream));
    });
  }
  Status do_receive(void* data, const CollectiveCall& call, Stream stream) override {
    return run(call, [&] {
      return ncclRecv(data, elements(call.count), nccl_type(call.dtype), call.peer, comm_, cuda_stream(stream));
    });
  }

  const std::shared_ptr<NcclLedger> ledger_;
  std::mutex mutex_;  // an abort comes from any thread
  std::atomic<ncclComm_t> comm_;
  Status failure_;
};

}  // namespace

Result<NcclId> make_nccl_id() {
  static_assert(sizeof(ncclUniqueId) == sizeof(NcclId));
  ncclUniqueId id;
  RETURN_IF_ERROR(nccl_status(ncclGetUniqueId(&id), "making a group of ranks"));
  NcclId bytes;
  std::memcpy(bytes.bytes.data(), &id, sizeof id);
  return bytes;
}

Result<std::unique_ptr<Communicator>> make_nccl_communicator(const NcclId& bytes, int rank, int size,
                                                             std::shared_ptr<NcclLedger> ledger) {
  ncclUniqueId id;
  std::memcpy(&id, bytes.bytes.data(), sizeof id);
  ncclComm_t comm = nullptr;
  RETURN_IF_ERROR(nccl_status(ncclCommInitRank(&comm, size, id, rank),
                              "rank " + std::to_string(rank) + " joining " + std::to_string(size)));
  return std::unique_ptr<Communicator>(std::make_unique<NcclCommunicator>(comm, rank, size, std::move(ledger)));
}
#else
namespace {
Status no_nccl() {
  return unsupported(
      "this build has no NCCL, so it serves on one GPU: install libnccl-dev of the CUDA toolkit's version and "
      "configure again",
      "tensor_parallel_size");
}
}  // namespace

Result<NcclId> make_nccl_id() { return no_nccl(); }
Result<std::unique_ptr<Communicator>> make_nccl_communicator(const NcclId&, int, int, std::shared_ptr<NcclLedger>) {
  return no_nccl();
}
#endif

}  // namespace sextant
