#include "server/http/upstream.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <cctype>
#include <charconv>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "engine/base/log.h"
#include "server/http/upstream_answer.h"

namespace sextant::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr size_t kReadBytes = 16 * 1024;

// Nothing has come and the peer has not closed.
bool is_quiet(tcp::socket& socket) {
  char byte = 0;
  const ssize_t count = recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

}  // namespace

Result<Endpoint> Endpoint::parse(std::string_view text) {
  const std::string given(text.substr(0, 200));
  const auto bad = [&](const std::string& why) {
    return invalid_argument("'" + given + "' " + why + "; an endpoint is http://HOST:PORT");
  };
  if (text.starts_with("https://")) return bad("asks for TLS, which is not spoken to members: end it in front of them");
  if (text.starts_with("http://")) text.remove_prefix(7);
  if (text.ends_with('/')) text.remove_suffix(1);
  Endpoint endpoint;
  std::string_view port;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == text.npos) return bad("has no end of its IPv6 address");
    endpoint.host = text.substr(1, end - 1);
    port = text.substr(end + 1);
    ErrorCode error;
    asio::ip::make_address_v6(endpoint.host, error);
    if (error) return bad("has no IPv6 address in its brackets");
  } else {
    const size_t colon = text.find(':');
    endpoint.host = text.substr(0, colon);
    port = colon == text.npos ? std::string_view() : text.substr(colon);
    if (!std::ranges::all_of(endpoint.host, [](char c) {
          return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-' || c == '_';
        }))
      return bad("has a host that is no name");
  }
  if (endpoint.host.empty() || endpoint.host.size() > 253) return bad("has no host");
  if (!port.starts_with(':')) return bad("has no port");
  port.remove_prefix(1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), endpoint.port);
  if (error != std::errc() || end != port.data() + port.size() || endpoint.port == 0)
    return bad("has no port from 1 to 65535");
  return endpoint;
}

std::string Endpoint::authority() const {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return (is_ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

struct UpstreamClient::Pool {
  struct Idle {
    tcp::socket socket;
    Clock::time_point since;
  };

  Pool(asio::io_context& context, Options pool_options) : io(context), options(pool_options) {}

  std::optional<tcp::socket> take(const std::string& authority) {
    const std::lock_guard lock(mutex);
    const auto found = idle.find(authority);
    if (found == idle.end()) return std::nullopt;
    std::deque<Idle>& sockets = found->second;
    while (!sockets.empty()) {  // the youngest: the others grow old and go
      Idle last = std::move(sockets.back());
      sockets.pop_back();
      if (Clock::now() - last.since < options.idle_timeout && is_quiet(last.socket)) return std::move(last.socket);
    }
    idle.erase(found);
    return std::nullopt;
  }

  void keep(const std::string& authority, tcp::socket socket) {
    const std::lock_guard lock(mutex);
    if (closed) return;
    std::deque<Idle>& sockets = idle[authority];
    const Clock::time_point now = Clock::now();
    while (!sockets.empty() && now - sockets.front().since >= options.idle_timeout) sockets.pop_front();
    if (sockets.size() < options.max_idle_per_endpoint) sockets.push_back({std::move(socket), now});
  }

  asio::io_context& io;
  const Options options;
  std::mutex mutex;
  bool closed = false;                                     // guarded by mutex
  std::unordered_map<std::string, std::deque<Idle>> idle;  // guarded by mutex
};

// connect (or a kept connection) -> write -> read until the answer is complete. One operation of each kind is outstanding at
// most; all handlers run on the strand.
class UpstreamClient::Call final : public UpstreamCall, public std::enable_shared_from_this<Call> {
 public:
  Call(std::shared_ptr<Pool> pool, asio::any_io_executor strand, const Endpoint& endpoint, UpstreamRequest request,
       const UpstreamTimeouts& timeouts, UpstreamEvents events)
      : pool_(std::move(pool)),
        strand_(std::move(strand)),
        endpoint_(endpoint),
        authority_(endpoint.authority()),
        method_(request.method),
        head_text_(request_head_text(request, authority_)),
        body_(std::move(request.body)),
        timeouts_(timeouts),
        events_(std::make_shared<UpstreamEvents>(std::move(events))),
        socket_(pool_->io),
        resolver_(pool_->io),
        timer_(pool_->io) {}

  void start() {
    asio::post(strand_, [self = shared_from_this()] {
      if (!self->done_) self->open(true);
    });
  }

  void cancel() override {
    if (std::exchange(done_, true)) return;
    events_.reset();
    close();
  }

  void pause() override { paused_ = true; }

  void resume() override {
    if (!std::exchange(paused_, false) || done_) return;
    if (answer_ && !is_reading_) read();
  }

 private:
  template <typename Handler>
  auto on_strand(Handler handler) {
    return asio::bind_executor(strand_, std::move(handler));
  }

  void open(bool may_reuse) {
    is_reused_ = false;
    if (may_reuse) {
      if (std::optional<tcp::socket> kept = pool_->take(authority_)) {
        socket_ = std::move(*kept);
        is_reused_ = true;
        return send();
      }
    }
    set_deadline(timeouts_.connect, "no connection within its time", UpstreamEnd::kNotSent);
    ErrorCode error;
    const auto address = asio::ip::make_address(endpoint_.host, error);
    if (!error) return connect({tcp::endpoint(address, endpoint_.port)});
    resolver_.async_resolve(
        endpoint_.host, std::to_string(endpoint_.port), tcp::resolver::numeric_service,
        on_strand([self = shared_from_this()](const ErrorCode& failed, const tcp::resolver::results_type& found) {
          if (self->done_) return;
          if (failed) return self->end(UpstreamEnd::kNotSent, "its name is not known: " + failed.message());
          std::vector<tcp::endpoint> endpoints;
          for (const auto& entry : found) endpoints.push_back(entry.endpoint());
          self->connect(std::move(endpoints));
        }));
  }

  void connect(std::vector<tcp::endpoint> endpoints) {
    endpoints_ = std::move(endpoints);
    asio::async_connect(socket_, endpoints_,
                        on_strand([self = shared_from_this()](const ErrorCode& failed, const tcp::endpoint&) {
                          if (self->done_) return;
                          if (failed) return self->end(UpstreamEnd::kNotSent, "no connection: " + failed.message());
                          const int on = 1;
                          (void)setsockopt(self->socket_.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
                          self->send();
                        }));
  }

  void send() {
    answer_.emplace(method_ == "HEAD", pool_->options.max_head_bytes);
    set_deadline(timeouts_.head, "no answer within its time", UpstreamEnd::kTimeout);
    std::vector<asio::const_buffer> buffers = {asio::buffer(head_text_)};
    if (body_ && !body_->empty()) buffers.push_back(asio::buffer(*body_));
    is_writing_ = true;
    asio::async_write(socket_, buffers, on_strand([self = shared_from_this()](const ErrorCode& failed, size_t) {
                        self->is_writing_ = false;
                        if (self->done_) return;
                        // A peer that answers before it has read everything may close; its answer is what counts.
                        if (failed) self->write_failed_ = true;
                      }));
    read();
  }

  void read() {
    if (paused_) return;
    is_reading_ = true;
    socket_.async_read_some(asio::buffer(buffer_),
                            on_strand([self = shared_from_this()](const ErrorCode& failed, size_t count) {
                              self->is_reading_ = false;
                              if (!self->done_) self->on_read(failed, count);
                            }));
  }

  void on_read(const ErrorCode& failed, size_t count) {
    if (failed && failed != asio::error::eof) return on_lost(failed.message());
    const bool is_end = failed == asio::error::eof;
    std::string_view bytes(buffer_.data(), count);
    const bool had_head = answer_->has_head();
    const std::string error = is_end ? answer_->feed_end() : answer_->feed(bytes);
    if (is_end && !answer_->has_begun()) return on_lost("it closed the connection");
    if (!error.empty()) return end(answer_->has_head() ? UpstreamEnd::kBroken : UpstreamEnd::kNoAnswer, error);
    const std::shared_ptr<UpstreamEvents> events = events_;  // callbacks may cancel
    if (!had_head && answer_->has_head()) {
      events->on_head(answer_->take_head());
      if (done_) return;
    }
    if (const std::string body = answer_->take_body(); !body.empty()) {
      events->on_body(body);
      if (done_) return;
    }
    if (answer_->is_complete()) return end(UpstreamEnd::kComplete, "");
    if (answer_->has_head()) set_deadline(timeouts_.idle, "nothing more came within its time", UpstreamEnd::kBroken);
    read();
  }

  void on_lost(const std::string& reason) {
    if (answer_->has_head()) return end(UpstreamEnd::kBroken, "the connection was lost: " + reason);
    // A kept connection that the peer closed just then says nothing of the peer.
    if (is_reused_ && !answer_->has_begun()) {
      close();
      socket_ = tcp::socket(pool_->io);
      return open(false);
    }
    end(UpstreamEnd::kNoAnswer, "no answer: " + reason);
  }

  void set_deadline(std::chrono::milliseconds after, const char* reason, UpstreamEnd kind) {
    deadline_ = Clock::now() + after;
    deadline_reason_ = reason;
    deadline_kind_ = kind;
    if (!timer_runs_) return run_timer();
    if (deadline_ < timer_.expiry()) timer_.cancel();
  }

  // One wait at a time, to the deadline as it was; moved on when that has moved: pieces of a stream cost no timer.
  void run_timer() {
    timer_runs_ = true;
    timer_.expires_at(deadline_);
    timer_.async_wait(on_strand([self = shared_from_this()](const ErrorCode&) {
      self->timer_runs_ = false;
      if (self->done_) return;
      if (self->paused_) self->deadline_ = Clock::now() + self->timeouts_.idle;
      if (Clock::now() < self->deadline_) return self->run_timer();
      self->end(self->deadline_kind_, self->deadline_reason_);
    }));
  }

  void end(UpstreamEnd kind, const std::string& reason) {
    if (std::exchange(done_, true)) return;
    if (kind == UpstreamEnd::kComplete && answer_->may_keep_alive() && !is_writing_ && !write_failed_) {
      pool_->keep(authority_, std::move(socket_));
      timer_.cancel();
    } else {
      close();
    }
    const std::shared_ptr<UpstreamEvents> events = std::exchange(events_, nullptr);
    events->on_end(kind, reason);
  }

  void close() {
    ErrorCode ignored;
    timer_.cancel();
    resolver_.cancel();
    socket_.close(ignored);
    if (done_) body_.reset();
  }

  const std::shared_ptr<Pool> pool_;
  const asio::any_io_executor strand_;
  const Endpoint endpoint_;
  const std::string authority_;
  const std::string method_;
  const std::string head_text_;
  std::shared_ptr<const std::string> body_;
  const UpstreamTimeouts timeouts_;
  std::shared_ptr<UpstreamEvents> events_;

  tcp::socket socket_;
  tcp::resolver resolver_;
  asio::steady_timer timer_;
  std::vector<tcp::endpoint> endpoints_;
  std::array<char, kReadBytes> buffer_{};
  std::optional<UpstreamAnswer> answer_;
  Clock::time_point deadline_;
  const char* deadline_reason_ = "";
  UpstreamEnd deadline_kind_ = UpstreamEnd::kTimeout;
  bool timer_runs_ = false;
  bool is_reused_ = false;
  bool is_reading_ = false;
  bool is_writing_ = false;
  bool write_failed_ = false;
  bool paused_ = false;
  bool done_ = false;
};

UpstreamClient::UpstreamClient(asio::io_context& io, Options options) : pool_(std::make_shared<Pool>(io, options)) {}

UpstreamClient::~UpstreamClient() {
  const std::lock_guard lock(pool_->mutex);
  pool_->closed = true;
  pool_->idle.clear();
}

std::shared_ptr<UpstreamCall> UpstreamClient::start(asio::any_io_executor strand, const Endpoint& endpoint,
                                                    UpstreamRequest request, const UpstreamTimeouts& timeouts,
                                                    UpstreamEvents events) {
  auto call =
      std::make_shared<Call>(pool_, std::move(strand), endpoint, std::move(request), timeouts, std::move(events));
  call->start();
  return call;
}

size_t UpstreamClient::num_idle() const {
  const std::lock_guard lock(pool_->mutex);
  size_t count = 0;
  for (const auto& [authority, sockets] : pool_->idle) count += sockets.size();
  return count;
}

}  // namespace sextant::http
