// The answering half of Session: from a parsed request to the last byte of its answer.
#include <algorithm>

#include <array>
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <charconv>
#include <chrono>
#include <utility>

#include "engine/base/log.h"
#include "server/http/error_body.h"
#include "server/http/request_id.h"
#include "server/http/response_head.h"
#include "server/http/session.h"

namespace sextant::http {
namespace {

namespace asio = boost::asio;

// A body sent to a route that does not exist is read over if it is small; else the connection is closed.
constexpr uint64_t kMaxUnwantedBodyBytes = 64 * 1024;

int64_t steady_now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class RequestCount {
 public:
  explicit RequestCount(std::atomic<size_t>& count) : count_(count) { count_.fetch_add(1, std::memory_order_relaxed); }
  ~RequestCount() { count_.fetch_sub(1, std::memory_order_relaxed); }
  RequestCount(const RequestCount&) = delete;
  RequestCount& operator=(const RequestCount&) = delete;

 private:
  std::atomic<size_t>& count_;
};

HttpResponse no_route_response(const HttpRequest& request, const Router::Match& match) {
  if (!match.path_exists) {
    return error_response(404, "there is nothing at " + request.path + " (" + request.method + ")");
  }
  HttpResponse response = error_response(
      405, request.method + " is not allowed at " + request.path + "; allowed: " + match.allowed_methods);
  response.headers.push_back({"Allow", match.allowed_methods});
  return response;
}

}  // namespace

Session::Awaitable<void> Session::serve(RequestReader& reader, Inbound inbound) {
  const Clock::time_point start = Clock::now();
  exchange_ = std::make_shared<ExchangeState>();
  RequestHead& head = reader.head();
  keep_alive_ = inbound == Inbound::kRequest && head.keep_alive && !server_->is_draining && !refusal_;
  is_http10_ = head.is_http10;
  is_head_ = head.request.method == "HEAD";
  head_sent_ = false;
  answer_sent_ = false;
  num_request_bytes_ = 0;
  num_response_bytes_ = 0;

  HttpRequest& request = exchange_->request;
  request = std::move(head.request);
  request.client_address = client_address_;
  request.notes = std::make_shared<RequestNotes>();
  const std::string_view client_id = request.header("X-Request-Id");
  request.request_id = is_well_formed_request_id(client_id) ? std::string(client_id) : make_request_id();

  if (inbound == Inbound::kRequest && !refusal_ && is_websocket_upgrade(request)) {
    // Nothing may come between the request and our answer to it (RFC 6455, section 4.1), nor before what is pipelined.
    if (!head.has_body() && in_.empty() && !is_reading_ && !server_->is_draining) {
      co_return co_await serve_websocket(std::move(request));
    }
    keep_alive_ = false;
    answer_with(server_->is_draining ? error_response(503, "The server is stopping and takes no new requests.")
                                     : error_response(400, "a WebSocket's handshake comes alone on its connection"));
    co_await deliver();
    observe({}, start);
    co_return exchange_->close();
  }
  Router::Match match;
  if (inbound == Inbound::kRequest) match = server_->router->find(request.method, request.path);
  const bool wanted = match.handler != nullptr && !refusal_;
  const bool reads_body = wanted || (!head.is_chunked && !head.expects_continue &&
                                     head.content_length <= kMaxUnwantedBodyBytes && !refusal_);
  if (inbound == Inbound::kRequest && head.has_body()) {
    if (reads_body) {
      if (head.expects_continue && in_.empty()) {
        out_head_ = "HTTP/1.1 100 Continue\r\n\r\n";
        start_write();
      }
      inbound = co_await read_body(reader);
    } else {
      keep_alive_ = false;
    }
  }

  const RequestCount count(server_->num_requests);
  if (inbound == Inbound::kClosed) {
    failed_ = true;
  } else if (refusal_) {
    answer_with(*std::move(refusal_));
  } else if (inbound == Inbound::kError) {
    keep_alive_ = false;
    answer_with(error_response(reader.error().status, reader.error().message));
  } else if (!wanted) {
    answer_with(no_route_response(request, match));
  } else {
    request.body = reader.take_body();
    num_request_bytes_ = request.body.size();
    trace(SocketEvent::Kind::kRequest, steady_now_ns(), request.body.size(), 0);
    dispatch(*match.handler);
  }
  co_await deliver();
  trace(SocketEvent::Kind::kEnd, steady_now_ns(), 0, 0);
  observe(match, start);
  exchange_->close();
}

void Session::dispatch(const Handler& handler) {
  auto exchange = std::make_shared<SessionExchange>(shared_from_this(), exchange_);
  call([&] { handler(std::move(exchange)); });
}

void Session::answer_with(HttpResponse response) {
  exchange_->answer = ExchangeState::Answer::kWhole;
  exchange_->response = std::move(response);
  exchange_->settled.store(true, std::memory_order_release);
}

void Session::call(const std::function<void()>& callback) {
  std::string what;
  try {
    return callback();
  } catch (const std::exception& e) {
    what = e.what();
  } catch (...) {
    what = "not a std::exception";
  }
  LOG_ERROR << "request " << exchange_->request.request_id << " (" << exchange_->request.method << " "
            << exchange_->request.path << "): its handler threw: " << what;
  keep_alive_ = false;
  if (exchange_->answer == ExchangeState::Answer::kNone) {
    answer_with(error_response(500, "the server failed on this request; its log says why"));
  } else if (!exchange_->is_complete()) {
    exchange_->aborted = true;
    exchange_->settled.store(true, std::memory_order_release);
  }
}

Session::Awaitable<void> Session::deliver() {
  while (!failed_) {
    ExchangeState& exchange = *exchange_;
    if (exchange.overflowed || (exchange.aborted && is_http10_ && !is_writing_)) break;
    if (!is_writing_) {
      if (answer_sent_) co_return;
      if (prepare_write()) {
        start_write();
        continue;
      }
      if (answer_sent_) co_return;
    }
    if (read_closed_ && !exchange.is_complete()) break;
    ensure_read(4 * 1024);
    const bool was_writing = is_writing_;
    const Clock::time_point deadline =
        was_writing ? last_write_progress_ + limits().write_timeout : Clock::time_point::max();
    co_await wait(deadline);
    if (was_writing && is_writing_ && Clock::now() >= last_write_progress_ + limits().write_timeout) break;
  }
  // The client is gone, or has to go: a reset, so that nothing looks complete and the kernel keeps nothing.
  failed_ = true;
  exchange_->client_gone = !exchange_->aborted;
  connection_.reset();
  tell_disconnect();
}

bool Session::prepare_write() {
  ExchangeState& exchange = *exchange_;
  if (exchange.handle_dropped && !exchange.is_complete()) {
    LOG_ERROR << "request " << exchange.request.request_id << " (" << exchange.request.method << " "
              << exchange.request.path << "): its handler let go of it without "
              << (exchange.answer == ExchangeState::Answer::kNone ? "an answer" : "ending its stream");
    keep_alive_ = false;
    if (exchange.answer == ExchangeState::Answer::kNone) {
      answer_with(error_response(500, "the server lost this request"));
    } else {
      exchange.aborted = true;
    }
  }
  out_head_.clear();
  out_body_.clear();
  out_tail_.clear();
  out_tokens_ = std::exchange(exchange.num_pending_tokens, 0);
  if (exchange.answer == ExchangeState::Answer::kWhole) {
    const bool has_body = status_has_body(exchange.response.status);
    keep_alive_ = keep_alive_ && !server_->is_draining;
    ResponseFraming framing;
    framing.keep_alive = keep_alive_;
    framing.to_http10 = is_http10_;
    if (has_body) framing.content_length = exchange.response.body.size();
    out_head_ = response_head(exchange.response, framing, exchange.request.request_id);
    if (has_body && !is_head_) out_body_ = std::move(exchange.response.body);
    head_sent_ = true;
    answer_sent_ = true;
  } else if (exchange.answer == ExchangeState::Answer::kStream) {
    prepare_stream_write();
  } else if (exchange.aborted) {
    keep_alive_ = false;
    answer_sent_ = true;
  }
  return !out_head_.empty() || !out_body_.empty() || !out_tail_.empty();
}

void Session::prepare_stream_write() {
  ExchangeState& exchange = *exchange_;
  if (exchange.aborted) keep_alive_ = false;
  if (!head_sent_) {
    keep_alive_ = keep_alive_ && !is_http10_ && !server_->is_draining;
    ResponseFraming framing;
    framing.is_chunked = !is_http10_;
    framing.keep_alive = keep_alive_;
    out_head_ = response_head(exchange.response, framing, exchange.request.request_id);
    head_sent_ = true;
  }
  if (is_head_) exchange.pending.clear();
  const bool is_framed = !is_http10_ && !is_head_;
  if (!exchange.pending.empty()) {
    if (is_framed) {  // all that is queued is one chunk
      std::array<char, 20> size{};
      out_head_.append(size.data(),
                       std::to_chars(size.data(), size.data() + size.size(), exchange.pending.size(), 16).ptr);
      out_head_ += "\r\n";
      out_tail_ = "\r\n";
    }
    out_body_.swap(exchange.pending);
  }
  if (exchange.finished || exchange.aborted) {
    // An aborted stream lacks its last chunk: the client sees that it is cut.
    if (exchange.finished && is_framed) out_tail_ += "0\r\n\r\n";
    answer_sent_ = true;
  }
}

void Session::start_write() {
  out_sent_ = 0;
  is_writing_ = true;
  last_write_progress_ = Clock::now();
  on_written({}, 0);
}

// Most tokens fit into the socket's buffer: a system call and nothing else. What does not is written by the coroutine.
void Session::on_stream_bytes() {
  const ExchangeState& exchange = *exchange_;
  const bool is_plain = exchange.answer == ExchangeState::Answer::kStream && !exchange.is_complete() &&
                        !exchange.overflowed && !exchange.handle_dropped;
  if (is_plain && !is_writing_ && !failed_ && !answer_sent_ && !read_closed_ && prepare_write()) {
    out_sent_ = 0;
    is_writing_ = true;
    last_write_progress_ = Clock::now();
    writes_now_ = true;
    write_some_now();
    writes_now_ = false;
    if (!is_writing_ && !failed_) return;
  }
  wake();
}

void Session::write_some_now() {
  const std::array<asio::const_buffer, 3> all = {asio::buffer(out_head_), asio::buffer(out_body_),
                                                 asio::buffer(out_tail_)};
  if (server_->options.on_socket_event) write_called_ns_ = steady_now_ns();
  // Errors come up again, and are dealt with, in the write that waits.
  on_written({}, connection_.write_now(all));
}

void Session::on_written(const boost::system::error_code& error, size_t num_bytes) {
  out_sent_ += num_bytes;
  num_response_bytes_ += num_bytes;
  if (num_bytes > 0) {
    last_write_progress_ = Clock::now();
    const size_t num_out = out_head_.size() + out_body_.size() + out_tail_.size();
    const bool is_whole = out_sent_ == num_out;
    trace(SocketEvent::Kind::kWrite, write_called_ns_, num_bytes, is_whole ? std::exchange(out_tokens_, 0) : 0);
  }
  std::array<asio::const_buffer, 3> left;
  size_t num_left = 0;
  size_t skip = out_sent_;
  for (size_t i = 0; i < left.size(); ++i) {
    const std::string& piece = i == 0 ? out_head_ : i == 1 ? out_body_ : out_tail_;
    const size_t done = std::min(skip, piece.size());
    skip -= done;
    left[i] = asio::buffer(piece.data() + done, piece.size() - done);
    num_left += left[i].size();
  }
  exchange_->num_unsent_bytes = num_left;
  if (error) failed_ = true;
  if (failed_ || num_left == 0) {
    is_writing_ = false;
    if (!failed_) update_buffered();
    if (!writes_now_) wake();
    return;
  }
  update_buffered();
  if (server_->options.on_socket_event) write_called_ns_ = steady_now_ns();
  connection_.async_write_some(left, [self = shared_from_this()](const boost::system::error_code& write_error,
                                                                 size_t num) { self->on_written(write_error, num); });
}

void Session::update_buffered() {
  ExchangeState& exchange = *exchange_;
  if (exchange.answer != ExchangeState::Answer::kStream || exchange.is_complete()) return;
  const size_t num_buffered = exchange.buffered_bytes();
  if (num_buffered > limits().low_water_bytes) {
    exchange.is_above_low_water = true;
  } else if (std::exchange(exchange.is_above_low_water, false) && exchange.on_drained) {
    call(std::function<void()>(exchange.on_drained));  // a copy: it may register another
  }
}

void Session::tell_disconnect() {
  ExchangeState& exchange = *exchange_;
  if (exchange.is_complete()) return;
  if (const std::function<void()> callback = std::exchange(exchange.on_disconnect, nullptr)) call(callback);
}

void Session::trace(SocketEvent::Kind kind, int64_t time_ns, size_t num_bytes, int64_t num_tokens) {
  const auto& on_socket_event = server_->options.on_socket_event;
  if (!on_socket_event) return;
  const HttpRequest& request = exchange_->request;
  on_socket_event({kind, time_ns, request.request_id, request.path, num_bytes, num_tokens});
}

void Session::observe(const Router::Match& match, Clock::time_point start) {
  const auto& on_request = server_->options.on_request;
  if (!on_request) return;
  const ExchangeState& exchange = *exchange_;
  RequestRecord record;
  record.method = exchange.request.method;
  record.path = exchange.request.path;
  record.pattern = match.handler != nullptr ? match.pattern : std::string_view();
  record.client_address = exchange.request.client_address;
  record.request_id = exchange.request.request_id;
  record.status = head_sent_ ? exchange.response.status : 499;
  record.client_gone = exchange.client_gone;
  record.duration_s = std::chrono::duration<double>(Clock::now() - start).count();
  record.request_bytes = num_request_bytes_;
  record.response_bytes = num_response_bytes_;
  record.notes = exchange.request.notes.get();
  on_request(record);
}

}  // namespace sextant::http
