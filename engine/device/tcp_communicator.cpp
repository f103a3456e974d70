#include "engine/device/tcp_communicator.h"

#include <poll.h>
#include <sys/socket.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "engine/base/check.h"
#include "engine/device/host_sum.h"

namespace sextant {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kTokenBytes = 16;
constexpr double kStrangerS = 10;
constexpr size_t kMaxStrangers = 64;
// Up to so many bytes everyone sends all to all: one way instead of two.
constexpr uint64_t kOneWayBytes = 64 << 10;

// Begins a connection.
struct Greeting {
  std::array<char, kTokenBytes> token = {};
  uint32_t group = 0;
  uint32_t from = 0;
  uint32_t to = 0;
};

// Begins each message. Hosts of one group are of one kind: numbers go as they lie in memory.
struct MessageHead {
  uint64_t number = 0;  // of the collective, or of the message between the two
  int64_t count = 0;
  uint64_t bytes = 0;  // that follow
  uint8_t kind = 0;
  uint8_t dtype = 0;
  int16_t peer = -1;
  uint32_t part = 0;  // of a collective of several rounds

  bool agrees(const MessageHead& other) const {
    return number == other.number && count == other.count && kind == other.kind && dtype == other.dtype &&
           part == other.part;
  }
};
static_assert(sizeof(MessageHead) == 32);

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}
template <typename T>
std::span<std::byte> writable(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

Status device_error(std::string message) { return {StatusCode::kDeviceError, std::move(message)}; }

class TcpCommunicator final : public Communicator {
 public:
  TcpCommunicator(int rank, std::vector<TcpSocket> sockets, double timeout_s)
      : Communicator(rank, static_cast<int>(sockets.size())),
        sockets_(std::move(sockets)),
        timeout_s_(timeout_s),
        pair_numbers_(sockets_.size()),
        stores_(sockets_.size()) {}

  std::string description() const override { return "TCP"; }

  void abort(const std::string& reason) override { static_cast<void>(fail(reason)); }
  Status status() override {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  // What one round sends to a rank and takes from it; neither: the rank is not concerned.
  struct Exchange {
    int peer = 0;
    bool sends = false, receives = false;
    MessageHead out_head, in_head;
    std::span<const std::byte> out;
    std::span<std::byte> in;
    size_t num_sent = 0, num_received = 0;  // heads included

    bool sent() const { return !sends || num_sent == sizeof(MessageHead) + out.size(); }
    bool received() const { return !receives || num_received == sizeof(MessageHead) + in.size(); }
  };

  Status fail(const std::string& why) {
    {
      const std::lock_guard lock(mutex_);
      if (!failure_.ok()) return failure_;
      failure_ = device_error(why);
    }
    for (TcpSocket& socket : sockets_) socket.shutdown();
    return status();
  }
  Status lost(int peer, const CollectiveCall& call) {
    return fail(call.describe() + " on rank " + std::to_string(rank()) + ": rank " + std::to_string(peer) +
                " of the group is gone: its connection was closed");
  }

  MessageHead head(const CollectiveCall& call, uint64_t number_of_call, uint32_t part) const {
    MessageHead made;
    made.number = number_of_call;
    made.count = call.count;
    made.kind = static_cast<uint8_t>(call.kind);
    made.dtype = static_cast<uint8_t>(call.dtype);
    made.peer = static_cast<int16_t>(call.peer);
    made.part = part;
    return made;
  }
  uint64_t collective_number() const { return number() - 1; }  // counted before the call

  static std::string describe(const MessageHead& head) {
    if (head.kind >= kNumCollectiveKinds || head.dtype > static_cast<uint8_t>(DType::kUint8)) return "what is no call";
    const CollectiveCall call = {static_cast<CollectiveKind>(head.kind), head.count, static_cast<DType>(head.dtype),
                                 head.peer};
    return call.describe() + " (number " + std::to_string(head.number) + ")";
  }

  Status run(const CollectiveCall& call, std::vector<Exchange>& exchanges);
  Status send_some(Exchange& exchange, const CollectiveCall& call);
  Status receive_some(Exchange& exchange, const CollectiveCall& call);

  // All-to-all of a round: `out(peer)` goes to each other rank, what comes of it goes to `in(peer)`. Empty spans: a head alone.
  template <typename Out, typename In>
  Status exchange_all(const CollectiveCall& call, uint32_t part, Out&& out, In&& in) {
    std::vector<Exchange> exchanges;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      Exchange exchange;
      exchange.peer = peer;
      exchange.sends = exchange.receives = true;
      exchange.out_head = head(call, collective_number(), part);
      exchange.out = out(peer);
      exchange.out_head.bytes = exchange.out.size();
      exchange.in = in(peer);
      exchanges.push_back(exchange);
    }
    return run(call, exchanges);
  }
  // Between the root and each other rank, in one direction.
  template <typename Out, typename In>
  Status exchange_with_root(const CollectiveCall& call, bool to_root, Out&& out, In&& in) {
    std::vector<Exchange> exchanges;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank() || (rank() != call.peer && peer != call.peer)) continue;
      Exchange exchange;
      exchange.peer = peer;
      exchange.sends = (rank() == call.peer) != to_root;
      exchange.receives = !exchange.sends;
      exchange.out_head = head(call, collective_number(), 0);
      if (exchange.sends) exchange.out = out(peer);
      exchange.out_head.bytes = exchange.out.size();
      if (exchange.receives) exchange.in = in(peer);
      exchanges.push_back(exchange);
    }
    return run(call, exchanges);
  }

  std::span<std::byte> store(int peer, size_t bytes) {
    std::vector<std::byte>& memory = stores_[static_cast<size_t>(peer)];
    if (memory.size() < bytes) memory.resize(bytes);
    return std::span(memory).first(bytes);
  }
  int64_t share_begin(int64_t count, int rank) const { return count * rank / size() / 32 * 32; }
  int64_t share_end(int64_t count, int rank) const { return rank + 1 == size() ? count : share_begin(count, rank + 1); }

  Status do_all_reduce(void* data, const CollectiveCall& call, Stream stream) override;
  Status do_all_gather(const void* from, void* to, int64_t count, const CollectiveCall& call, Stream stream) override;
  Status do_reduce_scatter(const void* from, void* to, int64_t count, const CollectiveCall& call,
                           Stream stream) override;
  Status do_gather(const void* from, void* to, std::span<const int64_t> counts, const CollectiveCall& call,
                   Stream stream) override;
  Status do_broadcast(void* data, const CollectiveCall& call, Stream stream) override;
  Status do_send(const void* data, const CollectiveCall& call, Stream stream) override;
  Status do_receive(void* data, const CollectiveCall& call, Stream stream) override;

  struct PairNumbers {
    uint64_t sent = 0, received = 0;
  };

  std::vector<TcpSocket> sockets_;  // by rank; the own one is closed
  const double timeout_s_;
  std::vector<PairNumbers> pair_numbers_;
  std::vector<std::vector<std::byte>> stores_;  // what others sent, by rank
  std::mutex mutex_;
  Status failure_;
};

Status TcpCommunicator::run(const CollectiveCall& call, std::vector<Exchange>& exchanges) {
  RETURN_IF_ERROR(status());
  const Deadline deadline = timeout_s_ > 0 ? deadline_in(timeout_s_) : Clock::now() + std::chrono::hours(24 * 365);
  std::vector<pollfd> waiting;
  while (true) {
    waiting.clear();
    for (Exchange& exchange : exchanges) {
      RETURN_IF_ERROR(send_some(exchange, call));
      RETURN_IF_ERROR(receive_some(exchange, call));
      short events = 0;
      if (!exchange.sent()) events |= POLLOUT;
      if (!exchange.received()) events |= POLLIN;
      if (events != 0) {
        waiting.push_back({sockets_[static_cast<size_t>(exchange.peer)].descriptor(), events, 0});
      }
    }
    if (waiting.empty()) return ok_status();
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    poll(waiting.data(), waiting.size(), static_cast<int>(std::clamp<int64_t>(left, 0, 60'000)));
    if (Clock::now() < deadline) continue;
    std::vector<int> absent;
    for (const Exchange& exchange : exchanges) {
      if (!exchange.sent() || !exchange.received()) absent.push_back(exchange.peer);
    }
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%.3g s", timeout_s_);
    return fail(call.describe() + " on rank " + std::to_string(rank()) + ": " + name_ranks(absent) + " of " +
                std::to_string(size()) + " did not arrive within " + seconds);
  }
}

Status TcpCommunicator::send_some(Exchange& exchange, const CollectiveCall& call) {
  const int descriptor = sockets_[static_cast<size_t>(exchange.peer)].descriptor();
  constexpr size_t kHead = sizeof(MessageHead);
  while (!exchange.sent()) {
    // Head and body in one packet, where they fit one.
    std::array<iovec, 2> pieces = {};
    size_t num_pieces = 0;
    if (exchange.num_sent < kHead) {
      const auto rest = bytes_of(exchange.out_head).subspan(exchange.num_sent);
      pieces[num_pieces++] = {const_cast<std::byte*>(rest.data()), rest.size()};
    }
    const auto body = exchange.out.subspan(exchange.num_sent < kHead ? 0 : exchange.num_sent - kHead);
    if (!body.empty()) pieces[num_pieces++] = {const_cast<std::byte*>(body.data()), body.size()};
    msghdr message = {};
    message.msg_iov = pieces.data();
    message.msg_iovlen = num_pieces;
    const ssize_t count = sendmsg(descriptor, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0) {
      exchange.num_sent += static_cast<size_t>(count);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return ok_status();
    } else if (errno != EINTR) {
      return lost(exchange.peer, call);
    }
  }
  return ok_status();
}

Status TcpCommunicator::receive_some(Exchange& exchange, const CollectiveCall& call) {
  const int descriptor = sockets_[static_cast<size_t>(exchange.peer)].descriptor();
  constexpr size_t kHead = sizeof(MessageHead);
  while (!exchange.received()) {
    const bool in_head = exchange.num_received < kHead;
    const std::span<std::byte> rest = in_head ? writable(exchange.in_head).subspan(exchange.num_received)
                                              : exchange.in.subspan(exchange.num_received - kHead);
    const ssize_t count = recv(descriptor, rest.data(), rest.size(), MSG_DONTWAIT);
    if (count == 0) return lost(exchange.peer, call);
    if (count < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) return ok_status();
      if (errno == EINTR) continue;
      return lost(exchange.peer, call);
    }
    exchange.num_received += static_cast<size_t>(count);
    if (!in_head || exchange.num_received < kHead) continue;
    MessageHead wanted = exchange.out_head;
    const MessageHead& got = exchange.in_head;
    if (call.kind == CollectiveKind::kReceive) wanted.kind = static_cast<uint8_t>(CollectiveKind::kSend);
    const bool rooted = call.kind == CollectiveKind::kBroadcast || call.kind == CollectiveKind::kGather;
    if (!got.agrees(wanted) || (rooted && got.peer != wanted.peer) || got.bytes != exchange.in.size()) {
      return fail("rank " + std::to_string(rank()) + " calls " + describe(exchange.out_head) + ", rank " +
                  std::to_string(exchange.peer) + " calls " + describe(got));
    }
  }
  return ok_status();
}

Status TcpCommunicator::do_all_reduce(void* data, const CollectiveCall& call, Stream) {
  if (size() == 1) return ok_status();
  const size_t width = dtype_size(call.dtype);
  auto* own = static_cast<std::byte*>(data);
  std::vector<const std::byte*> from(static_cast<size_t>(size()));
  from[static_cast<size_t>(rank())] = own;
  if (size() == 2 || call.bytes() <= kOneWayBytes) {
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank()) from[static_cast<size_t>(peer)] = store(peer, call.bytes()).data();
    }
    const std::span<const std::byte> all(own, call.bytes());
    RETURN_IF_ERROR(exchange_all(
        call, 0, [&](int) { return all; }, [&](int peer) { return store(peer, call.bytes()); }));
    sum_range(call.dtype, from, {own}, 0, call.count);
    return ok_status();
  }
  // Each rank sums its share, then all have all shares.
  const auto share = [&](int of) {
    const auto begin = static_cast<size_t>(share_begin(call.count, of)) * width;
    return std::span(own + begin, static_cast<size_t>(share_end(call.count, of)) * width - begin);
  };
  const int64_t begin = share_begin(call.count, rank());
  const int64_t end = share_end(call.count, rank());
  const size_t share_bytes = share(rank()).size();
  RETURN_IF_ERROR(exchange_all(
      call, 0, [&](int peer) { return std::span<const std::byte>(share(peer)); },
      [&](int peer) { return store(peer, share_bytes); }));
  for (int peer = 0; peer < size(); ++peer) {
    from[static_cast<size_t>(peer)] = peer == rank() ? share(rank()).data() : store(peer, share_bytes).data();
  }
  sum_range(call.dtype, from, {share(rank()).data()}, 0, end - begin);
  return exchange_all(
      call, 1, [&](int) { return std::span<const std::byte>(share(rank())); }, [&](int peer) { return share(peer); });
}

Status TcpCommunicator::do_all_gather(const void* from, void* to, int64_t count, const CollectiveCall& call, Stream) {
  const size_t bytes = static_cast<size_t>(count) * dtype_size(call.dtype);
  auto* out = static_cast<std::byte*>(to);
  std::byte* own = out + static_cast<size_t>(rank()) * bytes;
  if (own != from && bytes > 0) std::memcpy(own, from, bytes);
  return exchange_all(
      call, 0, [&](int) { return std::span<const std::byte>(own, bytes); },
      [&](int peer) { return std::span(out + static_cast<size_t>(peer) * bytes, bytes); });
}

Status TcpCommunicator::do_reduce_scatter(const void* from, void* to, int64_t count, const CollectiveCall& call,
                                          Stream) {
  const size_t bytes = static_cast<size_t>(count) * dtype_size(call.dtype);
  const auto* in = static_cast<const std::byte*>(from);
  RETURN_IF_ERROR(exchange_all(
      call, 0, [&](int peer) { return std::span(in + static_cast<size_t>(peer) * bytes, bytes); },
      [&](int peer) { return store(peer, bytes); }));
  std::vector<const std::byte*> rows;
  for (int peer = 0; peer < size(); ++peer) {
    rows.push_back(peer == rank() ? in + static_cast<size_t>(rank()) * bytes : store(peer, bytes).data());
  }
  sum_range(call.dtype, rows, {static_cast<std::byte*>(to)}, 0, count);
  return ok_status();
}

Status TcpCommunicator::do_gather(const void* from, void* to, std::span<const int64_t> counts,
                                  const CollectiveCall& call, Stream) {
  const size_t width = dtype_size(call.dtype);
  std::vector<std::span<std::byte>> places(counts.size());
  size_t at = 0;
  for (size_t i = 0; i < counts.size() && rank() == call.peer; ++i) {
    const size_t bytes = static_cast<size_t>(counts[i]) * width;
    places[i] = {static_cast<std::byte*>(to) + at, bytes};
    at += bytes;
  }
  const std::span<const std::byte> own(static_cast<const std::byte*>(from),
                                       static_cast<size_t>(counts[static_cast<size_t>(rank())]) * width);
  if (rank() == call.peer && !own.empty() && places[static_cast<size_t>(rank())].data() != own.data()) {
    std::memcpy(places[static_cast<size_t>(rank())].data(), own.data(), own.size());
  }
  return exchange_with_root(
      call, true, [&](int) { return own; }, [&](int peer) { return places[static_cast<size_t>(peer)]; });
}

Status TcpCommunicator::do_broadcast(void* data, const CollectiveCall& call, Stream) {
  const std::span<std::byte> all(static_cast<std::byte*>(data), call.bytes());
  return exchange_with_root(
      call, false, [&](int) { return std::span<const std::byte>(all); }, [&](int) { return all; });
}

Status TcpCommunicator::do_send(const void* data, const CollectiveCall& call, Stream) {
  Exchange exchange;
  exchange.peer = call.peer;
  exchange.sends = true;
  exchange.out = {static_cast<const std::byte*>(data), call.bytes()};
  exchange.out_head = head(call, pair_numbers_[static_cast<size_t>(call.peer)].sent++, 0);
  exchange.out_head.bytes = call.bytes();
  std::vector<Exchange> exchanges = {exchange};
  return run(call, exchanges);
}

Status TcpCommunicator::do_receive(void* data, const CollectiveCall& call, Stream) {
  Exchange exchange;
  exchange.peer = call.peer;
  exchange.receives = true;
  exchange.in = {static_cast<std::byte*>(data), call.bytes()};
  exchange.out_head = head(call, pair_numbers_[static_cast<size_t>(call.peer)].received++, 0);
  std::vector<Exchange> exchanges = {exchange};
  return run(call, exchanges);
}

}  // namespace

Result<std::unique_ptr<TcpMeetingPoint>> TcpMeetingPoint::listen(const std::string& host, std::string token) {
  CHECK_EQ(token.size(), kTokenBytes);
  std::unique_ptr<TcpMeetingPoint> point(new TcpMeetingPoint(std::move(token)));
  ASSIGN_OR_RETURN(point->listener_, TcpListener::listen(host, 0));
  point->thread_ = std::thread([raw = point.get()] { raw->accept(); });
  return point;
}

TcpMeetingPoint::~TcpMeetingPoint() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  listener_.shutdown();
  if (thread_.joinable()) thread_.join();
  for (std::thread& stranger : strangers_) stranger.join();
}

void TcpMeetingPoint::accept() {
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
    }
    std::optional<TcpSocket> socket = listener_.accept(deadline_in(0.2));
    if (!socket || strangers_.size() >= kMaxStrangers * 16) continue;
    strangers_.emplace_back([this, s = std::move(*socket)]() mutable { receive_stranger(std::move(s)); });
  }
}

void TcpMeetingPoint::receive_stranger(TcpSocket socket) {
  Greeting greeting;
  if (!socket.receive_all(writable(greeting), deadline_in(kStrangerS)).ok()) return;
  unsigned difference = 0;
  for (size_t i = 0; i < kTokenBytes; ++i) difference |= static_cast<unsigned char>(greeting.token[i] ^ token_[i]);
  if (difference != 0) return;
  const std::lock_guard lock(mutex_);
  waiting_.try_emplace({greeting.group, greeting.to, greeting.from}, std::move(socket));
  arrived_.notify_all();
}

Result<std::unique_ptr<Communicator>> TcpMeetingPoint::join(uint32_t group, int rank,
                                                            const std::vector<Address>& addresses, Deadline deadline,
                                                            double timeout_s) {
  std::vector<TcpSocket> sockets(addresses.size());
  Greeting greeting;
  std::copy(token_.begin(), token_.end(), greeting.token.begin());
  greeting.group = group;
  greeting.from = static_cast<uint32_t>(rank);
  // To the ranks before this one; those after it come here.
  for (int peer = 0; peer < rank; ++peer) {
    const Address& address = addresses[static_cast<size_t>(peer)];
    Result<TcpSocket> socket = TcpSocket::connect(address.host, address.port, deadline);
    if (!socket.ok()) {
      return device_error("rank " + std::to_string(peer) +
                          " of the group cannot be reached: " + socket.status().message());
    }
    greeting.to = static_cast<uint32_t>(peer);
    RETURN_IF_ERROR(socket->send_all(bytes_of(greeting), deadline));
    sockets[static_cast<size_t>(peer)] = std::move(*socket);
  }
  std::unique_lock lock(mutex_);
  for (size_t peer = static_cast<size_t>(rank) + 1; peer < addresses.size(); ++peer) {
    const std::tuple key(group, static_cast<uint32_t>(rank), static_cast<uint32_t>(peer));
    if (!arrived_.wait_until(lock, deadline, [&] { return waiting_.contains(key); })) {
      return device_error("rank " + std::to_string(peer) + " of the group did not connect");
    }
    sockets[peer] = std::move(waiting_.extract(key).mapped());
  }
  lock.unlock();
  return std::unique_ptr<Communicator>(std::make_unique<TcpCommunicator>(rank, std::move(sockets), timeout_s));
}

}  // namespace sextant
