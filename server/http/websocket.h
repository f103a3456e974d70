// WebSocket: a connection after its upgrade. Each text message of the client is a request, dispatched to a handler as a POST of
// that message; what the handler writes as lines goes out as one text message per line. {"cancel":true} cancels the request
// that is running; a request sent meanwhile waits its turn (one of them). The key comes in the handshake's Authorization, or as
// "api_key" in a message, and is then kept for the messages after it. Everything runs on the executor of the stream.
// Must not know what requests mean, nor whether the stream under it is encrypted.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "server/http/exchange.h"
#include "server/http/limits.h"

namespace sextant::http {

// A GET whose Upgrade field asks for a WebSocket.
bool asks_for_websocket(const HttpRequest& request);
// Why a browser's page may not open this one without a key: its Origin is another host. Empty Origins (not a browser) may.
bool is_cross_site(const HttpRequest& handshake);

// What is read from a message before its handler sees it. Members of the outermost object alone; anything else, broken JSON
// included, is left to the handler.
struct MessagePeek {
  bool is_cancel = false;  // "cancel": true
  std::string api_key;     // "api_key"; empty: none
};
MessagePeek peek_message(std::string_view message);

struct WebSocketHooks {
  // Finds and calls the handler.
  std::function<void(std::shared_ptr<Exchange>)> dispatch;
  // One request, as it ended; `status` 499 when its client went first.
  std::function<void(const HttpRequest&, int status, bool client_gone, std::chrono::steady_clock::time_point start,
                     uint64_t num_response_bytes)>
      on_request_end;
  std::function<void()> on_request_begin;
  std::function<void()> on_end;  // the connection is closed; last call
};

class WebSocket {
 public:
  virtual ~WebSocket() = default;
  // Answers the handshake and serves. Once, on the executor.
  virtual void start(HttpRequest handshake) = 0;
  virtual void close_when_idle() = 0;  // between requests: 1001 "going away"
  virtual void close_now() = 0;
};

}  // namespace sextant::http
