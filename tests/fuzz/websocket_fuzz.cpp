// The input is what a client sends after its handshake: frames, or noise. The connection must end by itself once the client's
// side has ended, call each hook in balance, and hold no more than its limits; handlers answer at once, later or never.
// The first byte says in which pieces the bytes arrive and how the handler behaves.
#include <boost/asio/io_context.hpp>
#include <boost/beast/_experimental/test/stream.hpp>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/log.h"
#include "server/http/websocket_connection.h"

namespace {

using namespace sextant::http;
using TestStream = boost::beast::test::stream;

struct Outcome {
  int num_begun = 0;
  int num_ended = 0;
  int num_connection_ends = 0;
};

void answer(Exchange& exchange, int manner) {
  if (exchange.request().body.size() > 4096) abort();
  switch (manner) {
    case 0: exchange.respond(HttpResponse{}); break;
    case 1:
      exchange.start_stream({});
      exchange.write("{\"delta\":\"a\"}\n{\"del");
      exchange.write("ta\":\"b\"}\n");
      exchange.finish_stream();
      break;
    case 2: exchange.respond(sextant::http::error_response(401, "no")); break;
    default: break;  // lets go of it
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool quiet = [] {
    sextant::set_log_sink([](sextant::LogLevel, std::string_view) {});
    return true;
  }();
  if (!quiet || size < 1) return 0;
  const int manner = data[0] % 5;
  const size_t piece_bytes = data[0] % 7 == 0 ? 1 : 1 + data[0];
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  // Whatever it says, peeking must not throw.
  peek_message(bytes);

  boost::asio::io_context io;
  Outcome outcome;
  std::vector<std::shared_ptr<Exchange>> kept;
  {
    TestStream server(io);
    TestStream client(io);
    server.connect(client);
    Limits limits;
    limits.max_websocket_message_bytes = 4096;
    WebSocketHooks hooks;
    hooks.on_request_begin = [&] { ++outcome.num_begun; };
    hooks.on_request_end = [&](const HttpRequest&, int status, bool, std::chrono::steady_clock::time_point, uint64_t) {
      if (status == 0) abort();
      ++outcome.num_ended;
    };
    hooks.on_end = [&] { ++outcome.num_connection_ends; };
    hooks.dispatch = [&](std::shared_ptr<Exchange> exchange) {
      if (manner == 4) {
        exchange->on_cancel([weak = std::weak_ptr<Exchange>(exchange)] {
          if (const auto held = weak.lock()) answer(*held, 1);
        });
        kept.push_back(std::move(exchange));
      } else {
        answer(*exchange, manner);
      }
    };
    const auto connection = std::make_shared<WebSocketConnection<TestStream>>(std::move(server), limits, hooks);
    HttpRequest handshake;
    handshake.method = "GET";
    handshake.path = "/v1/stream";
    handshake.headers = {{"Host", "x"},
                         {"Upgrade", "websocket"},
                         {"Connection", "Upgrade"},
                         {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
                         {"Sec-WebSocket-Version", "13"}};
    connection->start(handshake);
    for (size_t begin = 0; begin < bytes.size(); begin += piece_bytes) {
      boost::system::error_code error;
      const std::string_view piece = bytes.substr(begin, piece_bytes);
      client.write_some(boost::asio::buffer(piece.data(), piece.size()), error);
      if (error) break;
      for (int i = 0; i < 64 && io.poll_one() > 0; ++i) {
      }
    }
    client.close();
    for (int i = 0; i < 4096 && io.poll_one() > 0; ++i) {
    }
    connection->close_now();
    kept.clear();
    while (io.poll() > 0) {
    }
  }
  if (outcome.num_connection_ends != 1 || outcome.num_begun != outcome.num_ended) abort();
  return 0;
}
