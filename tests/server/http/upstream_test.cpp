// Upstream against sockets that say exactly what a test wants them to, and the reader of answers on its own.
#include "server/http/upstream.h"

#include <gtest/gtest.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <thread>

#include "server/http/io_threads.h"
#include "server/http/upstream_answer.h"

namespace sextant::http {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

// Takes connections one after the other and lets a script answer: it is told which connection it is and what was asked, and
// gives what is written, byte for byte, and whether the connection is closed then.
class ScriptedServer {
 public:
  struct Say {
    std::string bytes;
    bool close = false;
  };
  using Script = std::function<Say(int connection, const std::string& head)>;

  explicit ScriptedServer(Script script)
      : script_(std::move(script)), acceptor_(io_, {asio::ip::address_v4::loopback(), 0}) {
    thread_ = std::thread([this] { run(); });
  }
  ~ScriptedServer() {
    stop_ = true;
    asio::ip::tcp::socket last(io_);
    boost::system::error_code ignored;
    last.connect(acceptor_.local_endpoint(), ignored);
    thread_.join();
    for (const auto& socket : sockets_) socket->shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
    for (std::thread& thread : sessions_) thread.join();
  }
  Endpoint endpoint() const { return {"127.0.0.1", acceptor_.local_endpoint().port()}; }
  int num_connections() const { return num_connections_; }

 private:
  void run() {
    while (true) {
      auto socket = std::make_shared<asio::ip::tcp::socket>(io_);
      acceptor_.accept(*socket);
      if (stop_) return;
      const int number = num_connections_++;
      sockets_.push_back(socket);
      sessions_.emplace_back([this, number, socket] { serve(number, *socket); });
    }
  }
  void serve(int number, asio::ip::tcp::socket& socket) {
    std::string in;
    boost::system::error_code error;
    while (true) {
      while (in.find("\r\n\r\n") == std::string::npos) {
        char buffer[4096];
        const size_t count = socket.read_some(asio::buffer(buffer), error);
        if (error) return;
        in.append(buffer, count);
      }
      const size_t end = in.find("\r\n\r\n") + 4;
      const Say say = script_(number, in.substr(0, end));
      in.erase(0, end);
      asio::write(socket, asio::buffer(say.bytes), error);
      if (!error && !say.close) continue;
      socket.shutdown(asio::ip::tcp::socket::shutdown_both, error);
      return;
    }
  }

  Script script_;
  asio::io_context io_;
  asio::ip::tcp::acceptor acceptor_;
  std::atomic<bool> stop_{false};
  std::atomic<int> num_connections_{0};
  std::deque<std::thread> sessions_;
  std::deque<std::shared_ptr<asio::ip::tcp::socket>> sockets_;  // of the accepting thread, until it has ended
  std::thread thread_;
};

struct Heard {
  int status = 0;
  std::string body;
  std::optional<UpstreamEnd> end;
  std::string reason;
  int num_heads = 0, num_ends = 0;
};

class UpstreamTest : public testing::Test {
 protected:
  UpstreamTest() : client(io.context(), {}) {}

  // Waits for the end.
  Heard ask(const Endpoint& endpoint, UpstreamRequest request = {},
            UpstreamTimeouts timeouts = {milliseconds(5000), milliseconds(20'000), milliseconds(20'000)}) {
    Heard heard;
    std::mutex mutex;
    std::condition_variable changed;
    client.start(asio::make_strand(io.context()), endpoint, std::move(request), timeouts,
                 {.on_head =
                      [&](const UpstreamHead& head) {
                        const std::lock_guard lock(mutex);
                        heard.status = head.status;
                        ++heard.num_heads;
                      },
                  .on_body =
                      [&](std::string_view bytes) {
                        const std::lock_guard lock(mutex);
                        EXPECT_EQ(heard.num_heads, 1);
                        heard.body += bytes;
                      },
                  .on_end =
                      [&](UpstreamEnd end, const std::string& reason) {
                        const std::lock_guard lock(mutex);
                        heard.end = end;
                        heard.reason = reason;
                        ++heard.num_ends;
                        changed.notify_all();
                      }});
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return heard.end.has_value(); }));
    return heard;
  }

  IoThreads io{2};
  UpstreamClient client;
};

constexpr const char* kHello = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";

TEST_F(UpstreamTest, ConnectionsAreKeptAndTakenAgain) {
  ScriptedServer server([](int, const std::string&) { return ScriptedServer::Say{kHello}; });
  for (int i = 0; i < 5; ++i) {
    const Heard heard = ask(server.endpoint());
    EXPECT_EQ(heard.end, UpstreamEnd::kComplete);
    EXPECT_EQ(heard.status, 200);
    EXPECT_EQ(heard.body, "hello");
  }
  EXPECT_EQ(server.num_connections(), 1);
  EXPECT_EQ(client.num_idle(), 1U);
}

TEST_F(UpstreamTest, AKeptConnectionThatThePeerClosedIsOpenedAnew) {
  // It closes after each answer without saying so.
  ScriptedServer server([](int, const std::string&) { return ScriptedServer::Say{kHello, true}; });
  for (int i = 0; i < 20; ++i) {
    const Heard heard = ask(server.endpoint());
    EXPECT_EQ(heard.end, UpstreamEnd::kComplete) << heard.reason;
  }
  EXPECT_EQ(server.num_connections(), 20);
}

TEST_F(UpstreamTest, WhatThePeerSaysToTheEndOfItsConnectionIsComplete) {
  ScriptedServer server([](int, const std::string&) {
    return ScriptedServer::Say{"HTTP/1.0 200 OK\r\n\r\nall of it", true};
  });
  const Heard heard = ask(server.endpoint());
  EXPECT_EQ(heard.end, UpstreamEnd::kComplete);
  EXPECT_EQ(heard.body, "all of it");
  EXPECT_EQ(client.num_idle(), 0U);
}

TEST_F(UpstreamTest, EndsAreToldApart) {
  const auto with = [&](const std::string& bytes) {
    ScriptedServer server([&](int, const std::string&) { return ScriptedServer::Say{bytes, true}; });
    return ask(server.endpoint());
  };
  EXPECT_EQ(with("").end, UpstreamEnd::kNoAnswer);
  EXPECT_EQ(with("HTTP/1.1 200 OK\r\nContent-Le").end, UpstreamEnd::kNoAnswer);
  EXPECT_EQ(with("SSH-2.0-OpenSSH_9.2\r\n\r\n").end, UpstreamEnd::kNoAnswer);
  EXPECT_EQ(with("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").end, UpstreamEnd::kBroken);
  EXPECT_EQ(with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").end, UpstreamEnd::kBroken);
  EXPECT_EQ(with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n").end, UpstreamEnd::kBroken);
  EXPECT_EQ(with("HTTP/1.1 101 Switching Protocols\r\n\r\n").end, UpstreamEnd::kNoAnswer);
  Endpoint nobody;
  {
    ScriptedServer server([](int, const std::string&) { return ScriptedServer::Say{}; });
    nobody = server.endpoint();
  }
  EXPECT_EQ(ask(nobody).end, UpstreamEnd::kNotSent);
  EXPECT_EQ(ask({"no-such-host.invalid", 80}).end, UpstreamEnd::kNotSent);
}

TEST_F(UpstreamTest, SilenceHasAnEnd) {
  ScriptedServer mute([](int, const std::string&) { return ScriptedServer::Say{}; });
  const Heard none = ask(mute.endpoint(), {}, {milliseconds(5000), milliseconds(50), milliseconds(60'000)});
  EXPECT_EQ(none.end, UpstreamEnd::kTimeout);
  ScriptedServer halting(
      [](int, const std::string&) { return ScriptedServer::Say{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"}; });
  const Heard half = ask(halting.endpoint(), {}, {milliseconds(5000), milliseconds(60'000), milliseconds(50)});
  EXPECT_EQ(half.end, UpstreamEnd::kBroken);
  EXPECT_EQ(half.body, "half");
}

TEST_F(UpstreamTest, ProvisionalAnswersAreSkipped) {
  ScriptedServer server([](int, const std::string&) {
    return ScriptedServer::Say{std::string("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n") + kHello};
  });
  const Heard heard = ask(server.endpoint());
  EXPECT_EQ(heard.status, 200);
  EXPECT_EQ(heard.num_heads, 1);
}

TEST_F(UpstreamTest, ACancelledCallSaysNothingMoreAndItsConnectionCloses) {
  std::atomic<int> num_closed{0};
  ScriptedServer server([](int, const std::string&) {
    return ScriptedServer::Say{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"};
  });
  std::mutex mutex;
  std::condition_variable changed;
  bool cancelled = false;
  std::atomic<int> num_ends{0};
  const auto strand = asio::make_strand(io.context());
  auto call = std::make_shared<std::shared_ptr<UpstreamCall>>();
  asio::post(strand, [&, call] {
    *call = client.start(strand, server.endpoint(), {}, {},
                         {.on_head = [](const UpstreamHead&) {},
                          .on_body =
                              [&, call](std::string_view) {
                                std::exchange(*call, nullptr)->cancel();
                                const std::lock_guard lock(mutex);
                                cancelled = true;
                                changed.notify_all();
                              },
                          .on_end = [&](UpstreamEnd, const std::string&) { ++num_ends; }});
  });
  std::unique_lock lock(mutex);
  ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return cancelled; }));
  EXPECT_EQ(num_ends, 0);
  EXPECT_EQ(client.num_idle(), 0U);
}

TEST_F(UpstreamTest, RequestsHaveTheirBytesAndNoMore) {
  std::mutex mutex;
  std::string seen;
  ScriptedServer server([&](int, const std::string& head) {
    const std::lock_guard lock(mutex);
    seen = head;
    return ScriptedServer::Say{kHello, true};
  });
  UpstreamRequest request;
  request.method = "POST";
  request.target = "/v1/completions?x=1\r\nEvil: 1";
  request.headers = {{"X-Good", "1"},
                     {"X-Split", "a\r\nEvil: 1"},
                     {"Bad Name", "1"},
                     {"Connection", "close"},
                     {"Transfer-Encoding", "chunked"},
                     {"Content-Length", "99"},
                     {"Host", "evil"},
                     {"te", "trailers"}};
  ask(server.endpoint(), request);
  const std::lock_guard lock(mutex);
  EXPECT_EQ(seen, "POST /v1/completions?x=1Evil:1 HTTP/1.1\r\nHost: " + server.endpoint().authority() +
                      "\r\nX-Good: 1\r\nX-Split: a  Evil: 1\r\nContent-Length: 0\r\n\r\n");
}

TEST(UpstreamAnswer, AnyCutOfTheBytesGivesTheSame) {
  const std::string text =
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-A: b\r\nTransfer-Encoding: "
      "chunked\r\n\r\n6\r\nabcdef\r\n3;x=y\r\nghi\r\n0\r\nTrailer: t\r\n\r\n";
  const uint32_t seed = std::random_device()();
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    UpstreamAnswer answer(false, 4096);
    std::string body;
    for (size_t at = 0; at < text.size();) {
      const size_t count = std::min<size_t>(text.size() - at, 1 + random() % 40);
      ASSERT_EQ(answer.feed(std::string_view(text).substr(at, count)), "") << "seed " << seed;
      body += answer.take_body();
      at += count;
    }
    ASSERT_TRUE(answer.is_complete()) << "seed " << seed;
    EXPECT_TRUE(answer.may_keep_alive());
    const UpstreamHead head = answer.take_head();
    EXPECT_EQ(head.status, 200);
    EXPECT_EQ(head.content_type, "text/event-stream");
    ASSERT_EQ(head.headers.size(), 1U);
    EXPECT_EQ(head.headers[0].value, "b");
    EXPECT_EQ(body, "abcdefghi");
  }
}

TEST(UpstreamAnswer, HeadsThatAreTooLongAndBytesTooManyAreNotTaken) {
  UpstreamAnswer longer(false, 256);
  EXPECT_NE(longer.feed("HTTP/1.1 200 OK\r\nX: " + std::string(1000, 'x') + "\r\n\r\n"), "");
  UpstreamAnswer endless(false, 256);
  std::string error;
  for (int i = 0; i < 100 && error.empty(); ++i) error = endless.feed("HTTP/1.1 200 OK\r\nX: " + std::string(10, 'x'));
  EXPECT_NE(error, "");
  UpstreamAnswer surplus(false, 256);
  EXPECT_EQ(surplus.feed(std::string(kHello) + kHello), "");
  EXPECT_TRUE(surplus.is_complete());
  EXPECT_FALSE(surplus.may_keep_alive());
  UpstreamAnswer head_only(true, 256);
  EXPECT_EQ(head_only.feed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), "");
  EXPECT_TRUE(head_only.is_complete());
}

TEST(Endpoint, IsReadOrRefusedWithTheReason) {
  EXPECT_EQ(Endpoint::parse("http://gpu-1:8000/").value().authority(), "gpu-1:8000");
  EXPECT_EQ(Endpoint::parse("[::1]:80").value().authority(), "[::1]:80");
  EXPECT_EQ(Endpoint::parse("some-host:65535").value().port, 65535);
  for (const char* bad : {"", "http://", "http://h", "h:0", "h:65536", "h:-1", "h:8 0", "https://h:1", "http://h:1/x",
                          "u@h:1", "[::1:8", "[x]:1", "::1:80", "h:", "http://h:1?q", "h\r\n:1"}) {
    EXPECT_FALSE(Endpoint::parse(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace sextant::http
