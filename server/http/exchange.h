// Exchange: one HTTP request and its answer, as handlers see them. Handlers know neither Beast nor sockets.
// Every member is called on executor() (a strand of the session); callbacks come on it too. Nothing blocks.
// Only letting go of an Exchange may happen on any thread; one that is let go without an answer gets 500, or
// its stream is cut. A callback that holds its own Exchange keeps it alive until the answer is complete or
// the client is gone.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/http/trace_context.h"

namespace sextant {
struct Identity;  // who sends a request (server/gateway/identity.h); HTTP only carries it
}

namespace sextant::http {

// When a request's choices were where in the engine, in nanoseconds since 1970; 0: they never were.
struct EnginePhases {
  int64_t queued_unix_ns = 0;           // the first of them
  int64_t first_scheduled_unix_ns = 0;  // likewise
  int64_t first_token_unix_ns = 0;      // likewise
  int64_t last_token_unix_ns = 0;       // the last of them
};

// What a request turned out to be, for who keeps records of requests: written by the gate and by handlers, on the exchange's
// executor, read once when the request has ended.
struct RequestNotes {
  std::shared_ptr<const Identity> identity;  // null: nobody was asked
  bool is_served = false;                    // the gate let it through to work; false: refused, or a status route
  std::string model;                         // empty: none was named, or the body was not understood
  std::string finish_reason;                 // of its last choice
  int64_t prompt_tokens = 0, completion_tokens = 0;
  std::string prompt;  // only where the operator asked for prompts
  EnginePhases phases;
  std::optional<TraceContext> trace;  // none: the request reached no route
};

struct Header {
  std::string name;
  std::string value;
};

struct HttpRequest {
  std::string method;  // "GET"
  std::string path;    // decoded, without the query
  std::string query;   // raw, without '?'
  std::vector<Header> headers;
  std::string body;
  std::string client_address;  // of the peer, without port
  std::string request_id;      // from X-Request-Id when it is well-formed, else made here; sent back in the answer
  std::shared_ptr<RequestNotes> notes = {};  // null: nobody keeps records

  // The value of the first header with this name (case-insensitive), or empty.
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::vector<Header> headers;  // Content-Length, Date, Server, X-Request-Id are added
  std::string content_type = "application/json";
  std::string body;
};

class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  virtual ~Exchange() = default;

  virtual const HttpRequest& request() const = 0;
  virtual boost::asio::any_io_executor executor() = 0;

  // The whole answer at once. Exactly one of respond() or start_stream() is called, once.
  virtual void respond(HttpResponse response) = 0;

  // A chunked answer (HTTP/1.0: until close). `response.body` is ignored.
  virtual void start_stream(HttpResponse response) = 0;
  // Queues bytes of the stream; cheap. After a disconnect they are dropped.
  virtual void write(std::string bytes) = 0;
  // The same for bytes that nothing more will follow for a while: into the socket now, where it takes them.
  virtual void write_now(std::string bytes) { write(std::move(bytes)); }
  // So many tokens are in what is written or answered next; for HttpServer::Options::on_socket_event alone.
  virtual void count_tokens(int64_t /*num_tokens*/) {}
  // Ends the stream: the last chunk is written after all queued bytes.
  virtual void finish_stream() = 0;
  // Closes the connection after what is queued, without the last chunk: a stream that cannot be ended well
  // must not look complete. (HTTP/1.0, where the close is the end: a reset, at once.)
  virtual void abort_stream() = 0;

  // Bytes queued and not yet taken by the socket.
  virtual size_t buffered_bytes() const = 0;
  // Called each time buffered_bytes() falls below the low-water mark after having been above it.
  virtual void on_drained(std::function<void()> callback) = 0;
  // Called at most once, when the client is gone before the answer was complete: closed, reset, timed out,
  // cut off for not reading, or closed by the server's stop. A client that closes only its sending side
  // counts as gone. A handler that registers after the fact is called at once (posted).
  virtual void on_disconnect(std::function<void()> callback) = 0;

  // Called at most once, when the client takes its request back but stays (WebSocket); it waits for the answer's end.
  virtual void on_cancel(std::function<void()> /*callback*/) {}

  // Who asks, as the gate found out; null on open routes.
  const std::shared_ptr<const Identity>& identity() const { return identity_; }
  void set_identity(std::shared_ptr<const Identity> identity) {
    identity_ = std::move(identity);
    if (RequestNotes* written = notes()) written->identity = identity_;
  }
  RequestNotes* notes() { return request().notes.get(); }  // null: nobody reads them
  // Goes out with the answer, whatever that is; before respond() or start_stream(). The last one of a name counts.
  void set_response_header(std::string name, std::string value) {
    for (Header& header : response_headers_) {
      if (header.name == name) {
        header.value = std::move(value);
        return;
      }
    }
    response_headers_.push_back({std::move(name), std::move(value)});
  }
  // Let go of with the exchange: a place that its request takes up.
  void hold(std::shared_ptr<void> lease) { lease_ = std::move(lease); }

 protected:
  // For respond() and start_stream(): `response` with the headers that were added.
  HttpResponse with_added_headers(HttpResponse response) {
    for (Header& header : response_headers_) response.headers.push_back(std::move(header));
    response_headers_.clear();
    return response;
  }

 private:
  std::shared_ptr<const Identity> identity_;
  std::shared_ptr<void> lease_;
  std::vector<Header> response_headers_;
};

using Handler = std::function<void(std::shared_ptr<Exchange>)>;

}  // namespace sextant::http
