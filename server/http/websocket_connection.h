// WebSocketConnection: the WebSocket over any stream that Beast can write to: a socket, TLS over one, or memory in a fuzzer.
// Framing, masks, UTF-8, pings and close codes are Beast's. Callbacks rather than coroutines: the fuzzers' compiler cannot
// instrument those. Private to server/http.
//
// Close codes: 1000 asked for, 1001 the server stops, 1002 malformed frames, 1003 binary messages, 1007 text that is not
// UTF-8, 1008 no right to be here or too much at once, 1009 a message too large; without one when the client does not read.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/stream_traits.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/websocket/stream.hpp>
#include <deque>
#include <exception>
#include <optional>
#include <utility>

#include "engine/base/log.h"
#include "server/http/error_body.h"
#include "server/http/request_id.h"
#include "server/http/websocket.h"

namespace sextant::http {

template <typename NextLayer>
class WebSocketConnection final : public WebSocket,
                                  public std::enable_shared_from_this<WebSocketConnection<NextLayer>> {
 public:
  WebSocketConnection(NextLayer stream, const Limits& limits, WebSocketHooks hooks)
      : limits_(limits),
        ws_(std::move(stream)),
        executor_(ws_.get_executor()),
        timer_(executor_),
        hooks_(std::move(hooks)) {}

  void start(HttpRequest handshake) override {
    namespace websocket = boost::beast::websocket;
    handshake_ = std::move(handshake);
    boost::beast::http::request<boost::beast::http::string_body> request;
    request.version(11);
    request.method(boost::beast::http::verb::get);
    request.target(handshake_.path);
    for (const Header& header : handshake_.headers) request.insert(header.name, header.value);
    websocket::stream_base::timeout timeouts;
    timeouts.handshake_timeout = limits_.header_timeout;
    timeouts.idle_timeout = limits_.idle_timeout;  // a ping after half of it; closed when no answer comes
    timeouts.keep_alive_pings = true;
    ws_.set_option(timeouts);
    ws_.set_option(websocket::stream_base::decorator([id = handshake_.request_id](websocket::response_type& response) {
      response.set(boost::beast::http::field::server, "sextant");
      response.set("X-Request-Id", id);
    }));
    ws_.read_message_max(limits_.max_websocket_message_bytes);
    ws_.auto_fragment(false);
    ws_.async_accept(request, [self = this->shared_from_this()](boost::system::error_code error) {
      if (error) return self->end();
      self->is_open_ = true;
      self->await_message(true);
    });
  }

  void close_when_idle() override {
    closes_when_idle_ = true;
    if (is_open_ && !request_) close(boost::beast::websocket::close_code::going_away, "the server is stopping");
  }

  void close_now() override {
    boost::beast::close_socket(boost::beast::get_lowest_layer(ws_));
    end();
  }

 private:
  using Clock = std::chrono::steady_clock;
  using CloseCode = boost::beast::websocket::close_code;

  // One message being answered. The handler's end of it is MessageExchange; both on the executor, but for letting go.
  struct RequestState {
    HttpRequest request;
    Clock::time_point start = Clock::now();
    int status = 0;  // 0: no answer yet
    bool is_stream = false;
    bool is_complete = false;
    bool client_gone = false;
    bool is_above_low_water = false;
    uint64_t num_bytes = 0;
    std::string partial_line;
    std::function<void()> on_drained, on_disconnect, on_cancel;
    std::atomic<bool> settled{false};
  };

  class MessageExchange final : public Exchange {
   public:
    MessageExchange(std::shared_ptr<WebSocketConnection> connection, std::shared_ptr<RequestState> state)
        : connection_(std::move(connection)), state_(std::move(state)) {}
    ~MessageExchange() override {
      if (state_->settled.load(std::memory_order_acquire)) return;
      boost::asio::post(connection_->executor_, [connection = connection_, state = state_] {
        if (state->is_complete) return;
        LOG_ERROR << "request " << state->request.request_id << " (WebSocket): its handler let go of it without an end";
        connection->fail(*state, error_response(500, "the server lost this request"));
      });
    }
    const HttpRequest& request() const override { return state_->request; }
    boost::asio::any_io_executor executor() override { return connection_->executor_; }
    void respond(HttpResponse response) override {
      if (state_->is_complete) return;
      state_->status = response.status;
      if (response.status >= 400) return connection_->fail(*state_, response);
      connection_->add_lines(*state_, std::move(response.body));
      connection_->complete(*state_);
    }
    void start_stream(HttpResponse response) override {
      state_->status = response.status;
      state_->is_stream = true;
    }
    void write(std::string bytes) override { connection_->add_lines(*state_, std::move(bytes)); }
    void finish_stream() override { connection_->complete(*state_); }
    void abort_stream() override {
      if (state_->is_complete) return;
      connection_->complete(*state_);
      connection_->close_now();
    }
    size_t buffered_bytes() const override { return connection_->num_queued_bytes_; }
    void on_drained(std::function<void()> callback) override {
      if (!state_->is_complete) state_->on_drained = std::move(callback);
    }
    void on_disconnect(std::function<void()> callback) override {
      if (state_->client_gone) {
        boost::asio::post(connection_->executor_, std::move(callback));
      } else if (!state_->is_complete) {
        state_->on_disconnect = std::move(callback);
      }
    }
    void on_cancel(std::function<void()> callback) override {
      if (!state_->is_complete) state_->on_cancel = std::move(callback);
    }

   private:
    const std::shared_ptr<WebSocketConnection> connection_;
    const std::shared_ptr<RequestState> state_;
  };

  // ---- reading

  void await_message(bool is_first) {
    if (closes_when_idle_) return close(CloseCode::going_away, "the server is stopping");
    if (is_first) {  // whoever has shown no key yet does not get to stay as long as others
      timer_.expires_after(limits_.header_timeout);
      timer_.async_wait([weak = this->weak_from_this()](boost::system::error_code error) {
        const auto self = weak.lock();
        if (error || !self || self->request_ || self->has_had_request_) return;
        self->close(CloseCode::policy_error, "no request came");
      });
    }
    read();
  }

  void read() {
    if (is_reading_ || is_closing_ || has_ended_) return;
    is_reading_ = true;
    ws_.async_read(in_, [self = this->shared_from_this()](boost::system::error_code error, size_t) {
      self->is_reading_ = false;
      self->on_message(error);
    });
  }

  void on_message(boost::system::error_code error) {
    if (error) return end();  // Beast has sent the close frame that belongs to it
    if (is_closing_) return;
    if (!ws_.got_text()) return close(CloseCode::unknown_data, "requests are text messages of JSON");
    std::string message(static_cast<const char*>(in_.data().data()), in_.size());
    in_.consume(in_.size());
    in_.shrink_to_fit();
    MessagePeek peek = peek_message(message);
    if (peek.is_cancel) {
      // One that comes after the end of its request means nothing.
      if (request_) {
        waiting_.reset();
        if (const auto callback = std::exchange(request_->on_cancel, nullptr)) call(callback);
      }
      return read();
    }
    if (!request_) return begin(std::move(message), std::move(peek.api_key));
    if (!waiting_) {
      // Reading goes on, for a cancel: a message beyond this one is one too many.
      waiting_.emplace(std::move(message), std::move(peek.api_key));
      return read();
    }
    close(CloseCode::policy_error, "one request waits already");
  }

  // ---- one request

  void begin(std::string message, std::string api_key) {
    has_had_request_ = true;
    auto state = std::make_shared<RequestState>();
    state->request = handshake_;
    state->request.method = "POST";
    state->request.query.clear();
    std::vector<Header>& headers = state->request.headers;
    if (!api_key.empty() && state->request.header("Authorization").empty()) {
      authorization_ = "Bearer " + api_key;
    }
    if (!authorization_.empty() && state->request.header("Authorization").empty()) {
      headers.push_back({"Authorization", authorization_});
    }
    state->request.body = std::move(message);
    state->request.notes = std::make_shared<RequestNotes>();
    // The handshake's id names the first request; the ones after it get their own.
    if (num_requests_++ > 0) state->request.request_id = make_request_id();
    request_ = state;
    hooks_.on_request_begin();
    auto exchange = std::make_shared<MessageExchange>(this->shared_from_this(), state);
    if (is_cross_site(handshake_) && state->request.header("Authorization").empty()) {
      exchange->respond(error_response(403, "a page of another site needs a key here"));
    } else {
      call([&] { hooks_.dispatch(std::move(exchange)); });
    }
    read();
  }

  void fail(RequestState& state, const HttpResponse& response) {
    if (state.is_complete) return;
    state.status = response.status;
    // {"error": {...}} with the status that HTTP would have had in front.
    const size_t brace = response.body.find('{');
    const std::string line = brace == std::string::npos ? response.body
                                                        : "{\"status\":" + std::to_string(response.status) + "," +
                                                              response.body.substr(brace + 1);
    add_lines(state, line + "\n");
    const bool has_no_right = response.status == 401 || response.status == 403;
    complete(state);
    if (has_no_right) close_after_writes(CloseCode::policy_error, "not allowed");
  }

  void complete(RequestState& state) {
    if (state.is_complete) return;
    if (!state.partial_line.empty()) add_lines(state, "\n");
    state.is_complete = true;
    state.settled.store(true, std::memory_order_release);
    release_callbacks(state);
    if (request_.get() != &state) return;
    const std::shared_ptr<RequestState> keep = std::exchange(request_, nullptr);
    hooks_.on_request_end(state.request, state.status == 0 ? 499 : state.status, state.client_gone, state.start,
                          state.num_bytes);
    // Not from inside of a handler's call: the next request is another turn.
    boost::asio::post(executor_, [self = this->shared_from_this()] { self->next(); });
  }

  void next() {
    if (request_ || is_closing_ || has_ended_) return;
    if (closes_when_idle_) return close_after_writes(CloseCode::going_away, "the server is stopping");
    if (waiting_) {
      auto [message, api_key] = *std::exchange(waiting_, std::nullopt);
      begin(std::move(message), std::move(api_key));
    }
    read();
  }

  static void release_callbacks(RequestState& state) {
    const auto drained = std::exchange(state.on_drained, nullptr);
    const auto disconnect = std::exchange(state.on_disconnect, nullptr);
    const auto cancel = std::exchange(state.on_cancel, nullptr);
  }

  void call(const std::function<void()>& callback) {
    try {
      return callback();
    } catch (const std::exception& e) {
      LOG_ERROR << "a WebSocket request's handler threw: " << e.what();
    }
    if (request_) fail(*request_, error_response(500, "the server failed on this request; its log says why"));
  }

  // ---- writing

  void add_lines(RequestState& state, std::string bytes) {
    if (state.is_complete || has_ended_ || has_overflowed_) return;
    size_t begin = 0;
    for (size_t end = bytes.find('\n'); end != std::string::npos; end = bytes.find('\n', begin)) {
      state.partial_line.append(bytes, begin, end - begin);
      begin = end + 1;
      if (state.partial_line.empty()) continue;
      state.num_bytes += state.partial_line.size();
      num_queued_bytes_ += state.partial_line.size();
      out_.push_back(std::exchange(state.partial_line, {}));
    }
    state.partial_line.append(bytes, begin);
    if (num_queued_bytes_ > limits_.low_water_bytes) state.is_above_low_water = true;
    if (num_queued_bytes_ > limits_.max_stream_buffer_bytes && !std::exchange(has_overflowed_, true)) {
      LOG_WARNING << "request " << state.request.request_id << ": " << num_queued_bytes_
                  << " bytes are buffered for a WebSocket that is not read; it is cut off";
      // Not from here: the handler is in the middle of writing.
      boost::asio::post(executor_, [self = this->shared_from_this()] { self->close_now(); });
      return;
    }
    write_next();
  }

  void write_next() {
    if (is_writing_ || out_.empty() || has_ended_ || is_closing_) return;
    is_writing_ = true;
    const uint64_t write_idx = ++num_writes_;
    write_deadline(write_idx);
    ws_.text(true);
    ws_.async_write(boost::asio::buffer(out_.front()),
                    [self = this->shared_from_this()](boost::system::error_code error, size_t) {
                      self->is_writing_ = false;
                      self->on_written(error);
                    });
  }

  // A client that takes no whole message in the time that HTTP's get for one byte: gone.
  void write_deadline(uint64_t write_idx) {
    if (has_write_timer_) return;
    has_write_timer_ = true;
    timer_.expires_after(limits_.write_timeout);
    timer_.async_wait([weak = this->weak_from_this(), write_idx](boost::system::error_code error) {
      const auto self = weak.lock();
      if (!self || self->has_ended_ || error) return;
      self->has_write_timer_ = false;
      if (!self->is_writing_) return;
      if (self->num_writes_ == write_idx) return self->close_now();
      self->write_deadline(self->num_writes_);
    });
  }

  void on_written(boost::system::error_code error) {
    if (error) return end();
    if (has_ended_) return;
    num_queued_bytes_ -= out_.front().size();
    out_.pop_front();
    if (request_ && num_queued_bytes_ <= limits_.low_water_bytes &&
        std::exchange(request_->is_above_low_water, false) && request_->on_drained) {
      call(std::function<void()>(request_->on_drained));
    }
    if (out_.empty() && close_after_writes_) return close(close_after_writes_->first, close_after_writes_->second);
    write_next();
  }

  // ---- the end

  void close_after_writes(CloseCode code, const char* why) {
    if (out_.empty()) return close(code, why);
    close_after_writes_ = {code, why};
  }

  void close(CloseCode code, const char* why) {
    if (is_closing_ || has_ended_) return;
    is_closing_ = true;
    timer_.expires_after(limits_.linger_timeout);
    timer_.async_wait([weak = this->weak_from_this()](boost::system::error_code error) {
      const auto self = weak.lock();
      if (self && !error) self->close_now();
    });
    // Beast reads on for the client's close frame, and drops what comes before it.
    ws_.async_close({code, why}, [self = this->shared_from_this()](boost::system::error_code) { self->end(); });
  }

  void end() {
    if (std::exchange(has_ended_, true)) return;
    timer_.cancel();
    boost::beast::close_socket(boost::beast::get_lowest_layer(ws_));
    waiting_.reset();
    if (const std::shared_ptr<RequestState> state = request_) {
      state->client_gone = true;
      if (const auto callback = std::exchange(state->on_disconnect, nullptr)) call(callback);
      complete(*state);
    }
    if (const auto callback = std::exchange(hooks_.on_end, nullptr)) callback();
  }

  const Limits limits_;
  boost::beast::websocket::stream<NextLayer, false> ws_;
  const boost::asio::any_io_executor executor_;
  boost::asio::steady_timer timer_;
  WebSocketHooks hooks_;
  HttpRequest handshake_;
  std::string authorization_;  // from a message
  boost::beast::flat_buffer in_;
  std::deque<std::string> out_;  // the front one is being written
  size_t num_queued_bytes_ = 0;
  std::shared_ptr<RequestState> request_;                       // being answered
  std::optional<std::pair<std::string, std::string>> waiting_;  // message and key of the one after it
  std::optional<std::pair<CloseCode, const char*>> close_after_writes_;
  uint64_t num_writes_ = 0;
  uint64_t num_requests_ = 0;
  bool has_overflowed_ = false;  // about to be cut off
  bool has_write_timer_ = false;
  bool has_had_request_ = false;
  bool is_open_ = false;
  bool is_reading_ = false;
  bool is_writing_ = false;
  bool is_closing_ = false;
  bool closes_when_idle_ = false;
  bool has_ended_ = false;
};

}  // namespace sextant::http
