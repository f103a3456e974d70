#include "engine/base/tcp_socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace sextant {
namespace {

struct AddressesDeleter {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, AddressesDeleter>;

std::string error_text(int error) { return std::strerror(error); }  // NOLINT(concurrency-mt-unsafe): glibc's is safe

Result<Addresses> resolve(const std::string& host, uint16_t port, int flags) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  // A name may come to exist while the other machines of a group start.
  if (error == EAI_AGAIN) return unavailable("the name " + host + " cannot be resolved now");
  if (error != 0) return invalid_argument("the name " + host + " cannot be resolved: " + gai_strerror(error));
  return Addresses(list);
}

// Milliseconds for poll(), rounded up, so that a wait does not end before its deadline.
int remaining_ms(Deadline deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

bool has_passed(Deadline deadline) { return std::chrono::steady_clock::now() >= deadline; }

// False at the deadline. An error condition counts as ready: the call that follows will say which.
bool wait_for(int descriptor, short events, Deadline deadline) {
  while (true) {
    pollfd entry = {descriptor, events, 0};
    const int count = poll(&entry, 1, remaining_ms(deadline));
    if (count > 0) return true;
    if (has_passed(deadline)) return false;
  }
}

Status deadline_exceeded(const std::string& what) { return {StatusCode::kDeadlineExceeded, what}; }

std::string name_of(const sockaddr_storage& address, socklen_t size, bool with_port) {
  char host[NI_MAXHOST] = {};
  char port[NI_MAXSERV] = {};
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "";
  }
  return with_port ? host_and_port(host, static_cast<uint16_t>(std::stoi(port))) : std::string(host);
}

bool set_non_blocking(int descriptor) {
  const int flags = fcntl(descriptor, F_GETFL);
  return flags >= 0 && fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0;
}

void close_quietly(int descriptor) {
  if (descriptor >= 0) ::close(descriptor);
}

}  // namespace

std::string host_and_port(const std::string& host, uint16_t port) {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return (is_ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

TcpSocket::TcpSocket(int descriptor) : descriptor_(descriptor) {
  set_non_blocking(descriptor_);
  const int on = 1;  // small messages go at once: someone waits for each
  setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

TcpSocket::~TcpSocket() { close_quietly(descriptor_); }

TcpSocket& TcpSocket::operator=(TcpSocket&& other) noexcept {
  if (this != &other) {
    close_quietly(descriptor_);
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

Result<TcpSocket> TcpSocket::connect(const std::string& host, uint16_t port, Deadline deadline) {
  ASSIGN_OR_RETURN(const Addresses addresses, resolve(host, port, 0));
  const std::string where = host_and_port(host, port);
  Status last = unavailable(where + " has no address");
  for (const addrinfo* each = addresses.get(); each != nullptr; each = each->ai_next) {
    const int descriptor = ::socket(each->ai_family, each->ai_socktype | SOCK_CLOEXEC, each->ai_protocol);
    if (descriptor < 0) {
      last = unavailable(where + ": " + error_text(errno));
      continue;
    }
    TcpSocket connecting(descriptor);
    int error = ::connect(descriptor, each->ai_addr, each->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      if (!wait_for(descriptor, POLLOUT, deadline)) return deadline_exceeded(where + " does not answer");
      socklen_t size = sizeof error;
      getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (error == 0) return connecting;
    last = unavailable(where + ": " + error_text(error));
  }
  return last;
}

Status TcpSocket::send_all(std::span<const std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    const ssize_t count = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count > 0) {
      bytes = bytes.subspan(static_cast<size_t>(count));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_for(descriptor_, POLLOUT, deadline)) return deadline_exceeded("the other side takes no bytes");
    } else if (errno != EINTR) {
      return unavailable("the connection was lost: " + error_text(errno));
    }
  }
  return ok_status();
}

Status TcpSocket::receive_all(std::span<std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    const ssize_t count = ::recv(descriptor_, bytes.data(), bytes.size(), 0);
    if (count > 0) {
      bytes = bytes.subspan(static_cast<size_t>(count));
    } else if (count == 0) {
      return unavailable("the connection was closed");
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_for(descriptor_, POLLIN, deadline)) return deadline_exceeded("the other side sends nothing");
    } else if (errno != EINTR) {
      return unavailable("the connection was lost: " + error_text(errno));
    }
  }
  return ok_status();
}

void TcpSocket::shutdown() {
  if (descriptor_ >= 0) ::shutdown(descriptor_, SHUT_RDWR);
}

void TcpSocket::finish_sending() {
  if (descriptor_ >= 0) ::shutdown(descriptor_, SHUT_WR);
}

std::string TcpSocket::local_host() const {
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  if (getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "";
  return name_of(address, size, false);
}

std::string TcpSocket::peer_host() const {
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  if (getpeername(descriptor_, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "";
  return name_of(address, size, false);
}

std::string TcpSocket::peer() const {
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  if (getpeername(descriptor_, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "";
  return name_of(address, size, true);
}

TcpListener::~TcpListener() { close_quietly(descriptor_); }

TcpListener& TcpListener::operator=(TcpListener&& other) noexcept {
  if (this != &other) {
    close_quietly(descriptor_);
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

Result<TcpListener> TcpListener::listen(const std::string& host, uint16_t port) {
  ASSIGN_OR_RETURN(const Addresses addresses, resolve(host, port, AI_PASSIVE));
  Status last = unavailable(host + " has no address");
  for (const addrinfo* each = addresses.get(); each != nullptr; each = each->ai_next) {
    TcpListener listener;
    listener.descriptor_ =
        ::socket(each->ai_family, each->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, each->ai_protocol);
    const int on = 1;
    setsockopt(listener.descriptor_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (listener.descriptor_ >= 0 && ::bind(listener.descriptor_, each->ai_addr, each->ai_addrlen) == 0 &&
        ::listen(listener.descriptor_, 128) == 0) {
      return listener;
    }
    last = unavailable("cannot listen at " + host_and_port(host, port) + ": " + error_text(errno));
  }
  return last;
}

std::optional<TcpSocket> TcpListener::accept(Deadline deadline) {
  while (true) {
    const int descriptor = ::accept4(descriptor_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (descriptor >= 0) return TcpSocket(descriptor);
    if (errno == EINVAL || errno == EBADF) return std::nullopt;    // shut down
    if (errno == EMFILE || errno == ENFILE) poll(nullptr, 0, 10);  // somebody may close one
    if (!wait_for(descriptor_, POLLIN, deadline)) return std::nullopt;
    if (has_passed(deadline)) return std::nullopt;
  }
}

void TcpListener::shutdown() {
  if (descriptor_ >= 0) ::shutdown(descriptor_, SHUT_RDWR);
}

uint16_t TcpListener::port() const {
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  if (getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

}  // namespace sextant
