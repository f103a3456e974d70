// The two halves of a request being answered: ExchangeState, which the session works off, and
// SessionExchange, the handler's end of it. All on the session's strand, but for the handler's letting go,
// which may happen anywhere. Private to server/http.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "server/http/exchange.h"

namespace sextant::http {

class Session;

struct ExchangeState {
  enum class Answer { kNone, kWhole, kStream };

  HttpRequest request;
  Answer answer = Answer::kNone;
  HttpResponse response;           // of a stream: its head
  std::string pending;             // of the stream, not yet given to the socket
  size_t num_unsent_bytes = 0;     // of the write under way
  int64_t num_pending_tokens = 0;  // in what is written next
  bool finished = false;           // finish_stream() was called
  bool aborted = false;            // abort_stream() was called
  bool handle_dropped = false;     // the handler let go before it had answered
  bool overflowed = false;         // the handler wrote on and on to a client that does not read
  bool is_above_low_water = false;
  bool client_gone = false;
  bool closed = false;  // the session is done with it
  std::function<void()> on_drained;
  std::function<void()> on_disconnect;

  // Nothing more is expected from the handler; read where the handle is dropped, on any thread.
  std::atomic<bool> settled{false};

  bool is_complete() const { return answer == Answer::kWhole || finished || aborted; }
  size_t buffered_bytes() const { return pending.size() + num_unsent_bytes; }
  // Ends it: callbacks usually hold the Exchange, so keeping them would keep all of it.
  void close();
};

class SessionExchange final : public Exchange {
 public:
  SessionExchange(std::shared_ptr<Session> session, std::shared_ptr<ExchangeState> state);
  ~SessionExchange() override;

  const HttpRequest& request() const override { return state_->request; }
  boost::asio::any_io_executor executor() override;
  void respond(HttpResponse response) override;
  void start_stream(HttpResponse response) override;
  void write(std::string bytes) override;
  void write_now(std::string bytes) override;
  void count_tokens(int64_t num_tokens) override { state_->num_pending_tokens += num_tokens; }
  void finish_stream() override;
  void abort_stream() override;
  size_t buffered_bytes() const override;
  void on_drained(std::function<void()> callback) override;
  void on_disconnect(std::function<void()> callback) override;

 private:
  bool queue(std::string bytes);  // false: there is nothing to send
  bool may_answer(const char* call);

  std::shared_ptr<Session> session_;
  std::shared_ptr<ExchangeState> state_;
};

}  // namespace sextant::http
