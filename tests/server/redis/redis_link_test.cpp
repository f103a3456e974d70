#include "server/redis/redis_link.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "tests/support/scripted_redis.h"

namespace sextant::redis {
namespace {

using std::chrono::milliseconds;
using testing_support::greeting;
using testing_support::ScriptedRedis;
using Words = ScriptedRedis::Words;

constexpr milliseconds kLong{60'000};

Connection::Clock::time_point soon() { return Connection::Clock::now() + kLong; }

Address at(uint16_t port) {
  Address address;
  address.host = "127.0.0.1";
  address.port = port;
  return address;
}

template <typename Condition>
void wait_until(Condition&& condition) {
  const auto deadline = soon();
  while (!condition()) {
    ASSERT_LT(Connection::Clock::now(), deadline) << "did not come true";
    std::this_thread::sleep_for(milliseconds(1));
  }
}

Link::Options options_of(uint16_t port) {
  Link::Options options;
  options.address = at(port);
  options.timeout = options.connect_timeout = kLong;
  options.first_retry = options.longest_retry = milliseconds(5);
  options.tick = milliseconds(20);
  options.without = "the test goes on";
  return options;
}

// What a command got: none for nothing.
std::optional<Reply> ask(Link& link, Command command) {
  auto promise = std::make_shared<std::promise<std::optional<Reply>>>();
  std::future<std::optional<Reply>> future = promise->get_future();
  const bool is_sent = link.send(std::move(command), [promise](const Reply* reply) {
    promise->set_value(reply != nullptr ? std::optional(*reply) : std::nullopt);
    return true;
  });
  return is_sent ? future.get() : std::nullopt;
}

TEST(RedisConnection, LogsInAndReadsEveryKindOfAnswer) {
  ScriptedRedis server([](const Words& words) {
    if (const auto known = greeting(words)) return known;
    return std::optional<std::string>("*5\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n+OK\r\n*1\r\n-ERR no\r\n");
  });
  Address address = at(server.port());
  address.user = "ann";
  address.password = "secret";
  address.database = 3;
  auto connection = Connection::open(address, soon(), 1000);
  ASSERT_TRUE(connection.ok()) << connection.status().message();
  const std::vector<Command> commands = {{"ANY", std::string("b\0\r\n", 4)}};
  const auto replies = connection->exchange(commands, soon());
  ASSERT_TRUE(replies.ok()) << replies.status().message();
  const Reply& reply = (*replies)[0];
  ASSERT_EQ(reply.elements.size(), 5u);
  EXPECT_EQ(reply.elements[0].integer, -7);
  EXPECT_EQ(reply.elements[1].text, "a\r\n");
  EXPECT_EQ(reply.elements[2].kind, Reply::Kind::kNil);
  EXPECT_EQ(reply.elements[3].text, "OK");
  EXPECT_TRUE(reply.elements[4].elements[0].is_error("ERR"));
  EXPECT_EQ(
      server.asked(),
      (std::vector<Words>{{"AUTH", "ann", "secret"}, {"SELECT", "3"}, {"PING"}, {"ANY", std::string("b\0\r\n", 4)}}));
}

// What is no Redis, or a hostile one, ends the connection in bounded time and memory.
TEST(RedisConnection, NonsenseIsAnError) {
  std::string deep;
  for (int i = 0; i < 1000; ++i) deep += "*1\r\n";
  std::string dribble(2000, '1');
  for (const std::string& answer :
       {std::string("HTTP/1.1 400 Bad Request\r\n\r\n"), std::string("*2000000000\r\n"), std::string("*65\r\n"),
        std::string("$99999999999999999999\r\n"), std::string("$-5\r\nx"), std::string(":abc\r\n"),
        std::string(":99999999999999999999\r\n"), std::string("*-9\r\n"), deep, "$5000000\r\n" + dribble, dribble,
        std::string("\0\0\0\0", 4), std::string("$3\r\nabcde\r\n+x\r\n"), std::string("+OK\r\n+OK\r\n")}) {
    ScriptedRedis server([&](const Words& words) { return words[0] == "PING" ? "+PONG\r\n" : std::optional(answer); });
    auto connection = Connection::open(at(server.port()), soon(), 1000);
    ASSERT_TRUE(connection.ok()) << connection.status().message();
    const std::vector<Command> commands = {{"GET", "x"}};
    const auto deadline = Connection::Clock::now() + milliseconds(50);  // for answers that never end
    const auto replies = connection->exchange(commands, deadline);
    // What came behind an answer may come too late to be seen with it.
    if (answer == "+OK\r\n+OK\r\n" || answer.starts_with("$3")) continue;
    EXPECT_FALSE(replies.ok()) << answer.substr(0, 40);
  }
}

// A server that repeats what it does not know (Redis does) must not bring the password into the log.
TEST(RedisConnection, ErrorsOfALogInShowNoPassword) {
  for (const char* answer : {"-ERR unknown command `AUTH`, with args beginning with: `topsecret`\r\n", "+topsecret\r\n",
                             "-topsecret\r\n", "-TOPSECRET\r\n", "topsecret\r\n"}) {
    ScriptedRedis server(
        [&](const Words& words) { return words[0] == "AUTH" ? std::optional<std::string>(answer) : greeting(words); });
    Address address = at(server.port());
    address.password = "topsecret";
    const auto connection = Connection::open(address, soon(), 1000);
    ASSERT_FALSE(connection.ok());
    EXPECT_EQ(connection.status().message().find("topsecret"), std::string::npos) << connection.status().message();
  }
}

TEST(RedisConnection, ClosedHangingAndAbsentOnesAreErrors) {
  {
    ScriptedRedis server([](const Words&) { return std::nullopt; });
    EXPECT_FALSE(Connection::open(at(server.port()), soon(), 1000).ok());
  }
  {
    ScriptedRedis server([](const Words&) { return std::optional<std::string>(""); });
    const auto connection = Connection::open(at(server.port()), Connection::Clock::now() + milliseconds(30), 1000);
    ASSERT_FALSE(connection.ok());
    EXPECT_EQ(connection.status().message(), "no answer in time");
  }
  uint16_t port = 0;
  {
    port = ScriptedRedis([](const Words&) { return std::nullopt; }).port();
  }
  EXPECT_FALSE(Connection::open(at(port), soon(), 1000).ok());
}

TEST(RedisLink, AnswersManyThreadsEachItsOwn) {
  ScriptedRedis server([](const Words& words) {
    if (words[0] == "PING") return std::optional<std::string>("+PONG\r\n");
    return std::optional<std::string>(":" + words[1] + "\r\n");
  });
  Link link(options_of(server.port()));
  wait_until([&] { return link.health().is_up; });
  std::vector<std::thread> threads;
  std::atomic<int> num_right{0};
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 50; ++i) {
        const auto reply = ask(link, {"ECHO", std::to_string(thread * 1000 + i)});
        if (reply && reply->integer == thread * 1000 + i) ++num_right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_right, 200);
  EXPECT_EQ(link.health().num_failures, 0u);
}

TEST(RedisLink, AScriptIsSentWholeOnlyWhereItIsNotKnown) {
  const Script script("return 1");
  EXPECT_EQ(script.sha1(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");  // as redis-cli SCRIPT LOAD says
  std::atomic<bool> is_known{false};
  ScriptedRedis server([&](const Words& words) -> std::optional<std::string> {
    if (const auto known = greeting(words)) return known;
    if (words[0] == "EVAL") is_known = true;
    return is_known ? ":1\r\n" : "-NOSCRIPT No matching script. Please use EVAL.\r\n";
  });
  Link link(options_of(server.port()));
  wait_until([&] { return link.health().is_up; });
  for (int i = 0; i < 2; ++i) {
    std::promise<int64_t> answered;
    ASSERT_TRUE(link.run(script, {"0"}, [&](const Reply* reply) {
      answered.set_value(reply != nullptr ? reply->integer : -1);
      return true;
    }));
    EXPECT_EQ(answered.get_future().get(), 1);
  }
  std::vector<std::string> verbs;
  for (const Words& words : server.asked()) {
    if (words[0] != "PING") verbs.push_back(words[0] + " " + words[1]);
  }
  EXPECT_EQ(verbs, (std::vector<std::string>{"EVALSHA " + script.sha1(), "EVAL return 1", "EVALSHA " + script.sha1()}));
}

// Whatever happens, what was taken is answered once, and what comes later is refused at once until Redis is back.
TEST(RedisLink, IsDownWhileRedisIsAndComesBack) {
  enum Mood { kWell, kHangs, kCloses, kTears, kLies, kErrs, kLoops };
  std::atomic<Mood> mood{kWell};
  ScriptedRedis server([&](const Words& words) -> std::optional<std::string> {
    if (mood == kWell) return words[0] == "PING" ? "+PONG\r\n" : ":1\r\n";
    switch (mood.load()) {
      case kWell: break;
      case kHangs: return "";
      case kCloses: return std::nullopt;
      case kTears: return words[0] == "PING" ? "$40\r\nhalf" : "*2\r\n:1\r\n";
      case kLies: return "+LIAR\r\n";
      case kErrs: return "-LOADING Redis is loading the dataset in memory\r\n";
      case kLoops: return "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n";
    }
    return std::nullopt;
  });
  Link::Options options = options_of(server.port());
  options.timeout = milliseconds(60);
  options.connect_timeout = milliseconds(60);
  std::atomic<int> num_new{0};
  options.on_tick = [&](bool is_new) { num_new += is_new ? 1 : 0; };
  Link link(options);
  uint64_t num_failures = 0;
  for (const Mood bad : {kHangs, kCloses, kTears, kLies, kErrs, kLoops}) {
    SCOPED_TRACE(static_cast<int>(bad));
    wait_until([&] { return link.health().is_up; });
    mood = bad;
    (void)ask(link, {"GET", "x"});  // answered, or the test hangs
    wait_until([&] { return link.health().num_failures > num_failures; });
    wait_until([&] { return !link.health().is_up; });
    EXPECT_FALSE(link.send({"GET", "x"}, [](const Reply*) { return true; }));
    mood = kWell;
    wait_until([&] { return link.health().is_up; });
    wait_until([&] { return ask(link, {"GET", "x"}).has_value(); });
    num_failures = link.health().num_failures;
  }
  EXPECT_GE(num_new, 6);
}

TEST(RedisLink, AnAnswerThatMakesNoSenseEndsIt) {
  ScriptedRedis server(
      [](const Words& words) { return words[0] == "PING" ? "+PONG\r\n" : std::optional<std::string>(":1\r\n"); });
  Link link(options_of(server.port()));
  wait_until([&] { return link.health().is_up; });
  std::atomic<int> num_calls{0};
  ASSERT_TRUE(link.send({"GET"}, [&](const Reply*) {
    ++num_calls;
    return false;
  }));
  wait_until([&] { return link.health().num_failures == 1; });
  EXPECT_EQ(num_calls, 1);
}

TEST(RedisLink, TakesNoMoreThanItsQueueAndAnswersAllAtTheEnd) {
  std::atomic<bool> hangs{false};
  ScriptedRedis server([&](const Words& words) -> std::optional<std::string> {
    if (hangs) return "";
    return greeting(words);
  });
  Link::Options options = options_of(server.port());
  options.max_queued = 10;
  options.max_batch = 2;
  options.timeout = milliseconds(50);
  options.tick = kLong;
  std::atomic<int> num_taken{0}, num_answered{0};
  {
    Link link(options);
    wait_until([&] { return link.health().is_up; });
    hangs = true;
    for (int i = 0; i < 100; ++i) {
      num_taken += link.send({"GET", "x"}, [&](const Reply* reply) {
        EXPECT_EQ(reply, nullptr);
        ++num_answered;
        return true;
      });
    }
    EXPECT_GE(num_taken, 1);
    EXPECT_LE(num_taken, 100);
  }
  EXPECT_EQ(num_answered, num_taken);
}

}  // namespace
}  // namespace sextant::redis
