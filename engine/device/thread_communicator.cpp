// A collective is two barriers: all ranks have come with their pointers, then each has done its part of the copying. Between
// the two nobody leaves, whatever fails: another rank may be reading his buffers.
#include "engine/device/thread_communicator.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <utility>

#include "engine/base/check.h"
#include "engine/device/host_sum.h"

namespace sextant {
namespace {

using Clock = std::chrono::steady_clock;

// Waiting without sleep, for ranks that come at almost the same time.
constexpr std::chrono::microseconds kSpin{20};

Status device_error(std::string message) { return {StatusCode::kDeviceError, std::move(message)}; }

std::string seconds_text(double seconds) {
  std::string text = std::to_string(seconds);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text + " s";
}

// What the ranks share.
class ThreadWorld {
 public:
  ThreadWorld(int size, double timeout_s)
      : timeout_s_(timeout_s),
        from_(static_cast<size_t>(size)),
        to_(static_cast<size_t>(size)),
        has_come_(static_cast<size_t>(size)) {}

  int size() const { return static_cast<int>(from_.size()); }

  // Comes to the collective, does `part(from, to)` once all have, and returns when all are done.
  template <typename Part>
  Status meet(int rank, const CollectiveCall& call, const void* from, void* to, Part&& part) {
    RETURN_IF_ERROR(arrive(rank, call, from, to));
    part(from_, to_);
    leave();
    return ok_status();
  }

  Status send(int rank, const CollectiveCall& call, const void* data);
  Status receive(int rank, const CollectiveCall& call, void* data);

  void abort(const std::string& reason) {
    const std::lock_guard lock(mutex_);
    static_cast<void>(fail(reason));
  }
  Status status() {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  struct Channel {  // from one rank to another
    bool offered = false;
    const void* data = nullptr;
    CollectiveCall call;
    uint64_t number = 0;  // received so far
  };

  Status arrive(int rank, const CollectiveCall& call, const void* from, void* to);
  void leave();
  Status fail(const std::string& why) {
    if (failure_.ok()) failure_ = device_error(why);
    changed_.notify_all();
    return failure_;
  }
  // False when the time is over.
  template <typename Ready>
  bool wait(std::unique_lock<std::mutex>& lock, Ready&& ready) {
    if (timeout_s_ <= 0) {
      changed_.wait(lock, ready);
      return true;
    }
    return changed_.wait_for(lock, std::chrono::duration<double>(timeout_s_), ready);
  }
  void spin(const std::atomic<uint64_t>& counter, uint64_t old) const {
    const auto end = Clock::now() + kSpin;
    while (counter.load(std::memory_order_acquire) == old && Clock::now() < end) {
    }
  }

  const double timeout_s_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Status failure_;

  // The collective that is under way: there is never more than one. Written under the mutex until all have come, then read
  // without until all are done.
  std::vector<const std::byte*> from_;
  std::vector<std::byte*> to_;
  std::vector<bool> has_come_;
  CollectiveCall call_;
  int first_rank_ = -1;
  int num_come_ = 0;
  int num_done_ = 0;
  std::atomic<uint64_t> num_met_{0};   // collectives to which all have come
  std::atomic<uint64_t> num_left_{0};  // and that all have left
  std::map<std::pair<int, int>, Channel> channels_;
};

Status ThreadWorld::arrive(int rank, const CollectiveCall& call, const void* from, void* to) {
  const auto index = static_cast<size_t>(rank);
  uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!failure_.ok()) return failure_;
    number = num_met_.load(std::memory_order_relaxed);
    if (num_come_ == 0) {
      call_ = call;
      first_rank_ = rank;
    } else if (call_ != call) {
      return fail("collective " + std::to_string(number) + ": rank " + std::to_string(first_rank_) + " calls " +
                  call_.describe() + ", rank " + std::to_string(rank) + " calls " + call.describe());
    }
    from_[index] = static_cast<const std::byte*>(from);
    to_[index] = static_cast<std::byte*>(to);
    has_come_[index] = true;
    if (++num_come_ == size()) {
      num_met_.store(number + 1, std::memory_order_release);
      changed_.notify_all();
      return ok_status();
    }
  }
  spin(num_met_, number);
  std::unique_lock lock(mutex_);
  const auto met = [&] { return num_met_.load(std::memory_order_relaxed) != number; };
  wait(lock, [&] { return met() || !failure_.ok(); });
  if (met()) return ok_status();
  if (!failure_.ok()) return failure_;
  std::vector<int> present, absent;
  for (int i = 0; i < size(); ++i) (has_come_[static_cast<size_t>(i)] ? present : absent).push_back(i);
  return fail("collective " + std::to_string(number) + " (" + call.describe() + "): " + name_ranks(absent) + " of " +
              std::to_string(size()) + " did not arrive within " + seconds_text(timeout_s_) + "; " +
              name_ranks(present) + " did");
}

void ThreadWorld::leave() {
  uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = num_left_.load(std::memory_order_relaxed);
    if (++num_done_ == size()) {
      num_come_ = 0;
      num_done_ = 0;
      std::fill(has_come_.begin(), has_come_.end(), false);
      num_left_.store(number + 1, std::memory_order_release);
      changed_.notify_all();
      return;
    }
  }
  spin(num_left_, number);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return num_left_.load(std::memory_order_relaxed) != number; });
}

Status ThreadWorld::send(int rank, const CollectiveCall& call, const void* data) {
  std::unique_lock lock(mutex_);
  if (!failure_.ok()) return failure_;
  Channel& channel = channels_[{rank, call.peer}];
  channel.data = data;
  channel.call = call;
  channel.offered = true;
  changed_.notify_all();
  const uint64_t number = channel.number;
  const bool in_time = wait(lock, [&] { return channel.number != number || !failure_.ok(); });
  if (channel.number != number) return ok_status();
  if (!in_time && failure_.ok()) {
    return fail(call.describe() + " by rank " + std::to_string(rank) + ": rank " + std::to_string(call.peer) +
                " did not arrive within " + seconds_text(timeout_s_));
  }
  return failure_;
}

Status ThreadWorld::receive(int rank, const CollectiveCall& call, void* data) {
  std::unique_lock lock(mutex_);
  Channel& channel = channels_[{call.peer, rank}];
  const bool in_time = wait(lock, [&] { return channel.offered || !failure_.ok(); });
  if (!failure_.ok()) return failure_;
  if (!in_time) {
    return fail(call.describe() + " by rank " + std::to_string(rank) + ": rank " + std::to_string(call.peer) +
                " did not arrive within " + seconds_text(timeout_s_));
  }
  if (channel.call.count != call.count || channel.call.dtype != call.dtype) {
    return fail("rank " + std::to_string(call.peer) + " calls " + channel.call.describe() + ", rank " +
                std::to_string(rank) + " calls " + call.describe());
  }
  if (call.count > 0) std::memcpy(data, channel.data, call.bytes());  // under the mutex: the sender cannot leave
  channel.offered = false;
  ++channel.number;
  changed_.notify_all();
  return ok_status();
}

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<ThreadWorld> world, int rank)
      : Communicator(rank, world->size()), world_(std::move(world)) {}

  std::string description() const override { return "threads of this process"; }
  void abort(const std::string& reason) override { world_->abort(reason); }
  Status status() override { return world_->status(); }

 private:
  using From = std::vector<const std::byte*>;
  using To = std::vector<std::byte*>;

  // This rank's share of `count` elements, in whole cache lines.
  int64_t share_begin(int64_t count, int rank) const { return count * rank / size() / 32 * 32; }
  int64_t share_end(int64_t count) const { return rank() + 1 == size() ? count : share_begin(count, rank() + 1); }

  Status do_all_reduce(void* data, const CollectiveCall& call, Stream) override {
    return world_->meet(rank(), call, data, data, [&](const From& from, const To& to) {
      sum_range(call.dtype, from, to, share_begin(call.count, rank()), share_end(call.count));
    });
  }
  Status do_all_gather(const void* from, void* to, int64_t count, const CollectiveCall& call, Stream) override {
    return world_->meet(rank(), call, from, to, [&](const From& all, const To&) {
      const size_t bytes = static_cast<size_t>(count) * dtype_size(call.dtype);
      for (size_t i = 0; i < all.size(); ++i) {
        std::byte* place = static_cast<std::byte*>(to) + i * bytes;
        if (place != all[i] && bytes > 0) std::memcpy(place, all[i], bytes);
      }
    });
  }
  Status do_reduce_scatter(const void* from, void* to, int64_t count, const CollectiveCall& call, Stream) override {
    return world_->meet(rank(), call, from, to, [&](const From& all, const To&) {
      From rows;
      const size_t bytes = static_cast<size_t>(count) * dtype_size(call.dtype);
      for (const std::byte* each : all) rows.push_back(each + static_cast<size_t>(rank()) * bytes);
      sum_range(call.dtype, rows, {static_cast<std::byte*>(to)}, 0, count);
    });
  }
  Status do_gather(const void* from, void* to, std::span<const int64_t> counts, const CollectiveCall& call,
                   Stream) override {
    return world_->meet(rank(), call, from, to, [&](const From& all, const To&) {
      if (rank() != call.peer) return;
      std::byte* place = static_cast<std::byte*>(to);
      for (size_t i = 0; i < all.size(); ++i) {
        const size_t bytes = static_cast<size_t>(counts[i]) * dtype_size(call.dtype);
        if (place != all[i] && bytes > 0) std::memcpy(place, all[i], bytes);
        place += bytes;
      }
    });
  }
  Status do_broadcast(void* data, const CollectiveCall& call, Stream) override {
    return world_->meet(rank(), call, data, data, [&](const From& all, const To&) {
      if (rank() != call.peer && call.count > 0) std::memcpy(data, all[static_cast<size_t>(call.peer)], call.bytes());
    });
  }
  Status do_send(const void* data, const CollectiveCall& call, Stream) override {
    return world_->send(rank(), call, data);
  }
  Status do_receive(void* data, const CollectiveCall& call, Stream) override {
    return world_->receive(rank(), call, data);
  }

  const std::shared_ptr<ThreadWorld> world_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_thread_communicators(int size, double timeout_s) {
  CHECK_GE(size, 1);
  const auto world = std::make_shared<ThreadWorld>(size, timeout_s);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int rank = 0; rank < size; ++rank) communicators.push_back(std::make_unique<ThreadCommunicator>(world, rank));
  return communicators;
}

}  // namespace sextant
