// EngineSink between a FakeEngine and receivers that note what they get, on an io_context that the test turns.
#include "server/openai/engine_sink.h"

#include <gtest/gtest.h>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "tests/support/fake_engine.h"

namespace sextant::openai {
namespace {

namespace asio = boost::asio;
using testing_support::FakeEngine;

class NotingReceiver final : public EventReceiver {
 public:
  explicit NotingReceiver(asio::io_context& io) : strand_(asio::make_strand(io)) {}
  asio::any_io_executor executor() const override { return strand_; }
  void on_submitted(Result<std::vector<RequestId>> given) override {
    EXPECT_TRUE(strand_.running_in_this_thread());
    EXPECT_TRUE(calls.empty()) << "events came before their request was taken";
    ids = given.ok() ? *given : std::vector<RequestId>();
    ++num_submitted;
  }
  void on_events(std::vector<OutputEvent> events) override {
    EXPECT_TRUE(strand_.running_in_this_thread());
    std::vector<int32_t>& tokens = calls.emplace_back();
    for (const OutputEvent& event : events) {
      tokens.insert(tokens.end(), event.token_ids.begin(), event.token_ids.end());
    }
    num_tokens += static_cast<int>(tokens.size());
  }

  const asio::strand<asio::io_context::executor_type> strand_;
  std::vector<RequestId> ids;
  int num_submitted = 0;
  std::vector<std::vector<int32_t>> calls;  // tokens of each
  std::atomic<int> num_tokens{0};
};

Request request() {
  Request made;
  made.prompt_token_ids = {1};
  return made;
}

// What ends before a turn comes joins it: one call per receiver, in order, however many steps there were.
TEST(EngineSink, StepsThatWaitShareATurn) {
  asio::io_context io;
  FakeEngine engine;
  const auto sink = std::make_shared<EngineSink>(engine, io.get_executor());
  const auto one = std::make_shared<NotingReceiver>(io), two = std::make_shared<NotingReceiver>(io);
  sink->submit({request()}, one);
  sink->submit({request(), request()}, two);
  io.poll();
  ASSERT_EQ(one->ids, std::vector<RequestId>{1});
  ASSERT_EQ(two->ids, (std::vector<RequestId>{2, 3}));
  for (int step = 0; step < 3; ++step) {
    engine.deliver({engine.event(1, 0, {step}), engine.event(3, 0, {100 + step}), engine.event(2, 0, {200 + step})});
  }
  io.restart();
  // One turn of the sink, inside which both receivers' strands are free.
  EXPECT_EQ(io.poll(), 1u);
  EXPECT_EQ(one->calls, (std::vector<std::vector<int32_t>>{{0, 1, 2}}));
  EXPECT_EQ(two->calls, (std::vector<std::vector<int32_t>>{{100, 200, 101, 201, 102, 202}}));
  // What its receiver forgot is dropped; the other goes on.
  sink->forget({2, 3});
  engine.deliver({engine.event(2, 0, {7}), engine.event(1, 0, {8})});
  io.restart();
  io.poll();
  EXPECT_EQ(two->calls.size(), 1u);
  EXPECT_EQ(one->calls.back(), std::vector<int32_t>{8});
}

// A receiver whose strand is at work gets its events afterwards, in order, and holds up nobody else.
TEST(EngineSink, AReceiverAtWorkHoldsUpNobodyElse) {
  asio::io_context io;
  FakeEngine engine;
  const auto sink = std::make_shared<EngineSink>(engine, io.get_executor());
  const auto busy = std::make_shared<NotingReceiver>(io), idle = std::make_shared<NotingReceiver>(io);
  sink->submit({request()}, busy);
  sink->submit({request()}, idle);
  io.poll();
  io.restart();
  const auto turn_io = [&io] {
    io.restart();
    io.poll();
  };
  asio::post(busy->executor(), [&] {
    for (int step = 0; step < 2; ++step) engine.deliver({engine.event(1, 0, {step}), engine.event(2, 0, {10 + step})});
    std::thread other([&] { io.poll(); });  // the sink's turn, while this strand is held
    other.join();
    EXPECT_TRUE(busy->calls.empty());
    EXPECT_EQ(idle->calls, (std::vector<std::vector<int32_t>>{{10, 11}}));
  });
  turn_io();
  EXPECT_EQ(busy->calls, (std::vector<std::vector<int32_t>>{{0, 1}}));
}

TEST(EngineSink, OrderHoldsBetweenThreads) {
  constexpr int kSteps = 2000, kReceivers = 8;
  asio::io_context io(2);
  auto work = asio::make_work_guard(io);
  FakeEngine engine;
  SinkRegistry sinks(engine, 2);
  std::vector<std::shared_ptr<NotingReceiver>> receivers;
  std::set<EngineSink*> used;
  for (int i = 0; i < kReceivers; ++i) {
    receivers.push_back(std::make_shared<NotingReceiver>(io));
    const std::shared_ptr<EngineSink> sink = sinks.of(receivers.back()->executor());
    used.insert(sink.get());
    sink->submit({request()}, receivers.back());
  }
  EXPECT_EQ(used.size(), 2u);
  io.poll();
  io.restart();
  std::thread first([&io] { io.run(); }), second([&io] { io.run(); });
  for (int step = 0; step < kSteps; ++step) {
    std::vector<OutputEvent> events;
    for (RequestId id = 1; id <= kReceivers; ++id) events.push_back(engine.event(id, 0, {step}));
    engine.deliver(std::move(events));
  }
  for (const auto& receiver : receivers) {
    while (receiver->num_tokens < kSteps) std::this_thread::yield();
  }
  work.reset();
  first.join();
  second.join();
  for (const auto& receiver : receivers) {
    int next = 0;
    for (const std::vector<int32_t>& call : receiver->calls) {
      for (const int32_t token : call) ASSERT_EQ(token, next++);
    }
    EXPECT_EQ(next, kSteps);
    EXPECT_EQ(receiver->num_submitted, 1);
  }
}

}  // namespace
}  // namespace sextant::openai
