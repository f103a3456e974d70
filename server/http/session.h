// Session: one connection. One coroutine (run) reads requests, dispatches them and writes answers, in order;
// it has one place to wait (wait), and every read, write or call from a handler leaves its result in a member
// and wakes it. Reads go on while a handler works: that is how a client that goes away is noticed, and a
// request that arrives early is kept for its turn (behind Limits::max_pipelined_bytes of those, only a reset
// is noticed at once). Everything runs on the session's strand. Private to server/http.
//
// An end of file from the client before its answer is complete counts as gone: programs that close only their
// sending side (shutdown(SHUT_WR)) and still read are not served; no HTTP client library does so.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "server/http/in_buffer.h"
#include "server/http/request_reader.h"
#include "server/http/server_state.h"
#include "server/http/session_exchange.h"
#include "server/http/websocket.h"

namespace sextant::http {

class Session : public std::enable_shared_from_this<Session> {
 public:
  // `refusing`: one connection too many; its first request gets 503.
  Session(Socket socket, std::string client_address, std::shared_ptr<ServerState> server, bool refusing);

  void start();
  // Any thread.
  void close_when_idle();
  void close_now();

  // On the strand.
  void wake() { wake_timer_.cancel(); }
  // A handler wrote to its stream: into the socket at once where it takes bytes, without a turn of the coroutine.
  void on_stream_bytes();
  const Strand& strand() const { return strand_; }
  const Limits& limits() const { return server_->options.limits; }

 private:
  using Clock = std::chrono::steady_clock;
  using Timer = boost::asio::basic_waitable_timer<Clock, boost::asio::wait_traits<Clock>, Strand>;
  template <typename T>
  using Awaitable = boost::asio::awaitable<T, Strand>;
  enum class Inbound { kRequest, kError, kClosed };

  Awaitable<void> run();
  Awaitable<bool> secure();  // the TLS handshake, where there is TLS; false: there is nobody to serve
  Awaitable<void> wait(Clock::time_point deadline);  // until woken or the deadline
  Awaitable<Inbound> read_head(RequestReader& reader, bool is_first);
  Awaitable<Inbound> read_body(RequestReader& reader);
  Awaitable<void> serve(RequestReader& reader, Inbound inbound);
  bool is_websocket_upgrade(const HttpRequest& request) const;
  Awaitable<void> serve_websocket(HttpRequest handshake);
  Awaitable<void> deliver();
  Awaitable<void> linger();
  void finish();

  // Reading: at most one read at a time, into in_.
  void ensure_read(size_t num_bytes);
  void on_read(const boost::system::error_code& error, size_t num_bytes);

  // Answering.
  void dispatch(const Handler& handler);
  void answer_with(HttpResponse response);
  void call(const std::function<void()>& callback);  // a handler's; it may throw
  void write_some_now();
  bool prepare_write();  // false: nothing to write now
  void prepare_stream_write();
  void start_write();
  void on_written(const boost::system::error_code& error, size_t num_bytes);
  void update_buffered();
  void tell_disconnect();
  void trace(SocketEvent::Kind kind, int64_t time_ns, size_t num_bytes, int64_t num_tokens);
  void observe(const Router::Match& match, Clock::time_point start);

  const std::shared_ptr<ServerState> server_;
  Connection connection_;
  const Strand strand_;
  Timer wake_timer_;
  const std::string client_address_;
  std::optional<HttpResponse> refusal_;  // the answer to its only request, whatever that is

  InBuffer in_;
  std::optional<boost::system::error_code> handshake_;  // how that of TLS ended
  bool is_reading_ = false;
  bool read_closed_ = false;  // end of file; more can still be written
  bool failed_ = false;       // the connection is of no more use
  bool close_when_idle_ = false;
  bool finished_ = false;

  std::shared_ptr<WebSocket> websocket_;  // has taken the connection
  bool websocket_ended_ = false;

  // The request being answered.
  std::shared_ptr<ExchangeState> exchange_;
  bool keep_alive_ = true;
  bool is_http10_ = false;
  bool is_head_ = false;  // method HEAD: no body goes out
  bool head_sent_ = false;
  bool answer_sent_ = false;
  uint64_t num_request_bytes_ = 0;
  uint64_t num_response_bytes_ = 0;

  // The write under way: three pieces, so that a body is not copied to be framed.
  std::string out_head_;
  std::string out_body_;
  std::string out_tail_;
  size_t out_sent_ = 0;
  int64_t out_tokens_ = 0;  // in the write under way
  int64_t write_called_ns_ = 0;
  bool is_writing_ = false;
  bool writes_now_ = false;  // inside on_stream_bytes(): the coroutine need not know
  Clock::time_point last_write_progress_;
};

}  // namespace sextant::http
