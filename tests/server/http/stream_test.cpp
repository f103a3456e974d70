// Streamed answers: framing, coalescing, back-pressure, disconnects, and stops while they run.
#include <gmock/gmock.h>
#include <random>

#include "tests/server/http/http_server_fixture.h"
#include "tests/support/random_seed.h"

namespace sextant::http {
namespace {

using std::chrono::milliseconds;

constexpr const char* kGetLater = "GET /later HTTP/1.1\r\nHost: x\r\n\r\n";

class StreamTest : public HttpServerTest {
 protected:
  static HttpResponse sse_head() {
    HttpResponse head;
    head.content_type = std::string(kSseContentType);
    return head;
  }
};

TEST_F(StreamTest, EventsArriveAsTheyAreWritten) {
  start();
  RawClient client(port);
  client.send(kGetLater);
  auto exchange = pending();
  on(exchange, [](Exchange& e) { e.start_stream(sse_head()); });
  const std::string head = client.read_until("\r\n\r\n");
  EXPECT_THAT(head, testing::HasSubstr("Transfer-Encoding: chunked"));
  EXPECT_THAT(head, testing::HasSubstr("text/event-stream"));
  for (int i = 0; i < 3; ++i) {
    on(exchange, [i](Exchange& e) { e.write(sse_event(std::to_string(i))); });
    EXPECT_EQ(client.read_until("\n\n\r\n"), "9\r\ndata: " + std::to_string(i) + "\n\n\r\n");
  }
  on(exchange, [](Exchange& e) {
    e.write(sse_done());
    e.finish_stream();
  });
  EXPECT_EQ(client.read_until("0\r\n\r\n"), "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
  EXPECT_EQ(client.get("/hello").body, "hello") << "the connection goes on";
}

TEST_F(StreamTest, WhatIsQueuedGoesOutTogether) {
  router->add("GET", "/all", [](std::shared_ptr<Exchange> exchange) {
    exchange->start_stream({});
    for (int i = 0; i < 1000; ++i) exchange->write("x");
    exchange->write("");
    exchange->finish_stream();
    exchange->write("late");
    exchange->finish_stream();
  });
  start();
  RawClient client(port);
  const RawResponse response = client.get("/all");
  EXPECT_EQ(response.body, std::string(1000, 'x'));
  EXPECT_TRUE(response.complete);
  EXPECT_EQ(client.num_chunks(), 2U) << "one, and the last";
}

// In order with what was queued before, and again after the socket was full.
TEST_F(StreamTest, WhatIsWrittenNowComesInOrder) {
  constexpr int kNumPieces = 400;
  router->add("GET", "/now", [](std::shared_ptr<Exchange> exchange) {
    exchange->start_stream({});
    for (int i = 0; i < kNumPieces; ++i) {
      // Some larger than any socket buffer takes at once.
      std::string piece = std::to_string(i) + std::string(i % 50 == 0 ? 200'000 : 10, '.');
      i % 3 == 0 ? exchange->write(std::move(piece)) : exchange->write_now(std::move(piece));
    }
    exchange->finish_stream();
    exchange->write_now("late");
  });
  start();
  RawClient client(port);
  const RawResponse response = client.get("/now");
  std::string expected;
  for (int i = 0; i < kNumPieces; ++i) expected += std::to_string(i) + std::string(i % 50 == 0 ? 200'000 : 10, '.');
  EXPECT_TRUE(response.complete);
  EXPECT_EQ(response.body.size(), expected.size());
  EXPECT_TRUE(response.body == expected);
}

TEST_F(StreamTest, Http10StreamsUntilClose) {
  router->add("GET", "/all", [](std::shared_ptr<Exchange> exchange) {
    exchange->start_stream({});
    exchange->write("hello");
    exchange->finish_stream();
  });
  router->add("GET", "/cut", [](std::shared_ptr<Exchange> exchange) {
    exchange->start_stream({});
    exchange->write("hello");
    boost::asio::post(exchange->executor(), [exchange] { exchange->abort_stream(); });
  });
  start();
  RawClient client(port);
  client.send("GET /all HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const RawResponse response = client.read_response();
  EXPECT_EQ(response.header("transfer-encoding"), "");
  EXPECT_EQ(response.header("connection"), "close");
  EXPECT_EQ(response.body, "hello");
  RawClient cut(port);
  cut.send("GET /cut HTTP/1.0\r\n\r\n");
  cut.read_to_end();
  EXPECT_TRUE(cut.was_reset()) << "the end of a stream that failed must not look like one";
}

TEST_F(StreamTest, HeadOfAStreamIsEmpty) {
  router->add("GET", "/all", [](std::shared_ptr<Exchange> exchange) {
    exchange->start_stream({});
    exchange->write("hello");
    exchange->finish_stream();
  });
  start();
  RawClient client(port);
  client.send("HEAD /all HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.read_response(true).status, 200);
  EXPECT_EQ(client.get("/hello").body, "hello");
}

TEST_F(StreamTest, AnAbortedStreamLooksCut) {
  start();
  RawClient client(port);
  client.send(kGetLater);
  on(pending(), [](Exchange& e) {
    e.start_stream(sse_head());
    e.write("event");
    e.abort_stream();
    e.write("late");
    e.finish_stream();
  });
  const RawResponse response = client.read_response();
  EXPECT_EQ(response.body, "event") << "what was queued before the cut arrives";
  EXPECT_FALSE(response.complete);
  EXPECT_TRUE(client.is_closed_by_server());
  EXPECT_EQ(num_disconnects, 0);
}

TEST_F(StreamTest, ADisconnectIsNoticedWithoutAWrite) {
  start();
  RawClient client(port);
  client.send(kGetLater);
  auto exchange = pending();
  on(exchange, [](Exchange& e) {
    e.start_stream(sse_head());
    e.write("event");
  });
  client.read_until("event");
  client.close();
  EXPECT_TRUE(wait_until([&] { return num_disconnects == 1; }, 1000));
  on(exchange, [](Exchange& e) {
    e.write("late");
    e.finish_stream();
  });
  EXPECT_EQ(seen(1)[0].status, 200);
  EXPECT_TRUE(seen(1)[0].client_gone);
  EXPECT_TRUE(wait_until([&] { return server->num_connections() == 0; }));
  std::this_thread::sleep_for(milliseconds(10));
  EXPECT_EQ(num_disconnects, 1) << "once";
}

// A handler that writes until it is told to pause, and goes on when drained.
struct Producer : std::enable_shared_from_this<Producer> {
  std::shared_ptr<Exchange> exchange;
  size_t num_left = 0;
  std::atomic<size_t> most_buffered{0};
  std::atomic<int> num_drained{0};
  void produce() {
    while (num_left > 0 && exchange->buffered_bytes() < 50'000) {
      const size_t num = std::min<size_t>(num_left, 1000);
      exchange->write(std::string(num, 'p'));
      num_left -= num;
      most_buffered = std::max(most_buffered.load(), exchange->buffered_bytes());
    }
    if (num_left == 0) exchange->finish_stream();
  }
};

TEST_F(StreamTest, BackPressure) {
  limits.send_buffer_bytes = 8192;
  limits.low_water_bytes = 10'000;
  auto producer = std::make_shared<Producer>();
  producer->num_left = 3'000'000;
  router->add("GET", "/produce", [producer](std::shared_ptr<Exchange> exchange) {
    producer->exchange = exchange;
    exchange->start_stream({});
    exchange->on_drained([producer] {
      ++producer->num_drained;
      producer->produce();
    });
    producer->produce();
  });
  start();
  RawClient client(port, 8192);
  client.send("GET /produce HTTP/1.1\r\nHost: x\r\n\r\n");
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_LE(producer->most_buffered, 52'000U) << "while nobody reads, nothing piles up";
  const RawResponse response = client.read_response();
  EXPECT_EQ(response.body.size(), 3'000'000U);
  EXPECT_TRUE(response.complete);
  EXPECT_LE(producer->most_buffered, 52'000U);
  EXPECT_GT(producer->num_drained, 30);
  producer->exchange.reset();
}

TEST_F(StreamTest, AHandlerThatIgnoresBackPressureIsCutOff) {
  limits.max_stream_buffer_bytes = 100'000;
  limits.send_buffer_bytes = 8192;
  start();
  RawClient client(port, 8192);
  client.send(kGetLater);
  auto exchange = pending();
  on(exchange, [](Exchange& e) {
    e.start_stream({});
    for (int i = 0; i < 1000; ++i) e.write(std::string(1000, 'x'));
    EXPECT_LE(e.buffered_bytes(), 100'000U);
  });
  EXPECT_TRUE(wait_until([&] { return num_disconnects == 1; }, 1000));
  EXPECT_TRUE(wait_until([&] { return server->num_connections() == 0; }));
}

TEST_F(StreamTest, AClientThatStopsReadingIsCutOff) {
  limits.write_timeout = milliseconds(150);
  limits.send_buffer_bytes = 4096;
  start();
  RawClient client(port, 4096);
  client.send(kGetLater);
  auto exchange = pending();
  on(exchange, [](Exchange& e) {
    e.start_stream({});
    e.write(std::string(1'000'000, 'x'));
  });
  EXPECT_TRUE(wait_until([&] { return num_disconnects == 1; }, 2000));
  EXPECT_TRUE(wait_until([&] { return server->num_connections() == 0; }));
}

TEST_F(StreamTest, SilentStreamsAreNotTimedOut) {
  limits.write_timeout = milliseconds(50);
  limits.idle_timeout = milliseconds(50);
  limits.header_timeout = milliseconds(50);
  limits.body_timeout = milliseconds(50);
  start();
  RawClient client(port);
  client.send(kGetLater);
  auto exchange = pending();
  on(exchange, [](Exchange& e) { e.start_stream({}); });
  client.read_until("\r\n\r\n");
  std::this_thread::sleep_for(milliseconds(200));
  on(exchange, [](Exchange& e) {
    e.write("slow model");
    e.finish_stream();
  });
  EXPECT_EQ(client.read_until("0\r\n\r\n"), "a\r\nslow model\r\n0\r\n\r\n");
}

TEST_F(StreamTest, StopWhileStreamsRun) {
  start();
  std::vector<RawClient> clients;
  for (size_t i = 0; i < 20; ++i) {
    clients.emplace_back(port);
    clients.back().send(kGetLater);
    on(pending(i), [](Exchange& e) {
      e.start_stream({});
      e.write("event");
    });
    clients.back().read_until("event");
  }
  EXPECT_EQ(server->num_requests(), 20U);
  server->stop_accepting();
  server->close_idle();
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(server->num_connections(), 20U);
  server->close_all();
  EXPECT_TRUE(wait_until([&] { return num_disconnects == 20; }));
  EXPECT_TRUE(wait_until([&] { return server->num_connections() == 0; }));
  for (RawClient& client : clients) {
    const std::string rest = client.read_to_end();
    EXPECT_EQ(rest.find("0\r\n\r\n"), std::string::npos) << "cut, not ended";
  }
}

// Many streams with writers on other threads, of which a third go away at random.
TEST_F(StreamTest, ManyStreamsWithRandomDisconnects) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  constexpr int kNumEvents = 50;
  std::atomic<int> num_gone{0};
  struct Writer {
    std::shared_ptr<Exchange> exchange;
    int next = 0;
    bool gone = false;
  };
  router->add("GET", "/tokens", [&](std::shared_ptr<Exchange> exchange) {
    auto writer = std::make_shared<Writer>(Writer{exchange});
    exchange->start_stream(sse_head());
    exchange->on_disconnect([&, writer] {
      ++num_gone;
      writer->gone = true;
    });
    auto step = std::make_shared<std::function<void()>>();
    *step = [writer, weak = std::weak_ptr(step)] {
      if (writer->gone) return;
      writer->exchange->write(sse_event(std::to_string(writer->next++)));
      if (writer->next == kNumEvents) return writer->exchange->finish_stream();
      boost::asio::post(writer->exchange->executor(), [self = weak.lock()] { (*self)(); });
    };
    boost::asio::post(exchange->executor(), [step] { (*step)(); });
  });
  start();
  std::atomic<int> num_left_early{0};
  std::atomic<int> num_complete{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + static_cast<uint32_t>(t));
      for (int i = 0; i < 25; ++i) {
        RawClient client(port);
        client.send("GET /tokens HTTP/1.1\r\nHost: x\r\n\r\n");
        if (random() % 3 == 0) {
          if (random() % 2) client.read_more();
          ++num_left_early;
          if (random() % 2) client.reset();
          continue;
        }
        const RawResponse response = client.read_response();
        std::string expected;
        for (int k = 0; k < kNumEvents; ++k) expected += sse_event(std::to_string(k));
        num_complete += response.complete && response.body == expected;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_complete + num_left_early, 200);
  EXPECT_LE(num_gone, num_left_early);
  EXPECT_TRUE(wait_until([&] { return server->num_connections() == 0; }));
}

}  // namespace
}  // namespace sextant::http
