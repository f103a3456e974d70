// TcpSocket, TcpListener: connections whose every wait has a deadline and can be ended by another thread. What a group of
// processes talks over (engine/group, engine/device/tcp_communicator). HTTP does not come here: server/http has its own.
// Plain POSIX: a thread that has nothing else to do waits in poll(), and builds without Boost have groups too.
// Threads: one sends and one receives at a time; shutdown() from any.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "engine/base/result.h"

namespace sextant {

using Deadline = std::chrono::steady_clock::time_point;
inline Deadline deadline_in(double seconds) {
  return std::chrono::steady_clock::now() +
         std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(seconds));
}

class TcpSocket {
 public:
  TcpSocket() = default;
  explicit TcpSocket(int descriptor);  // a connected one; takes it over
  ~TcpSocket();
  TcpSocket(TcpSocket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  TcpSocket& operator=(TcpSocket&& other) noexcept;

  // Every address of `host` once. kUnavailable: nobody there (yet); kInvalidArgument: no such host.
  static Result<TcpSocket> connect(const std::string& host, uint16_t port, Deadline deadline);

  // All of it, or why not: kDeadlineExceeded; kUnavailable when the other side closed or shutdown() was called.
  Status send_all(std::span<const std::byte> bytes, Deadline deadline);
  Status receive_all(std::span<std::byte> bytes, Deadline deadline);

  // Ends what waits on the socket, in any thread; the other side sees the connection close.
  void shutdown();
  // Nothing more is sent; the other side reads what was, and its answers come still.
  void finish_sending();
  bool is_open() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }

  // Numeric: "127.0.0.1", "::1"; empty once the connection is gone.
  std::string local_host() const;
  std::string peer_host() const;
  std::string peer() const;  // with its port: "127.0.0.1:40112", "[::1]:40112"

 private:
  int descriptor_ = -1;
};

class TcpListener {
 public:
  TcpListener() = default;
  ~TcpListener();
  TcpListener(TcpListener&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  TcpListener& operator=(TcpListener&& other) noexcept;

  // On the first address of `host` that can be bound; port 0: the kernel picks one.
  static Result<TcpListener> listen(const std::string& host, uint16_t port);

  // Nothing at the deadline or after shutdown().
  std::optional<TcpSocket> accept(Deadline deadline);
  void shutdown();
  uint16_t port() const;

 private:
  int descriptor_ = -1;
};

// "127.0.0.1:29501", "[::1]:29501"
std::string host_and_port(const std::string& host, uint16_t port);

}  // namespace sextant
