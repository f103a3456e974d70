#include "kernels/simt/nccl_remote.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <utility>

#include "kernels/simt/runtime_state.h"

namespace sextant::simt {
namespace {

// Begins a connection.
struct Greeting {
  uint64_t token = 0;
  uint64_t key = 0;
  int32_t num_ranks = 0;
  int32_t rank = 0;
};
// One call to the world, or its answer: `bytes` of data follow. An answer with `failed` holds the reason as text.
struct Message {
  uint64_t number = 0;
  uint64_t count = 0;
  uint64_t bytes = 0;
  int32_t kind = 0;
  int32_t type = 0;
  int32_t op = 0;
  int32_t peer = 0;
  int32_t failed = 0;
  int32_t is_welcome = 0;  // all ranks have joined, or (failed) why not
};
constexpr uint64_t kMaxBytes = uint64_t{1} << 32;
constexpr int32_t kGoodbye = -1;  // as a kind: the rank's communicator ends in order

bool send_all(int socket, const void* data, size_t size) {
  const auto* bytes = static_cast<const std::byte*>(data);
  while (size > 0) {
    const ssize_t count = ::send(socket, bytes, size, MSG_NOSIGNAL);
    if (count <= 0) return false;
    bytes += count;
    size -= static_cast<size_t>(count);
  }
  return true;
}
bool receive_all(int socket, void* data, size_t size) {
  auto* bytes = static_cast<std::byte*>(data);
  while (size > 0) {
    const ssize_t count = ::recv(socket, bytes, size, 0);
    if (count <= 0) return false;
    bytes += count;
    size -= static_cast<size_t>(count);
  }
  return true;
}

void send_at_once(int socket) {
  const int on = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

size_t input_elements(const NcclCall& call, int rank, size_t num_ranks) {
  switch (call.kind) {
    case NcclCall::Kind::kBroadcast: return call.peer == rank ? call.count : 0;
    case NcclCall::Kind::kReduceScatter: return call.count * num_ranks;
    case NcclCall::Kind::kReceive: return 0;
    default: return call.count;
  }
}
size_t output_elements(const NcclCall& call, size_t num_ranks) {
  if (call.kind == NcclCall::Kind::kSend) return 0;
  return call.kind == NcclCall::Kind::kAllGather ? call.count * num_ranks : call.count;
}

std::chrono::seconds patience() {
  const char* text = std::getenv("SEXTANT_SIMT_PATIENCE_S");
  return std::chrono::seconds(text == nullptr ? 60 : std::strtol(text, nullptr, 10));
}

// The world's side of a rank of another process. It keeps itself until its connection ends.
class RemoteRank : public std::enable_shared_from_this<RemoteRank> {
 public:
  RemoteRank(int socket, std::shared_ptr<NcclWorld> world, int rank)
      : socket_(socket), world_(std::move(world)), rank_(rank) {}
  ~RemoteRank() { ::close(socket_); }

  void run() {
    std::thread writer([self = shared_from_this()] { self->write(); });
    Message message;
    bool left = false;
    while (receive_all(socket_, &message, sizeof message)) {
      left = message.kind == kGoodbye;
      if (left || message.bytes > kMaxBytes) break;
      auto data = std::make_shared<std::vector<std::byte>>(message.bytes);
      if (!receive_all(socket_, data->data(), data->size())) break;
      if (!enqueue(message, std::move(data))) break;
    }
    if (!left) {
      Executor& executor = Runtime::instance().executor();
      const std::vector<WorkPtr> freed = world_->lose(rank_);
      const auto lock = executor.lock();
      for (const WorkPtr& item : freed) executor.complete(item);
    }
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    writer.join();
  }

 private:
  bool enqueue(const Message& message, std::shared_ptr<std::vector<std::byte>> data) {
    const size_t ranks = static_cast<size_t>(world_->num_ranks());
    NcclCall call = {};
    if (message.kind < 0 || message.kind > static_cast<int32_t>(NcclCall::Kind::kReceive) || message.count > kMaxBytes)
      return false;
    call.kind = static_cast<NcclCall::Kind>(message.kind);
    call.count = message.count;
    call.type = static_cast<ncclDataType_t>(message.type);
    call.op = static_cast<ncclRedOp_t>(message.op);
    call.peer = message.peer;
    const size_t width = size_of(call.type);
    if (width == 0 || call.peer < 0 || call.peer >= world_->num_ranks() || call.op < ncclSum || call.op > ncclAvg ||
        data->size() != input_elements(call, rank_, ranks) * width) {
      return false;
    }
    auto result = std::make_shared<std::vector<std::byte>>(output_elements(call, ranks) * width);
    call.from = data->data();
    call.to = result->data();
    Executor& executor = Runtime::instance().executor();
    auto lock = executor.lock();
    Work work{.name = "NCCL of another process", .device = world_->local_device(), .devices = world_->device_bits()};
    work.meet = [world = world_, rank = rank_, call, data](const WorkPtr& self) {
      return world->meet(rank, call, self);
    };
    const WorkPtr item = executor.add(std::make_shared<Work>(std::move(work)), this, {});
    item->on_done = [self = shared_from_this(), result, number = message.number] {
      std::string error = self->world_->failure();
      // Then nothing was moved.
      if (error.empty() && Runtime::instance().device(self->world_->local_device()).sticky.load() != 0) {
        error = "NCCL: the device of another rank has failed";
      }
      self->answer(number, error, *result);
    };
    // Nobody here may be waiting for this process's devices.
    executor.drive_ready(lock);
    return true;
  }

  // With the executor's mutex held: leaves the sending to the writer.
  void answer(uint64_t number, const std::string& error, const std::vector<std::byte>& result) {
    Message message;
    message.number = number;
    message.failed = error.empty() ? 0 : 1;
    message.bytes = error.empty() ? result.size() : error.size();
    const auto* head = reinterpret_cast<const std::byte*>(&message);
    std::vector<std::byte> bytes(head, head + sizeof message);
    if (error.empty()) {
      bytes.insert(bytes.end(), result.begin(), result.end());
    } else {
      const auto* text = reinterpret_cast<const std::byte*>(error.data());
      bytes.insert(bytes.end(), text, text + error.size());
    }
    {
      const std::lock_guard lock(mutex_);
      outbox_.push_back(std::move(bytes));
    }
    changed_.notify_all();
  }

  void write() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return ended_ || !outbox_.empty(); });
      if (outbox_.empty()) return;
      const std::vector<std::byte> bytes = std::move(outbox_.front());
      outbox_.pop_front();
      lock.unlock();
      if (!send_all(socket_, bytes.data(), bytes.size())) ::shutdown(socket_, SHUT_RDWR);
      lock.lock();
    }
  }

  const int socket_;
  const std::shared_ptr<NcclWorld> world_;
  const int rank_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::vector<std::byte>> outbox_;
  bool ended_ = false;
};

// Listens for ranks of other processes.
class Door {
 public:
  static Door& instance() {
    static Door* const door = new Door();  // never destroyed: as the runtime
    return *door;
  }
  uint16_t port() const { return port_; }
  uint64_t token() const { return token_; }

 private:
  Door() {
    std::random_device device;
    token_ = static_cast<uint64_t>(device()) << 32 | device();
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener_, 64) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      return;  // port 0: nobody can come
    }
    port_ = ntohs(address.sin_port);
    std::thread([this] { accept(); }).detach();
  }
  void accept() {
    while (true) {
      const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) continue;
      std::thread([this, socket] { receive(socket); }).detach();
    }
  }
  void receive(int socket) {
    send_at_once(socket);
    Greeting greeting;
    if (!receive_all(socket, &greeting, sizeof greeting) || greeting.token != token_ || greeting.num_ranks < 1 ||
        greeting.num_ranks > 4096 || greeting.rank < 0 || greeting.rank >= greeting.num_ranks) {
      ::close(socket);
      return;
    }
    const std::shared_ptr<NcclWorld> world = nccl_world_of(greeting.key, greeting.num_ranks);
    std::string why;
    if (world->num_ranks() != greeting.num_ranks) {
      why = "ranks disagree on their number: " + std::to_string(greeting.num_ranks) + " and " +
            std::to_string(world->num_ranks());
    }
    if (why.empty()) why = world->join(greeting.rank, NcclWorld::kOfAnotherProcess);
    if (why.empty()) why = world->wait_for_all(patience());
    Message welcome;
    welcome.is_welcome = 1;
    welcome.failed = why.empty() ? 0 : 1;
    welcome.bytes = why.size();
    if (!send_all(socket, &welcome, sizeof welcome) || !send_all(socket, why.data(), why.size()) || !why.empty()) {
      ::close(socket);
      return;
    }
    std::make_shared<RemoteRank>(socket, world, greeting.rank)->run();
  }

  int listener_ = -1;
  uint16_t port_ = 0;
  uint64_t token_ = 0;
};

}  // namespace

NcclAddress make_nccl_address(uint64_t key) {
  const Door& door = Door::instance();
  return {key, door.token(), door.port()};
}
bool is_of_this_process(const NcclAddress& address) { return address.token == Door::instance().token(); }

RemoteNcclWorld::~RemoteNcclWorld() {
  if (socket_ < 0) return;
  Message goodbye;
  goodbye.kind = kGoodbye;
  static_cast<void>(send_all(socket_, &goodbye, sizeof goodbye));
  ::shutdown(socket_, SHUT_RDWR);
  if (reader_.get_id() == std::this_thread::get_id()) {
    reader_.detach();
  } else if (reader_.joinable()) {
    reader_.join();
  }
  ::close(socket_);
}

std::string RemoteNcclWorld::join(int rank, int device) {
  if (std::string why = NcclWorld::join(rank, device); !why.empty()) return why;
  rank_ = rank;
  socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(address_.port);
  if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return "the process that made the id cannot be reached";
  send_at_once(socket_);
  const Greeting greeting = {address_.token, address_.key, num_ranks(), rank};
  if (!send_all(socket_, &greeting, sizeof greeting)) return "the process that made the id does not listen";
  reader_ = std::thread([weak = weak_from_this(), socket = socket_] { read(weak, socket); });
  return "";
}

std::string RemoteNcclWorld::wait_for_all(std::chrono::seconds patience_s) {
  std::unique_lock lock(state_mutex_);
  const auto waits = patience_s + std::chrono::seconds(1);  // the world's own answer names who is missing
  if (!changed_.wait_for(lock, waits, [&] { return complete_ || !lost_.empty(); })) return "not all ranks have joined";
  return lost_;
}

// A call that is completed may hold the last reference to its world: the reader owns one for as long as it touches the
// world, and stops when that was the last.
void RemoteNcclWorld::read(const std::weak_ptr<RemoteNcclWorld>& weak, int socket) {
  Message message;
  // Once the world is gone so may be the socket.
  while (!weak.expired() && receive_all(socket, &message, sizeof message) && message.bytes <= kMaxBytes) {
    std::vector<std::byte> data(message.bytes);
    if (!receive_all(socket, data.data(), data.size())) break;
    const std::shared_ptr<RemoteNcclWorld> world = weak.lock();
    if (world == nullptr) return;
    world->take(message.number, message.failed != 0, message.is_welcome != 0, std::move(data));
  }
  if (const std::shared_ptr<RemoteNcclWorld> world = weak.lock(); world != nullptr) {
    world->lose("NCCL: the process that holds the group of rank " + std::to_string(world->rank_) + " is gone");
  }
}

void RemoteNcclWorld::take(uint64_t number, bool failed, bool is_welcome, std::vector<std::byte> data) {
  const std::string error = failed ? std::string(reinterpret_cast<const char*>(data.data()), data.size()) : "";
  WorkPtr item;
  {
    const std::lock_guard lock(state_mutex_);
    if (is_welcome) {
      complete_ = error.empty();
      lost_ = error;
      changed_.notify_all();
      return;
    }
    if (lost_.empty()) lost_ = error;
    const auto found = pending_.find(number);
    if (found == pending_.end()) return;  // aborted
    found->second.answered = true;
    found->second.error = error;
    found->second.result = std::move(data);
    item = found->second.item;
  }
  Executor& executor = Runtime::instance().executor();
  const auto lock = executor.lock();
  executor.resume(item);
}

void RemoteNcclWorld::lose(const std::string& why) {
  std::vector<WorkPtr> items;
  {
    const std::lock_guard lock(state_mutex_);
    if (lost_.empty()) lost_ = why;
    for (auto& [number, pending] : pending_) {
      if (pending.answered) continue;
      pending.answered = true;
      pending.error = lost_;
      items.push_back(pending.item);
    }
  }
  changed_.notify_all();
  Executor& executor = Runtime::instance().executor();
  const auto lock = executor.lock();
  for (const WorkPtr& item : items) executor.resume(item);
}

// Once to send, and once more when the answer is there.
Outcome RemoteNcclWorld::meet(int rank, const NcclCall& call, const WorkPtr& self) {
  const size_t ranks = static_cast<size_t>(num_ranks());
  Message message;
  {
    const std::lock_guard lock(state_mutex_);
    const auto found = std::ranges::find_if(pending_, [&](const auto& each) { return each.second.item == self; });
    if (found != pending_.end()) {
      const Pending pending = std::move(found->second);
      pending_.erase(found);
      if (!pending.error.empty()) return {.error = cudaErrorLaunchFailure, .report = pending.error};
      if (!pending.result.empty()) std::memcpy(call.to, pending.result.data(), pending.result.size());
      return {};
    }
    if (!lost_.empty()) return {.error = cudaErrorLaunchFailure, .report = lost_};
    message.number = next_number_++;
    pending_[message.number] = {self, call, false, {}, {}};
  }
  message.count = call.count;
  message.kind = static_cast<int32_t>(call.kind);
  message.type = static_cast<int32_t>(call.type);
  message.op = static_cast<int32_t>(call.op);
  message.peer = call.peer;
  message.bytes = input_elements(call, rank, ranks) * size_of(call.type);
  // The reader finds out when that fails.
  if (send_all(socket_, &message, sizeof message)) static_cast<void>(send_all(socket_, call.from, message.bytes));
  return {.waits = true};
}

std::vector<WorkPtr> RemoteNcclWorld::abort() {
  std::vector<WorkPtr> items;
  {
    const std::lock_guard lock(state_mutex_);
    lost_ = "NCCL: aborted";
    for (const auto& [number, pending] : pending_) items.push_back(pending.item);
    pending_.clear();
  }
  ::shutdown(socket_, SHUT_RDWR);
  return items;
}

ncclResult_t RemoteNcclWorld::async_error() const {
  const std::lock_guard lock(state_mutex_);
  return lost_.empty() ? ncclSuccess : ncclRemoteError;
}

std::string RemoteNcclWorld::waiting() const {
  const std::lock_guard lock(state_mutex_);
  std::string text;
  for (const auto& [number, pending] : pending_) {
    text += "\n  NCCL: rank " + std::to_string(rank_) + " in " + pending.call.describe() + ", with other processes";
  }
  return text;
}

}  // namespace sextant::simt
