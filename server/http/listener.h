// HttpServer: binds a port, accepts connections and runs one Session on each. Asynchronous only: everything
// happens on the threads that run the io_context. Knows no route's meaning. Includes no Beast header.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "engine/base/result.h"
#include "server/http/limits.h"
#include "server/http/router.h"

namespace sextant::http {

// One request as it ended; observed exactly once, also when it was malformed or its client went away.
struct RequestRecord {
  std::string_view method;   // as sent; empty when the request line was not understood
  std::string_view path;     // decoded, as sent; may be hostile
  std::string_view pattern;  // the route's: bounded cardinality; empty when no route matched
  std::string_view client_address;
  std::string_view request_id;
  int status = 0;                       // 499: the client was gone before an answer began
  bool client_gone = false;             // before the answer was complete
  double duration_s = 0;                // end of the header to the last byte handed to the kernel
  uint64_t request_bytes = 0;           // of the body
  uint64_t response_bytes = 0;          // on the wire, head included
  const RequestNotes* notes = nullptr;  // null: no handler was reached
};

// What the server's own side of a connection did, for a trace of the truth. Times are steady_clock's.
struct SocketEvent {
  enum class Kind {
    kRequest,  // all of it was read; num_bytes of its body
    kWrite,    // num_bytes were taken by the socket; the time is just before the call
    kEnd,      // the answer is complete, or the client gone
  };
  Kind kind = Kind::kWrite;
  int64_t time_ns = 0;
  std::string_view request_id;
  std::string_view path;
  size_t num_bytes = 0;
  int64_t num_tokens = 0;  // of the write, as the handler counted them
};

class TlsCertificates;
struct ServerState;  // what the listener and its sessions share (server_state.h)

class HttpServer {
 public:
  struct Options {
    std::string host = "127.0.0.1";  // an address or a name; "0.0.0.0" and "::" are all interfaces
    uint16_t port = 8000;            // 0: the kernel picks one, see local_port()
    Limits limits;
    // Here a GET may become a WebSocket, whose messages are answered by the route's POST. Empty: nowhere.
    std::string websocket_path;
    std::shared_ptr<TlsCertificates> tls;  // null: plain HTTP
    // Whose connections a peer's address counts among, for Limits::max_connections_of_client; empty: nobody's (a proxy that
    // speaks for many). Unset: its own. Any I/O thread.
    std::function<std::string(const std::string& address)> client_of;
    // Called for each connection that is one too many; any I/O thread.
    std::function<void()> on_refused_connection;
    // Called on an I/O thread after each request; must not block. The record's views end with the call.
    std::function<void(const RequestRecord&)> on_request;
    // Called on an I/O thread for each event of each connection; must not block. Empty: no trace is kept.
    std::function<void(const SocketEvent&)> on_socket_event;
  };

  // `io` is run by the caller, on one or more threads; it must outlive the server and every Exchange.
  HttpServer(boost::asio::io_context& io, Options options, std::shared_ptr<const Router> router);
  ~HttpServer();  // stop_accepting() and close_all(); what is left ends on the io_context's threads
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Binds and listens (blocking: it may resolve a name). kUnavailable with what to do when the port is taken.
  Status start();
  uint16_t local_port() const;  // after start()

  // Any thread, at once; the order of a drain is: stop_accepting, close_idle, (wait until num_requests is 0),
  // close_all.
  void stop_accepting();  // and from here on each answer says Connection: close
  void close_idle();      // connections between two requests
  void close_all();       // all of them; handlers at work hear on_disconnect
  size_t num_connections() const;
  size_t num_requests() const;  // being answered

 private:
  std::shared_ptr<ServerState> state_;
};

}  // namespace sextant::http
