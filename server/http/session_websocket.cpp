// A session that has become a WebSocket: the connection's slot, its place in the drain and its records stay the session's.
#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/compose.hpp>
#include <boost/beast/core/role.hpp>
#include <memory>
#include <utility>

#include "server/http/error_body.h"
#include "server/http/session.h"
#include "server/http/websocket_connection.h"

namespace sextant::http {

// What Beast asks of a stream beyond reading and writing; found by the argument's namespace.
void beast_close_socket(Connection& connection) { connection.close(); }

// Reads what still comes until the client has closed its end too.
struct Draining {
  explicit Draining(Connection& stream) : connection(stream) {}
  template <typename Self>
  void operator()(Self& self, boost::system::error_code error = {}, size_t = 0) {
    if (error == boost::asio::error::eof) return self.complete({});
    if (error) return self.complete(error);
    const boost::asio::mutable_buffer into = boost::asio::buffer(*dropped);
    connection.async_read_some(into, std::move(self));
  }
  Connection& connection;
  std::unique_ptr<std::array<char, 512>> dropped = std::make_unique<std::array<char, 512>>();
};

// After the close frames. Whoever calls has a timer for clients that stay.
template <typename Handler>
void async_teardown(boost::beast::role_type, Connection& connection, Handler&& handler) {
  connection.shutdown_send();
  boost::asio::async_compose<Handler, void(boost::system::error_code)>(Draining(connection), handler, connection);
}

bool Session::is_websocket_upgrade(const HttpRequest& request) const {
  const std::string& path = server_->options.websocket_path;
  return !path.empty() && request.path == path && asks_for_websocket(request);
}

Session::Awaitable<void> Session::serve_websocket(HttpRequest handshake) {
  WebSocketHooks hooks;
  const std::shared_ptr<ServerState> server = server_;
  hooks.dispatch = [server](std::shared_ptr<Exchange> exchange) {
    const Router::Match match = server->router->find("POST", exchange->request().path);
    if (match.handler == nullptr) {
      exchange->respond(error_response(404, "there is nothing at " + exchange->request().path));
    } else {
      (*match.handler)(std::move(exchange));
    }
  };
  hooks.on_request_begin = [server] { server->num_requests.fetch_add(1, std::memory_order_relaxed); };
  hooks.on_request_end = [server](const HttpRequest& request, int status, bool client_gone, Clock::time_point start,
                                  uint64_t num_response_bytes) {
    server->num_requests.fetch_sub(1, std::memory_order_relaxed);
    if (!server->options.on_request) return;
    RequestRecord record;
    record.method = "WEBSOCKET";
    record.path = request.path;
    record.pattern = request.path;  // websocket_path: one
    record.client_address = request.client_address;
    record.request_id = request.request_id;
    record.status = status;
    record.client_gone = client_gone;
    record.duration_s = std::chrono::duration<double>(Clock::now() - start).count();
    record.request_bytes = request.body.size();
    record.response_bytes = num_response_bytes;
    record.notes = request.notes.get();
    server->options.on_request(record);
  };
  hooks.on_end = [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->websocket_ended_ = true;
      self->wake();
    }
  };
  websocket_ = std::make_shared<WebSocketConnection<Connection>>(std::move(connection_), limits(), std::move(hooks));
  websocket_->start(std::move(handshake));
  while (!websocket_ended_) {
    if (failed_) {
      websocket_->close_now();
    } else if (close_when_idle_) {
      websocket_->close_when_idle();
    }
    if (websocket_ended_) break;
    co_await wait(Clock::time_point::max());
  }
  exchange_->close();
  failed_ = true;
}

}  // namespace sextant::http
