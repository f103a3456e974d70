#include "server/http/session_exchange.h"

#include <boost/asio/post.hpp>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/log.h"
#include "server/http/session.h"

namespace sextant::http {

void ExchangeState::close() {
  closed = true;
  settled.store(true, std::memory_order_release);
  // Moved out first: destroying a callback may destroy the handle, which looks at this state.
  const std::function<void()> drained = std::exchange(on_drained, nullptr);
  const std::function<void()> disconnect = std::exchange(on_disconnect, nullptr);
}

SessionExchange::SessionExchange(std::shared_ptr<Session> session, std::shared_ptr<ExchangeState> state)
    : session_(std::move(session)), state_(std::move(state)) {}

SessionExchange::~SessionExchange() {
  if (state_->settled.load(std::memory_order_acquire)) return;
  boost::asio::post(session_->strand(), [session = session_, state = state_] {
    state->handle_dropped = true;
    session->wake();
  });
}

boost::asio::any_io_executor SessionExchange::executor() { return session_->strand(); }

bool SessionExchange::may_answer(const char* call) {
  CHECK(session_->strand().running_in_this_thread()) << call << "() outside the exchange's executor";
  CHECK(state_->answer == ExchangeState::Answer::kNone) << call << "() after an answer was given";
  return !state_->closed;
}

void SessionExchange::respond(HttpResponse response) {
  if (!may_answer("respond")) return;
  state_->answer = ExchangeState::Answer::kWhole;
  state_->response = with_added_headers(std::move(response));
  state_->settled.store(true, std::memory_order_release);
  session_->wake();
}

void SessionExchange::start_stream(HttpResponse response) {
  if (!may_answer("start_stream")) return;
  state_->answer = ExchangeState::Answer::kStream;
  state_->response = with_added_headers(std::move(response));
  session_->wake();
}

void SessionExchange::write(std::string bytes) {
  if (queue(std::move(bytes))) session_->wake();
}

void SessionExchange::write_now(std::string bytes) {
  if (queue(std::move(bytes))) session_->on_stream_bytes();
}

bool SessionExchange::queue(std::string bytes) {
  CHECK(session_->strand().running_in_this_thread()) << "write() outside the exchange's executor";
  ExchangeState& state = *state_;
  if (state.closed || state.is_complete() || state.overflowed || bytes.empty()) return false;
  CHECK(state.answer == ExchangeState::Answer::kStream) << "write() before start_stream()";
  if (state.pending.empty()) {
    state.pending = std::move(bytes);
  } else {
    state.pending += bytes;
  }
  const Limits& limits = session_->limits();
  if (state.buffered_bytes() > limits.low_water_bytes) state.is_above_low_water = true;
  if (state.buffered_bytes() > limits.max_stream_buffer_bytes) {
    LOG_WARNING << "request " << state.request.request_id << ": " << state.buffered_bytes()
                << " bytes are buffered for a client that does not read; it is cut off";
    state.overflowed = true;
    state.pending = std::string();
  }
  return true;
}

void SessionExchange::finish_stream() {
  CHECK(session_->strand().running_in_this_thread()) << "finish_stream() outside the exchange's executor";
  if (state_->closed || state_->is_complete()) return;
  CHECK(state_->answer == ExchangeState::Answer::kStream) << "finish_stream() before start_stream()";
  state_->finished = true;
  state_->settled.store(true, std::memory_order_release);
  session_->wake();
}

void SessionExchange::abort_stream() {
  CHECK(session_->strand().running_in_this_thread()) << "abort_stream() outside the exchange's executor";
  if (state_->closed || state_->is_complete()) return;
  state_->aborted = true;
  state_->settled.store(true, std::memory_order_release);
  session_->wake();
}

size_t SessionExchange::buffered_bytes() const { return state_->buffered_bytes(); }

void SessionExchange::on_drained(std::function<void()> callback) {
  if (!state_->closed) state_->on_drained = std::move(callback);
}

void SessionExchange::on_disconnect(std::function<void()> callback) {
  if (state_->client_gone) {
    boost::asio::post(session_->strand(), std::move(callback));
  } else if (!state_->closed) {
    state_->on_disconnect = std::move(callback);
  }
}

}  // namespace sextant::http
