// The part of a Communicator that is the same everywhere: checks of arguments, numbers and counters.
#include "engine/device/communicator.h"

#include <numeric>

#include "engine/base/clock.h"

namespace sextant {

std::string CollectiveCall::describe() const {
  std::string text =
      std::string(collective_kind_name(kind)) + " of " + std::to_string(count) + " " + std::string(dtype_name(dtype));
  if (peer < 0) return text;
  const bool away = kind == CollectiveKind::kSend || kind == CollectiveKind::kGather;
  return text + (away ? " to rank " : " from rank ") + std::to_string(peer);
}

void CollectiveCounters::add(const CollectiveCounters& other) {
  for (size_t i = 0; i < kinds.size(); ++i) {
    kinds[i].calls += other.kinds[i].calls;
    kinds[i].bytes += other.kinds[i].bytes;
  }
}

void Communicator::check(const CollectiveCall& call) const {
  const bool is_float =
      call.dtype == DType::kFloat32 || call.dtype == DType::kFloat16 || call.dtype == DType::kBFloat16;
  const bool sums = call.kind == CollectiveKind::kAllReduce || call.kind == CollectiveKind::kReduceScatter;
  const bool is_pair = call.kind == CollectiveKind::kSend || call.kind == CollectiveKind::kReceive;
  const bool has_peer = is_pair || call.kind == CollectiveKind::kBroadcast || call.kind == CollectiveKind::kGather;
  CHECK(call.count >= 0 && (is_float || !sums)) << call.describe();
  CHECK(!has_peer || (call.peer >= 0 && call.peer < size_)) << call.describe() << " among " << size_ << " ranks";
  CHECK(!is_pair || call.peer != rank_) << "rank " << rank_ << ": " << call.describe();
}

void Communicator::enter(const CollectiveCall& call) {
  if (call.kind != CollectiveKind::kSend && call.kind != CollectiveKind::kReceive)
    number_.fetch_add(1, std::memory_order_relaxed);
  const std::lock_guard lock(counters_mutex_);
  CollectiveCounters::OfKind& of_kind = (recording_ ? recorded_ : counters_).of(call.kind);
  ++of_kind.calls;
  of_kind.bytes += call.bytes();
  inside_ = call;
  inside_since_ns_ = SteadyClock::instance().now_ns();
}

Status Communicator::leave(Status result) {
  const std::lock_guard lock(counters_mutex_);
  inside_s_ += static_cast<double>(SteadyClock::instance().now_ns() - inside_since_ns_) * 1e-9;
  inside_.reset();
  return result;
}

std::optional<Communicator::Inside> Communicator::inside() const {
  const std::lock_guard lock(counters_mutex_);
  if (!inside_) return std::nullopt;
  return Inside{*inside_, static_cast<double>(SteadyClock::instance().now_ns() - inside_since_ns_) * 1e-9};
}

double Communicator::inside_s() const {
  const std::lock_guard lock(counters_mutex_);
  return inside_s_;
}

CollectiveCounters Communicator::counters() const {
  const std::lock_guard lock(counters_mutex_);
  return counters_;
}

void Communicator::begin_recording() {
  const std::lock_guard lock(counters_mutex_);
  recording_ = true;
  recorded_ = {};
}

CollectiveCounters Communicator::end_recording() {
  const std::lock_guard lock(counters_mutex_);
  recording_ = false;
  return recorded_;
}

void Communicator::replayed(const CollectiveCounters& recorded) {
  const std::lock_guard lock(counters_mutex_);
  counters_.add(recorded);
}

Status Communicator::all_reduce(void* data, int64_t count, DType dtype, Stream stream) {
  const CollectiveCall call = {CollectiveKind::kAllReduce, count, dtype, -1};
  check(call);
  enter(call);
  return leave(do_all_reduce(data, call, stream));
}

Status Communicator::all_gather(const void* from, void* to, int64_t count, DType dtype, Stream stream) {
  const CollectiveCall call = {CollectiveKind::kAllGather, count * size_, dtype, -1};
  check(call);
  enter(call);
  return leave(do_all_gather(from, to, count, call, stream));
}

Status Communicator::reduce_scatter(const void* from, void* to, int64_t count, DType dtype, Stream stream) {
  const CollectiveCall call = {CollectiveKind::kReduceScatter, count * size_, dtype, -1};
  check(call);
  enter(call);
  return leave(do_reduce_scatter(from, to, count, call, stream));
}

Status Communicator::gather(const void* from, void* to, std::span<const int64_t> counts, DType dtype, int root,
                            Stream stream) {
  CHECK_EQ(static_cast<int>(counts.size()), size_);
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const CollectiveCall call = {CollectiveKind::kGather, total, dtype, root};
  check(call);
  enter(call);
  return leave(do_gather(from, to, counts, call, stream));
}

Status Communicator::broadcast(void* data, int64_t count, DType dtype, int root, Stream stream) {
  const CollectiveCall call = {CollectiveKind::kBroadcast, count, dtype, root};
  check(call);
  enter(call);
  return leave(do_broadcast(data, call, stream));
}

Status Communicator::send(const void* data, int64_t count, DType dtype, int peer, Stream stream) {
  const CollectiveCall call = {CollectiveKind::kSend, count, dtype, peer};
  check(call);
  enter(call);
  return leave(do_send(data, call, stream));
}

Status Communicator::receive(void* data, int64_t count, DType dtype, int peer, Stream stream) {
  const CollectiveCall call = {CollectiveKind::kReceive, count, dtype, peer};
  check(call);
  enter(call);
  return leave(do_receive(data, call, stream));
}

std::string name_ranks(std::span<const int> ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (i > 0) text += i + 1 == ranks.size() ? " and " : ", ";
    text += std::to_string(ranks[i]);
  }
  return text;
}

}  // namespace sextant
