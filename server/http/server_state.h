// What the listener and its sessions share. Owned by shared_ptr: a session may outlive its HttpServer by a
// moment. Private to server/http.
#pragma once

#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "server/http/connection.h"
#include "server/http/listener.h"

namespace sextant::http {

using Acceptor = boost::asio::basic_socket_acceptor<boost::asio::ip::tcp, Strand>;

class Session;

struct ServerState {
  ServerState(boost::asio::io_context& context, HttpServer::Options server_options,
              std::shared_ptr<const Router> server_router)
      : io(context),
        options(std::move(server_options)),
        router(std::move(server_router)),
        acceptor(boost::asio::make_strand(context)) {}

  boost::asio::io_context& io;
  const HttpServer::Options options;
  const std::shared_ptr<const Router> router;
  Acceptor acceptor;  // after start() only on its strand
  uint16_t local_port = 0;
  std::atomic<bool> is_draining{false};
  std::atomic<size_t> num_requests{0};

  using NumByClient = std::unordered_map<std::string, size_t>;  // only who has connections is in it
  // A session's place, and one of those that its client has; both end when it is erased.
  struct Seat {
    Seat(std::weak_ptr<Session> of, NumByClient& counts, std::string of_client)
        : session(std::move(of)), num_by_client(counts), client(std::move(of_client)) {
      if (!client.empty()) ++num_by_client[client];
    }
    ~Seat() {
      const auto found = num_by_client.find(client);
      if (found != num_by_client.end() && --found->second == 0) num_by_client.erase(found);
    }
    Seat(const Seat&) = delete;
    Seat& operator=(const Seat&) = delete;
    std::weak_ptr<Session> session;
    NumByClient& num_by_client;
    std::string client;  // empty: it is not counted
  };

  std::mutex mutex;
  NumByClient num_by_client;                    // guarded by mutex, as what follows
  std::unordered_map<Session*, Seat> sessions;  // goes first
};

}  // namespace sextant::http
