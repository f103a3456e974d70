// Communicators between processes over TCP, in host memory: the CPU backend's where its ranks are not threads of one process.
// Every pair of ranks has a connection of its own. A call sends to all the ranks that it concerns and reads from them at once,
// so that nobody waits for a full socket; each message says which call it belongs to. Sums are as in thread_communicator: the
// same bits. A send returns when the kernel has its bytes.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "engine/base/tcp_socket.h"
#include "engine/device/communicator.h"

namespace sextant {

// Where the ranks of other processes find those of this one. Takes only connections that begin with `token`, which the
// processes have agreed on (16 bytes).
class TcpMeetingPoint {
 public:
  struct Address {
    std::string host;
    uint16_t port = 0;
  };

  static Result<std::unique_ptr<TcpMeetingPoint>> listen(const std::string& host, std::string token);
  ~TcpMeetingPoint();
  TcpMeetingPoint(const TcpMeetingPoint&) = delete;
  TcpMeetingPoint& operator=(const TcpMeetingPoint&) = delete;

  uint16_t port() const { return listener_.port(); }

  // The communicator of rank `rank` in group number `group`, of addresses.size() ranks; addresses[r] is the meeting point of rank
  // r's process. Waits until all ranks of the group have come. A call that waits longer than `timeout_s` for other ranks fails the
  // group and names them; 0: waits until abort(). Any thread; the meeting point may go before the communicators.
  Result<std::unique_ptr<Communicator>> join(uint32_t group, int rank, const std::vector<Address>& addresses,
                                             Deadline deadline, double timeout_s);

 private:
  explicit TcpMeetingPoint(std::string token) : token_(std::move(token)) {}
  void accept();
  void receive_stranger(TcpSocket socket);

  const std::string token_;
  TcpListener listener_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  bool stopping_ = false;
  std::map<std::tuple<uint32_t, uint32_t, uint32_t>, TcpSocket> waiting_;  // by group, the rank here, the one there
  std::vector<std::thread> strangers_;
  std::thread thread_;
};

}  // namespace sextant
