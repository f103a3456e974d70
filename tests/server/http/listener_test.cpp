// The listener and plain requests: ports, keep-alive, pipelining, routes, versions, limits on connections.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <algorithm>

#include "tests/server/http/http_server_fixture.h"

namespace sextant::http {
namespace {

using testing::HasSubstr;

using ListenerTest = HttpServerTest;

TEST_F(ListenerTest, AnswersAndObserves) {
  start();
  RawClient client(port);
  const RawResponse response = client.get("/hello");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "hello");
  EXPECT_EQ(response.header("content-type"), "text/plain");
  EXPECT_EQ(response.header("server"), "sextant");
  EXPECT_EQ(response.header("x-request-id").size(), 36U);
  EXPECT_EQ(client.post("/echo", "abc").body, "abc") << "on the same connection";
  EXPECT_EQ(server->num_connections(), 1U);
  const auto records = seen(2);
  EXPECT_EQ(records[0].method, "GET");
  EXPECT_EQ(records[0].pattern, "/hello");
  EXPECT_EQ(records[0].status, 200);
  EXPECT_FALSE(records[0].client_gone);
  EXPECT_EQ(records[0].request_id, response.header("x-request-id"));
  EXPECT_EQ(records[1].request_bytes, 3U);
  EXPECT_GT(records[1].response_bytes, 100U);
}

TEST_F(ListenerTest, SaysWhatToDoWhenThePortIsTaken) {
  start();
  HttpServer::Options options;
  options.port = port;
  HttpServer second(io->context(), options, router);
  const Status status = second.start();
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr(std::to_string(port)));
  EXPECT_THAT(status.message(), HasSubstr("in use"));
  EXPECT_THAT(status.message(), HasSubstr("--port"));
}

TEST_F(ListenerTest, RefusesHostsThatAreNone) {
  start();
  for (const char* host : {"no.such.host.invalid", "300.1.1.1", "203.0.113.7"}) {
    HttpServer::Options options;
    options.port = 0;
    options.host = host;
    HttpServer other(io->context(), options, router);
    const Status status = other.start();
    EXPECT_FALSE(status.ok()) << host;
    EXPECT_THAT(status.message(), HasSubstr(host));
    EXPECT_THAT(status.message(), HasSubstr("0.0.0.0")) << "what to do";
  }
}

TEST_F(ListenerTest, ListensOnLocalhostByName) {
  start();
  HttpServer::Options options;
  options.port = 0;
  options.host = "localhost";
  HttpServer other(io->context(), options, router);
  ASSERT_TRUE(other.start().ok());
  EXPECT_EQ(RawClient(other.local_port()).get("/hello").status, 200);
}

TEST_F(ListenerTest, UnknownRoutesAndMethods) {
  start();
  RawClient client(port);
  const RawResponse missing = client.get("/nothing/here");
  EXPECT_EQ(missing.status, 404);
  EXPECT_THAT(missing.body, HasSubstr("\"error\""));
  EXPECT_THAT(missing.body, HasSubstr("/nothing/here"));
  const RawResponse wrong = client.get("/echo");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.header("allow"), "POST");
  EXPECT_EQ(client.post("/nothing", "a small body is read over").status, 404);
  client.send("BREW /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 405);
  client.send("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 404);
  EXPECT_EQ(client.get("/hello").status, 200) << "the connection lived through all of it";
  EXPECT_EQ(seen(1)[0].pattern, "") << "what clients invent does not become a label";
}

TEST_F(ListenerTest, PathsAreDecodedAndAbsoluteTargetsUnderstood) {
  start();
  RawClient client(port);
  EXPECT_EQ(client.get("/path/a%2Fb%20c?q=%41").body, "/path/a/b c|q=%41");
  client.send("GET http://example.com:80/path/x?y HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.read_response().body, "/path/x|y");
}

TEST_F(ListenerTest, HeadHasALengthAndNoBody) {
  start();
  RawClient client(port);
  client.send("HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  const RawResponse response = client.read_response(true);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.header("content-length"), "5");
  EXPECT_EQ(client.get("/hello").body, "hello");
}

TEST_F(ListenerTest, PipelinedRequestsAreAnsweredInOrder) {
  start();
  RawClient client(port);
  std::string requests;
  for (int i = 0; i < 50; ++i) {
    requests += "GET /path/" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n\r\n";
    requests += "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n" + std::to_string(10 + i);
  }
  client.send(requests);
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(client.read_response().body, "/path/" + std::to_string(i) + "|");
    ASSERT_EQ(client.read_response().body, std::to_string(10 + i));
  }
}

TEST_F(ListenerTest, PipelinedRequestsWaitForAHandlerAtWork) {
  limits.max_pipelined_bytes = 4096;
  limits.max_header_bytes = 4096;
  start();
  RawClient client(port);
  client.send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  auto exchange = pending();
  // More than is read ahead; the rest stays in the kernel until its turn.
  std::string more;
  for (int i = 0; i < 500; ++i) more += "GET /path/" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n\r\n";
  ASSERT_TRUE(client.send(more));
  EXPECT_FALSE(client.read_more(50)) << "nothing may overtake the first";
  on(exchange, [](Exchange& e) { e.respond({.headers = {}, .body = "first"}); });
  EXPECT_EQ(client.read_response().body, "first");
  for (int i = 0; i < 500; ++i) ASSERT_EQ(client.read_response().body, "/path/" + std::to_string(i) + "|");
  EXPECT_EQ(num_disconnects, 0);
}

TEST_F(ListenerTest, Http10) {
  start();
  RawClient client(port);
  client.send("GET /hello HTTP/1.0\r\n\r\n");
  const RawResponse response = client.read_response();
  EXPECT_EQ(response.body, "hello");
  EXPECT_EQ(response.header("connection"), "close");
  EXPECT_TRUE(client.is_closed_by_server());
  RawClient keeps(port);
  for (int i = 0; i < 3; ++i) {
    keeps.send("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    const RawResponse kept = keeps.read_response();
    EXPECT_EQ(kept.body, "hello");
    EXPECT_EQ(kept.header("connection"), "keep-alive");
  }
}

TEST_F(ListenerTest, ConnectionClose) {
  start();
  RawClient client(port);
  client.send("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  const RawResponse response = client.read_response();
  EXPECT_EQ(response.header("connection"), "close");
  EXPECT_TRUE(client.is_closed_by_server());
  EXPECT_EQ(client.buffered(), "") << "one answer, then the end";
}

TEST_F(ListenerTest, EchoesOnlyWellFormedRequestIds) {
  start();
  RawClient client(port);
  client.send("GET /hello HTTP/1.1\r\nHost: x\r\nX-Request-ID: my-id.1:2\r\n\r\n");
  EXPECT_EQ(client.read_response().header("x-request-id"), "my-id.1:2");
  for (const std::string& bad :
       {std::string("a b"), std::string("<script>"), std::string(200, 'a'), std::string("\xc3\xa9")}) {
    client.send("GET /hello HTTP/1.1\r\nHost: x\r\nX-Request-Id: " + bad + "\r\n\r\n");
    EXPECT_TRUE(client.read_response().header("x-request-id").starts_with("req-")) << bad;
  }
}

TEST_F(ListenerTest, ExpectContinue) {
  start();
  RawClient client(port);
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("body");
  EXPECT_EQ(client.read_response().body, "body");
  // Refused before a byte of the body is asked for.
  client.send("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n");
  const std::string head = client.read_until("\r\n");
  EXPECT_THAT(head, HasSubstr("413"));
  EXPECT_TRUE(client.is_closed_by_server());
  RawClient other(port);
  other.send("POST /nowhere HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  EXPECT_EQ(other.read_response().status, 404);
}

TEST_F(ListenerTest, FiveHundredKeepAliveConnections) {
  start();
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < 1200) {
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 4096);
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  std::vector<RawClient> clients;
  for (int i = 0; i < 500; ++i) {
    clients.emplace_back(port);
    ASSERT_TRUE(clients.back().is_connected());
  }
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 0; i < clients.size(); ++i) {
      ASSERT_TRUE(clients[i].send("GET /path/" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    for (size_t i = 0; i < clients.size(); ++i) {
      ASSERT_EQ(clients[i].read_response().body, "/path/" + std::to_string(i) + "|");
    }
  }
  EXPECT_EQ(server->num_connections(), 500U);

  // They cost nothing while they are idle. What the last answers left to do is done by then.
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
#if !defined(__SANITIZE_THREAD__)  // whose own thread works on its own account
  const auto cpu_us = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000 + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_usec;
  };
  auto least = cpu_us();
  for (int i = 0; i < 10 && least >= 3000; ++i) {  // another process's interrupts may be charged to one window
    const auto before = cpu_us();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    least = std::min(least, cpu_us() - before);
  }
  EXPECT_LT(least, 3000) << "microseconds of CPU in 0.3 s: over 1% of a core";
#endif
  clients.clear();
  EXPECT_TRUE(wait_until([&] { return server->num_connections() == 0; }));
}

TEST_F(ListenerTest, TooManyConnectionsAreToldSo) {
  limits.max_connections = 3;
  start();
  std::vector<RawClient> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back(port);
    ASSERT_EQ(clients.back().get("/hello").status, 200);
  }
  RawClient fourth(port);
  const RawResponse refused = fourth.get("/hello");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.header("retry-after"), "1");
  EXPECT_EQ(refused.header("connection"), "close");
  EXPECT_EQ(clients[0].get("/hello").status, 200);
  fourth.close();
  clients.pop_back();
  ASSERT_TRUE(wait_until([&] { return server->num_connections() == 2; }));
  EXPECT_EQ(RawClient(port).get("/hello").status, 200);
}

// One client cannot take all places, nor hold up those of others by being told so.
TEST_F(ListenerTest, OneClientHasSoManyConnectionsAndNoMore) {
  limits.max_connections_of_client = 3;
  std::atomic<int> num_refused{0};
  on_refused_connection = [&] { ++num_refused; };
  // Of 127.0.0.1 alone: who connects here has no other address.
  std::atomic<bool> is_counted{true};
  client_of = [&](const std::string& address) { return is_counted ? "client " + address : std::string(); };
  start();
  std::vector<RawClient> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back(port);
    ASSERT_EQ(clients.back().get("/hello").status, 200);
  }
  EXPECT_EQ(num_refused, 0);
  {
    const RawResponse refused = RawClient(port).get("/hello");
    EXPECT_EQ(refused.status, 503);
    EXPECT_EQ(refused.header("retry-after"), "1");
  }
  ASSERT_TRUE(wait_until([&] { return server->num_connections() == 3; }));
  // Whoever goes on: four are told, for as long as they listen; the others find the door shut.
  std::vector<RawClient> flood;
  for (int i = 0; i < 40; ++i) flood.emplace_back(port);
  ASSERT_TRUE(wait_until([&] { return num_refused == 41; }));
  EXPECT_EQ(server->num_connections(), 7u);
  is_counted = false;  // a proxy
  EXPECT_EQ(RawClient(port).get("/hello").status, 200);
  is_counted = true;
  flood.clear();
  clients.pop_back();
  ASSERT_TRUE(wait_until([&] { return server->num_connections() == 2; }));
  EXPECT_EQ(RawClient(port).get("/hello").status, 200);
  EXPECT_EQ(num_refused, 41);
}

TEST_F(ListenerTest, DrainsInOrder) {
  start();
  RawClient idle(port);
  ASSERT_EQ(idle.get("/hello").status, 200);
  RawClient busy(port);
  busy.send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  auto exchange = pending();
  // the first request counts until its session has seen the last byte out, which is after the client has read it
  ASSERT_TRUE(wait_until([&] { return server->num_requests() == 1; }));

  server->stop_accepting();
  ASSERT_TRUE(wait_until([&] { return !RawClient(port).is_connected(); }));
  server->close_idle();
  EXPECT_TRUE(idle.is_closed_by_server());
  EXPECT_FALSE(busy.read_more(30)) << "a request at work is not cut";
  on(exchange, [](Exchange& e) { e.respond({.headers = {}, .body = "done"}); });
  exchange.reset();
  const RawResponse response = busy.read_response();
  EXPECT_EQ(response.body, "done");
  EXPECT_EQ(response.header("connection"), "close");
  EXPECT_TRUE(busy.is_closed_by_server());
  EXPECT_TRUE(wait_until([&] { return server->num_connections() == 0; }));
}

TEST_F(ListenerTest, ServersAndThreadsEndInAnyState) {
  for (int round = 0; round < 20; ++round) {
    auto threads = std::make_unique<IoThreads>(2);
    HttpServer::Options options;
    options.port = 0;
    auto own_router = std::make_shared<Router>();
    std::mutex mutex;
    std::vector<std::shared_ptr<Exchange>> kept;
    own_router->add("GET", "/stream", [&](std::shared_ptr<Exchange> exchange) {
      exchange->start_stream({});
      exchange->write("data");
      exchange->on_disconnect([exchange] {});  // a cycle, as handlers make them
      const std::lock_guard lock(mutex);
      if (round % 2 == 0) kept.push_back(std::move(exchange));
    });
    auto own_server = std::make_unique<HttpServer>(threads->context(), options, own_router);
    ASSERT_TRUE(own_server->start().ok());
    std::vector<RawClient> clients;
    for (int i = 0; i < 5; ++i) {
      clients.emplace_back(own_server->local_port());
      clients.back().send(i % 2 ? "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n" : "GET /str");
    }
    if (round % 4 < 2) clients[1].read_until("data");
    if (round % 3 == 0) own_server.reset();
    threads->stop();
    own_server.reset();
    kept.clear();
    threads.reset();
  }
}

}  // namespace
}  // namespace sextant::http
