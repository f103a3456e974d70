// Upstream: HTTP/1.1 as a client, for a server that passes requests on: kept-alive connections by endpoint, answers in
// pieces as they come, back-pressure. Asynchronous; a call's callbacks come on the executor that it was started with, which
// must be a strand (an exchange's is). Must not know what the bytes mean.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "server/http/exchange.h"

namespace sextant::http {

struct Endpoint {
  std::string host;  // a name or an address; IPv6 without brackets
  uint16_t port = 80;

  // "http://host:port" or "host:port", with an optional final slash. No https, path, query or user.
  static Result<Endpoint> parse(std::string_view text);
  std::string authority() const;  // "host:port", as in Host
  bool operator==(const Endpoint&) const = default;
};

struct UpstreamRequest {
  std::string method = "GET";
  std::string target = "/";                 // path and query
  std::vector<Header> headers;              // those of the connection and the framing are left out
  std::shared_ptr<const std::string> body;  // null: none
};

struct UpstreamTimeouts {
  std::chrono::milliseconds connect{2'000};
  std::chrono::milliseconds head{600'000};  // from the request sent to the answer's head
  std::chrono::milliseconds idle{600'000};  // between two pieces of the body; while paused it does not run
};

struct UpstreamHead {
  int status = 0;
  std::string content_type;
  std::vector<Header> headers;  // without those of the connection and the framing, and without Content-Type
  std::optional<uint64_t> content_length;
};

enum class UpstreamEnd {
  kComplete,
  kNotSent,   // no connection: the peer has seen nothing of the request
  kNoAnswer,  // sent, and the connection ended before a head
  kTimeout,   // no head within its time
  kBroken,    // after the head: torn, silent for too long, or not HTTP
};

// All are given. Each is called at most once but on_body; nothing is called after on_end, nor after cancel().
struct UpstreamEvents {
  std::function<void(UpstreamHead head)> on_head;
  std::function<void(std::string_view bytes)> on_body;
  std::function<void(UpstreamEnd end, const std::string& reason)> on_end;
};

class UpstreamCall {
 public:
  virtual ~UpstreamCall() = default;
  // On the call's executor. The connection is closed: the peer sees its client go.
  virtual void cancel() = 0;
  // Nothing more is read until resume(): TCP holds the peer back.
  virtual void pause() = 0;
  virtual void resume() = 0;
};

class UpstreamClient {
 public:
  struct Options {
    size_t max_idle_per_endpoint = 256;
    std::chrono::milliseconds idle_timeout{30'000};  // shorter than servers' own
    size_t max_head_bytes = 64 * 1024;
  };

  // `io` outlives the client and all calls.
  UpstreamClient(boost::asio::io_context& io, Options options);
  ~UpstreamClient();  // calls go on to their end; their connections are not kept
  UpstreamClient(const UpstreamClient&) = delete;
  UpstreamClient& operator=(const UpstreamClient&) = delete;

  // Any thread. The events are let go of with the call's end. Holding the result is not needed but for its members.
  std::shared_ptr<UpstreamCall> start(boost::asio::any_io_executor strand, const Endpoint& endpoint,
                                      UpstreamRequest request, const UpstreamTimeouts& timeouts, UpstreamEvents events);
  size_t num_idle() const;

 private:
  struct Pool;
  class Call;
  const std::shared_ptr<Pool> pool_;
};

}  // namespace sextant::http
