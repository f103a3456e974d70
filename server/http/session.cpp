// The connection's life: reading, waiting, closing. What is said to the client is in session_answer.cpp.
#include "server/http/session.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <utility>

#include "engine/base/log.h"
#include "server/http/error_body.h"
#include "server/http/tls_certificates.h"

namespace sextant::http {
namespace {

namespace asio = boost::asio;

constexpr size_t kHeadReadBytes = 4 * 1024;
constexpr size_t kBodyReadBytes = 64 * 1024;

void set_option(int fd, int level, int name, int value) {
  // Advice to the kernel: the server works without.
  (void)setsockopt(fd, level, name, &value, sizeof(value));
}

}  // namespace

Session::Session(Socket socket, std::string client_address, std::shared_ptr<ServerState> server, bool refusing)
    : server_(std::move(server)),
      connection_(std::move(socket)),
      strand_(connection_.get_executor()),
      wake_timer_(strand_),
      client_address_(std::move(client_address)) {
  if (refusing) refusal_ = error_response(503, "the server has as many connections as it may have; try again");
  const int fd = connection_.native_handle();
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  // A peer that lost its power says nothing; while a handler works, only the kernel's probes notice (in about
  // a minute).
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 30);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  if (limits().send_buffer_bytes > 0) set_option(fd, SOL_SOCKET, SO_SNDBUF, limits().send_buffer_bytes);
}

void Session::start() {
  asio::co_spawn(
      strand_, [self = shared_from_this()]() -> Awaitable<void> { co_await self->run(); },
      [](const std::exception_ptr& exception) {
        if (!exception) return;
        try {
          std::rethrow_exception(exception);
        } catch (const std::exception& e) {
          LOG_ERROR << "an HTTP session ended by an exception: " << e.what();
        } catch (...) {
          LOG_ERROR << "an HTTP session ended by an exception";
        }
      });
}

void Session::close_when_idle() {
  asio::post(strand_, [self = shared_from_this()] {
    self->close_when_idle_ = true;
    self->wake();
  });
}

void Session::close_now() {
  asio::post(strand_, [self = shared_from_this()] {
    self->failed_ = true;
    self->wake();
  });
}

Session::Awaitable<void> Session::wait(Clock::time_point deadline) {
  wake_timer_.expires_at(deadline);
  co_await wake_timer_.async_wait(asio::as_tuple(asio::use_awaitable_t<Strand>()));
}

Session::Awaitable<void> Session::run() {
  // Also when the frame is destroyed with its io_context.
  struct AtEnd {
    Session& session;
    ~AtEnd() { session.finish(); }
  } at_end{*this};

  if (!co_await secure()) co_return;
  for (bool is_first = true; !failed_; is_first = false) {
    RequestReader reader(limits());
    const Inbound inbound = co_await read_head(reader, is_first);
    if (inbound == Inbound::kClosed) {
      if (connection_.is_tls() && in_.empty()) connection_.shutdown_send();  // the client can tell it from a cut
      co_return;
    }
    co_await serve(reader, inbound);
    if (!keep_alive_ || read_closed_) break;
  }
  if (!failed_) co_await linger();
}

Session::Awaitable<bool> Session::secure() {
  if (!server_->options.tls) co_return true;
  const std::shared_ptr<TlsCertificates> tls = server_->options.tls;
  connection_.begin_tls(tls->context().get());
  connection_.async_handshake([self = shared_from_this()](const boost::system::error_code& error) {
    self->handshake_ = error;
    self->wake();
  });
  const Clock::time_point deadline = Clock::now() + limits().header_timeout;
  while (!handshake_ && !failed_ && !close_when_idle_ && Clock::now() < deadline) co_await wait(deadline);
  const bool is_secure = handshake_ && !*handshake_;
  tls->count_handshake(is_secure);
  if (is_secure) co_return true;
  LOG_DEBUG << "no TLS with " << client_address_ << ": "
            << (handshake_ ? handshake_->message() : "the handshake was not finished in time");
  if (!handshake_ || failed_) co_return false;
  // Nothing is under way: from here on the bytes are plain.
  connection_.end_tls();
  if (*handshake_ == kNotTls) {
    refusal_ = error_response(400, "this port speaks TLS, and the request came without it: use https://");
    co_return true;
  }
  if (*handshake_ != asio::error::eof) co_await linger();  // OpenSSL's alert, which says why, is to arrive
  co_return false;
}

void Session::finish() {
  if (std::exchange(finished_, true)) return;
  failed_ = true;
  if (exchange_) exchange_->close();
  connection_.close();
  const std::lock_guard lock(server_->mutex);
  server_->sessions.erase(this);
}

Session::Awaitable<Session::Inbound> Session::read_head(RequestReader& reader, bool is_first) {
  bool has_begun = is_first;
  Clock::time_point deadline = Clock::now() + (is_first ? limits().header_timeout : limits().idle_timeout);
  while (!failed_) {
    if (!in_.empty()) {
      if (!has_begun) {
        has_begun = true;
        deadline = Clock::now() + limits().header_timeout;
      }
      for (size_t used = 1; used > 0 && reader.state() == RequestReader::State::kHead && !in_.empty();) {
        used = reader.feed(in_.view());
        in_.consume(used);
      }
      if (reader.state() == RequestReader::State::kError) co_return Inbound::kError;
      if (reader.state() != RequestReader::State::kHead) co_return Inbound::kRequest;
    }
    if (read_closed_) co_return Inbound::kClosed;
    if (in_.empty() && (close_when_idle_ || (server_->is_draining && !is_first))) co_return Inbound::kClosed;
    ensure_read(kHeadReadBytes);
    co_await wait(deadline);
    if (is_reading_ && Clock::now() >= deadline) {
      if (in_.empty()) co_return Inbound::kClosed;
      reader.time_out("the request header took too long");
      co_return Inbound::kError;
    }
  }
  co_return Inbound::kClosed;
}

Session::Awaitable<Session::Inbound> Session::read_body(RequestReader& reader) {
  const Clock::time_point start = Clock::now();
  while (!failed_) {
    in_.consume(reader.feed(in_.view()));
    if (reader.state() == RequestReader::State::kError) co_return Inbound::kError;
    if (reader.state() == RequestReader::State::kComplete) co_return Inbound::kRequest;
    if (read_closed_) co_return Inbound::kClosed;
    const auto earned = std::chrono::milliseconds(reader.num_body_wire_bytes() * 1000 /
                                                  std::max<size_t>(1, limits().min_body_bytes_per_s));
    const Clock::time_point deadline = start + limits().body_timeout + earned;
    ensure_read(kBodyReadBytes);
    co_await wait(deadline);
    if (is_reading_ && Clock::now() >= deadline) {
      reader.time_out("the request body took too long");
      co_return Inbound::kError;
    }
  }
  co_return Inbound::kClosed;
}

void Session::ensure_read(size_t num_bytes) {
  // A head that fits max_header_bytes is judged before the buffer is full, so reading a request never stops
  // here.
  const size_t capacity = std::max(limits().max_pipelined_bytes, limits().max_header_bytes + kHeadReadBytes);
  if (is_reading_ || read_closed_ || failed_ || in_.size() >= capacity) return;
  is_reading_ = true;
  connection_.async_read_some(asio::buffer(in_.prepare(num_bytes), num_bytes),
                              [self = shared_from_this()](const boost::system::error_code& error, size_t num_read) {
                                self->on_read(error, num_read);
                              });
}

void Session::on_read(const boost::system::error_code& error, size_t num_bytes) {
  is_reading_ = false;
  in_.commit(num_bytes);
  if (error) {
    read_closed_ = true;
    if (error != asio::error::eof) failed_ = true;
  }
  wake();
}

Session::Awaitable<void> Session::linger() {
  // Closing while bytes are unread would reset the connection, and the client could lose our answer.
  connection_.shutdown_send();
  const Clock::time_point deadline = Clock::now() + limits().linger_timeout;
  while (!failed_ && !read_closed_ && Clock::now() < deadline) {
    if (!is_reading_) {
      in_.consume(in_.size());
      ensure_read(kBodyReadBytes);
    }
    co_await wait(deadline);
  }
}

}  // namespace sextant::http
