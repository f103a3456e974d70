// What the listener and its sessions share. Owned by shared_ptr: a session may outlive its HttpServer by a
// moment. Private to server/http.
#pragma once

#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

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

  std::mutex mutex;
  std::unordered_map<Session*, std::weak_ptr<Session>> sessions;  // guarded by mutex
};

}  // namespace sextant::http
