// Connections that misbehave, go away or are slow, and handlers that do.
#include "server/http/session.h"

#include <gmock/gmock.h>

#include "tests/server/http/http_server_fixture.h"

namespace sextant::http {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr const char* kGetLater = "GET /later HTTP/1.1\r\nHost: x\r\n\r\n";

using SessionTest = HttpServerTest;

TEST_F(SessionTest, MalformedRequestsGet400AndTheDoor) {
  start();
  for (const std::string& bad :
       {std::string("NONSENSE\r\n\r\n"), std::string("\x16\x03\x01\x02\x00", 5), std::string("GET / HTTP/1.1\n\n"),
        std::string("GET /hello HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n"),
        std::string("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: "
                    "chunked\r\n\r\n0\r\n\r\n"),
        std::string("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello1"),
        std::string("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")}) {
    RawClient client(port);
    // What follows must never be taken for a request of its own.
    client.send(bad + "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    const RawResponse response = client.read_response();
    EXPECT_EQ(response.status, 400) << bad;
    EXPECT_EQ(response.header("connection"), "close");
    EXPECT_THAT(response.body, HasSubstr("\"error\""));
    EXPECT_TRUE(client.is_closed_by_server());
    EXPECT_EQ(client.buffered(), "") << bad;
  }
  for (const auto& record : seen(7)) EXPECT_EQ(record.status, 400);
}

TEST_F(SessionTest, HugeHeadersGet431) {
  start();
  RawClient client(port);
  client.send("GET /hello HTTP/1.1\r\nHost: x\r\nA: " + std::string(100'000, 'a'));
  EXPECT_EQ(client.read_response().status, 431);
  RawClient many(port);
  std::string request = "GET /hello HTTP/1.1\r\nHost: x\r\n";
  for (int i = 0; i < 200; ++i) request += "A" + std::to_string(i) + ": b\r\n";
  many.send(request + "\r\n");
  EXPECT_EQ(many.read_response().status, 431);
}

TEST_F(SessionTest, BodiesOverTheLimitGet413WithoutBeingRead) {
  limits.max_body_bytes = 1000;
  start();
  RawClient client(port);
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 413);
  EXPECT_TRUE(client.is_closed_by_server());
  // A client that sends all of it first gets the answer too: its bytes are read over, not reset.
  RawClient eager(port);
  eager.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n");
  const std::string block(100'000, 'x');
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(eager.send(block));
  EXPECT_EQ(eager.read_response().status, 413);
  EXPECT_TRUE(eager.is_closed_by_server());
  EXPECT_TRUE(eager.at_eof()) << "ended, not reset";
  RawClient chunked(port);
  chunked.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n300\r\n" + std::string(0x300, 'a') +
               "\r\n300\r\n");
  EXPECT_EQ(chunked.read_response().status, 413);
  EXPECT_EQ(RawClient(port).post("/echo", std::string(1000, 'b')).body, std::string(1000, 'b'));
}

TEST_F(SessionTest, BigBodiesInTinyPacketsAndTinyBodiesInOnePacket) {
  start();
  RawClient client(port);
  std::string body(20'000, '\0');
  for (size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>(i * 7);
  const std::string request =
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  for (size_t at = 0; at < request.size(); at += 7) ASSERT_TRUE(client.send(request.substr(at, 7)));
  EXPECT_EQ(client.read_response().body, body);
  const std::string big(20'000'000, 'z');
  EXPECT_EQ(client.post("/echo", big).body.size(), big.size());
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  EXPECT_EQ(client.read_response().body, "abc");
}

TEST_F(SessionTest, SlowHeadersTimeOut) {
  limits.header_timeout = milliseconds(150);
  start();
  RawClient loris(port);
  loris.send("GET /hello HTTP/1.1\r\n");
  // A byte now and then does not move the deadline.
  bool is_answered = false;
  for (int i = 0; i < 100 && loris.send("A") && !is_answered; ++i) is_answered = loris.read_more(10);
  EXPECT_TRUE(is_answered) << "while bytes still came";
  EXPECT_EQ(loris.read_response().status, 408);
  EXPECT_TRUE(loris.is_closed_by_server());
  RawClient silent(port);
  EXPECT_TRUE(silent.is_closed_by_server()) << "a connection without a request";
  EXPECT_EQ(silent.buffered(), "");
}

TEST_F(SessionTest, SlowBodiesTimeOut) {
  limits.body_timeout = milliseconds(150);
  limits.min_body_bytes_per_s = 1'000'000;
  start();
  RawClient slow(port);
  slow.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
  for (int i = 0; i < 100 && slow.send("A"); ++i) {
    if (slow.read_more(10)) break;
  }
  EXPECT_EQ(slow.read_response().status, 408);
  EXPECT_TRUE(slow.is_closed_by_server());
}

TEST_F(SessionTest, BodiesThatKeepComingMayTakeLonger) {
  limits.body_timeout = milliseconds(400);
  limits.min_body_bytes_per_s = 1000;  // 600 bytes earn 0.6 s
  start();
  RawClient client(port);
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 600\r\n\r\n");
  for (int i = 0; i < 6; ++i) {
    client.send(std::string(100, 'a'));
    std::this_thread::sleep_for(milliseconds(90));
  }
  EXPECT_EQ(client.read_response().body.size(), 600U);
}

TEST_F(SessionTest, IdleConnectionsTimeOut) {
  limits.idle_timeout = milliseconds(100);
  start();
  RawClient client(port);
  ASSERT_EQ(client.get("/hello").status, 200);
  EXPECT_TRUE(client.is_closed_by_server(2000));
  EXPECT_TRUE(client.at_eof());
  EXPECT_EQ(seen(1).size(), 1U) << "no request, no record";
}

TEST_F(SessionTest, ManySlowClientsHoldNoThread) {
  start(1);
  std::vector<RawClient> slow;
  for (int i = 0; i < 200; ++i) {
    slow.emplace_back(port);
    slow.back().send(i % 2 ? "GET /hel" : "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n1");
  }
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(RawClient(port).get("/hello").status, 200);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, limits.header_timeout) << "before the first of them is sent away";
}

TEST_F(SessionTest, ADisconnectIsNoticedWhileAHandlerWorks) {
  start();
  RawClient closes(port);
  closes.send(kGetLater);
  auto first = pending(0);
  EXPECT_EQ(num_disconnects, 0);
  closes.close();
  EXPECT_TRUE(wait_until([&] { return num_disconnects == 1; }, 1000));
  RawClient resets(port);
  resets.send(kGetLater);
  auto second = pending(1);
  resets.reset();
  EXPECT_TRUE(wait_until([&] { return num_disconnects == 2; }, 1000));
  RawClient half(port);
  half.send(kGetLater);
  auto third = pending(2);
  half.shutdown_write();
  EXPECT_TRUE(wait_until([&] { return num_disconnects == 3; }, 1000)) << "a half-close counts as gone";

  // Answers that come too late go nowhere; a registration that comes too late is called at once.
  std::atomic<bool> called{false};
  on(first, [](Exchange& e) { e.respond({}); });
  on(second, [&](Exchange& e) {
    e.on_disconnect([&] { called = true; });
    e.start_stream({});
    e.write("x");
    e.finish_stream();
  });
  EXPECT_TRUE(wait_until([&] { return called.load(); }));
  for (const auto& record : seen(3)) {
    EXPECT_EQ(record.status, 499);
    EXPECT_TRUE(record.client_gone);
  }
  EXPECT_TRUE(wait_until([&] { return server->num_connections() == 0; }));
}

TEST_F(SessionTest, ADisconnectIsNoticedBehindPipelinedBytes) {
  start();
  RawClient client(port);
  client.send(std::string(kGetLater) + kGetHello + kGetHello);
  auto exchange = pending();
  client.close();
  EXPECT_TRUE(wait_until([&] { return num_disconnects == 1; }, 1000));
}

TEST_F(SessionTest, AnswersInTimeAreNoDisconnects) {
  start();
  RawClient client(port);
  for (size_t i = 0; i < 5; ++i) {
    client.send(kGetLater);
    on(pending(i), [](Exchange& e) { e.respond({.headers = {}, .body = "x"}); });
    EXPECT_EQ(client.read_response().body, "x");
  }
  client.close();
  EXPECT_TRUE(wait_until([&] { return server->num_connections() == 0; }));
  EXPECT_EQ(num_disconnects, 0);
}

TEST_F(SessionTest, HandlersThatThrowOrForget) {
  router->add("GET", "/throws", [](std::shared_ptr<Exchange>) { throw std::runtime_error("boom"); });
  router->add("GET", "/throws-int", [](std::shared_ptr<Exchange>) { throw 7; });
  router->add("GET", "/throws-in-stream", [](std::shared_ptr<Exchange> exchange) {
    exchange->start_stream({});
    exchange->write("some");
    throw std::runtime_error("boom");
  });
  router->add("GET", "/forgets", [](std::shared_ptr<Exchange>) {});
  router->add("GET", "/forgets-stream", [](std::shared_ptr<Exchange> exchange) {
    exchange->start_stream({});
    exchange->write("some");
  });
  router->add("GET", "/forgets-elsewhere", [](std::shared_ptr<Exchange> exchange) {
    std::thread([held = std::move(exchange)]() mutable {
      std::this_thread::sleep_for(milliseconds(5));
      held.reset();
    }).detach();
  });
  start();
  for (const char* path : {"/throws", "/throws-int", "/forgets", "/forgets-elsewhere"}) {
    RawClient client(port);
    const RawResponse response = client.get(path);
    EXPECT_EQ(response.status, 500) << path;
    EXPECT_THAT(response.body, HasSubstr("server_error")) << path;
    EXPECT_EQ(response.body.find("boom"), std::string::npos) << "what failed inside is for the log";
    EXPECT_TRUE(client.is_closed_by_server()) << path;
  }
  for (const char* path : {"/throws-in-stream", "/forgets-stream"}) {
    RawClient client(port);
    const RawResponse response = client.get(path);
    EXPECT_EQ(response.status, 200) << path;
    EXPECT_EQ(response.body, "some");
    EXPECT_FALSE(response.complete) << path << ": a stream that failed must not look complete";
    EXPECT_TRUE(client.is_closed_by_server()) << path;
  }
}

TEST_F(SessionTest, AClientThatDoesNotReadIsCutOff) {
  limits.write_timeout = milliseconds(150);
  limits.send_buffer_bytes = 4096;
  router->add("GET", "/big", [](std::shared_ptr<Exchange> exchange) {
    HttpResponse response;
    response.body.assign(8'000'000, 'x');
    exchange->respond(std::move(response));
  });
  start();
  RawClient client(port, 4096);
  client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto records = seen(1);
  ASSERT_EQ(records.size(), 1U);
  EXPECT_TRUE(records[0].client_gone);
  EXPECT_TRUE(wait_until([&] { return server->num_connections() == 0; }));
  // One that reads slowly is not.
  RawClient slow(port, 4096);
  slow.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
  for (int i = 0; i < 20; ++i) {
    slow.read_more();
    std::this_thread::sleep_for(milliseconds(20));
  }
  EXPECT_EQ(slow.read_response().body.size(), 8'000'000U);
}

// The child process of a death test runs this test alone ("threadsafe"), so there are threads only where it
// makes them.
TEST_F(SessionTest, CallsFromOutsideTheExecutorAreOurBug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  start();
  RawClient client(port);
  client.send(kGetLater);
  auto exchange = pending();
  EXPECT_DEATH(exchange->respond({}), "executor");
}

}  // namespace
}  // namespace sextant::http
