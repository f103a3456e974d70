// Communicators over loopback TCP, each rank a thread with a meeting point of its own: the same bits as threads give, and what
// does not fit is named.
#include "engine/device/tcp_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <functional>
#include <future>
#include <random>
#include <thread>

#include "engine/device/thread_communicator.h"

namespace sextant {
namespace {

using testing::HasSubstr;

using Ranks = std::vector<std::unique_ptr<Communicator>>;

const std::string kToken = "0123456789abcdef";

struct TcpRanks {
  std::vector<std::unique_ptr<TcpMeetingPoint>> points;
  Ranks ranks;
};

TcpRanks make_tcp(int size, double timeout_s = 0) {
  TcpRanks made;
  std::vector<TcpMeetingPoint::Address> addresses;
  for (int rank = 0; rank < size; ++rank) {
    auto point = TcpMeetingPoint::listen("127.0.0.1", kToken);
    EXPECT_TRUE(point.ok()) << point.status().message();
    addresses.push_back({"127.0.0.1", (*point)->port()});
    made.points.push_back(std::move(*point));
  }
  std::vector<std::future<Result<std::unique_ptr<Communicator>>>> joining;
  for (int rank = 0; rank < size; ++rank) {
    joining.push_back(std::async(std::launch::async, [&, rank] {
      return made.points[static_cast<size_t>(rank)]->join(3, rank, addresses, deadline_in(60), timeout_s);
    }));
  }
  for (auto& each : joining) {
    Result<std::unique_ptr<Communicator>> joined = each.get();
    EXPECT_TRUE(joined.ok()) << joined.status().message();
    made.ranks.push_back(std::move(*joined));
  }
  return made;
}

void on_every_rank(Ranks& ranks, const std::function<void(Communicator&)>& body) {
  std::vector<std::thread> threads;
  for (const auto& rank : ranks) threads.emplace_back([&body, &rank] { body(*rank); });
  for (std::thread& thread : threads) thread.join();
}

// Everything that one rank computes, as bytes: all kinds, at sizes around the borders of the algorithms.
std::vector<std::byte> all_kinds(Communicator& self) {
  std::vector<std::byte> results;
  const auto keep = [&](const auto& values) {
    const auto bytes = std::as_bytes(std::span(values));
    results.insert(results.end(), bytes.begin(), bytes.end());
  };
  std::mt19937 random(static_cast<unsigned>(self.rank()) + 1);
  std::normal_distribution<float> normal;
  const auto draw = [&](int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(random);
    return values;
  };
  const int size = self.size();
  for (const int64_t count : {0, 1, 31, 576, 16384, 16385, 50000}) {
    std::vector<float> sum = draw(count);
    EXPECT_TRUE(self.all_reduce(sum.data(), count, DType::kFloat32).ok());
    keep(sum);
    std::vector<uint16_t> half(static_cast<size_t>(count));
    for (uint16_t& value : half) value = static_cast<uint16_t>(0x3f00 + random() % 256);
    EXPECT_TRUE(self.all_reduce(half.data(), count, DType::kBFloat16).ok());
    keep(half);
    std::vector<float> gathered(static_cast<size_t>(count * size));
    EXPECT_TRUE(self.all_gather(draw(count).data(), gathered.data(), count, DType::kFloat32).ok());
    keep(gathered);
    std::vector<float> part(static_cast<size_t>(count));
    EXPECT_TRUE(self.reduce_scatter(draw(count * size).data(), part.data(), count, DType::kFloat32).ok());
    keep(part);
    std::vector<int64_t> counts;
    int64_t total = 0;
    for (int rank = 0; rank < size; ++rank) total += counts.emplace_back(count + rank);
    std::vector<float> at_root(self.rank() == size - 1 ? static_cast<size_t>(total) : 0);
    EXPECT_TRUE(self.gather(draw(count + self.rank()).data(), at_root.data(), counts, DType::kFloat32, size - 1).ok());
    keep(at_root);
    std::vector<float> told = draw(count);
    EXPECT_TRUE(self.broadcast(told.data(), count, DType::kFloat32, size - 1).ok());
    keep(told);
    // Round the ring, both ways at once where sends need not wait.
    std::vector<float> passed = draw(count);
    if (size > 1) {
      const int next = (self.rank() + 1) % size;
      const int previous = (self.rank() + size - 1) % size;
      if (self.rank() == 0) {
        EXPECT_TRUE(self.send(passed.data(), count, DType::kFloat32, next).ok());
      }
      std::vector<float> received(passed.size());
      EXPECT_TRUE(self.receive(received.data(), count, DType::kFloat32, previous).ok());
      if (self.rank() != 0) {
        EXPECT_TRUE(self.send(passed.data(), count, DType::kFloat32, next).ok());
      }
      keep(received);
    }
  }
  return results;
}

class TcpCommunicatorOfSize : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, TcpCommunicatorOfSize, testing::Values(1, 2, 3, 5));

TEST_P(TcpCommunicatorOfSize, GivesTheBitsThatThreadsGive) {
  TcpRanks tcp = make_tcp(GetParam());
  Ranks threads = make_thread_communicators(GetParam(), 0);
  std::vector<std::vector<std::byte>> expected(threads.size()), actual(threads.size());
  on_every_rank(threads, [&](Communicator& self) { expected[static_cast<size_t>(self.rank())] = all_kinds(self); });
  on_every_rank(tcp.ranks, [&](Communicator& self) { actual[static_cast<size_t>(self.rank())] = all_kinds(self); });
  for (size_t rank = 0; rank < expected.size(); ++rank) EXPECT_EQ(expected[rank], actual[rank]) << rank;
  for (int kind = 0; kind < kNumCollectiveKinds; ++kind) {
    const auto which = static_cast<CollectiveKind>(kind);
    EXPECT_EQ(tcp.ranks[0]->counters().of(which).bytes, threads[0]->counters().of(which).bytes);
  }
}

TEST(TcpCommunicator, CallsThatDoNotFitAreNamed) {
  const auto messages = [](const std::function<Status(Communicator&)>& call) {
    TcpRanks tcp = make_tcp(2);
    std::vector<std::string> all(2);
    on_every_rank(tcp.ranks, [&](Communicator& self) { all[static_cast<size_t>(self.rank())] = call(self).message(); });
    // A root that only sends may be done before the other sees what it was.
    EXPECT_FALSE(tcp.ranks[0]->status().ok() && tcp.ranks[1]->status().ok());
    return all[0] + " | " + all[1];
  };
  std::vector<float> values[2] = {std::vector<float>(100), std::vector<float>(100)};
  const auto data = [&](Communicator& self) { return values[self.rank()].data(); };
  EXPECT_THAT(
      messages([&](Communicator& self) { return self.all_reduce(data(self), 10 + self.rank(), DType::kFloat32); }),
      testing::AllOf(HasSubstr("all_reduce of 10 float32"), HasSubstr("all_reduce of 11 float32")));
  EXPECT_THAT(messages([&](Communicator& self) {
                return self.rank() == 0 ? self.all_reduce(data(self), 10, DType::kFloat32)
                                        : self.broadcast(data(self), 10, DType::kFloat32, 1);
              }),
              testing::AllOf(HasSubstr("all_reduce of 10 float32"), HasSubstr("broadcast of 10 float32 from rank 1")));
  EXPECT_THAT(messages([&](Communicator& self) {
                return self.all_reduce(data(self), 10, self.rank() == 0 ? DType::kFloat32 : DType::kBFloat16);
              }),
              testing::AllOf(HasSubstr("float32"), HasSubstr("bfloat16")));
}

TEST(TcpCommunicator, ARankThatIsGoneIsNamed) {
  TcpRanks tcp = make_tcp(3);
  tcp.ranks[1].reset();
  float value = 0;
  EXPECT_THAT(tcp.ranks[0]->all_reduce(&value, 1, DType::kFloat32).message(), HasSubstr("rank 1 of the group is gone"));
  EXPECT_FALSE(tcp.ranks[0]->all_reduce(&value, 1, DType::kFloat32).ok()) << "for good";
}

TEST(TcpCommunicator, ARankThatDoesNotArriveIsNamedAtTheTimeOut) {
  TcpRanks tcp = make_tcp(3, 0.2);
  std::vector<float> values(3);
  std::thread other([&] { static_cast<void>(tcp.ranks[2]->all_reduce(&values[2], 1, DType::kFloat32)); });
  const std::string message = tcp.ranks[0]->all_reduce(&values[0], 1, DType::kFloat32).message();
  other.join();
  EXPECT_THAT(message, testing::AnyOf(HasSubstr("rank 1 of 3 did not arrive within 0.2 s"),
                                      HasSubstr("rank 2 of the group is gone")));
}

TEST(TcpCommunicator, AbortWakesWhoWaitsAndSaysWhy) {
  TcpRanks tcp = make_tcp(2);
  float value = 0;
  std::future<Status> waiting =
      std::async(std::launch::async, [&] { return tcp.ranks[0]->all_reduce(&value, 1, DType::kFloat32); });
  while (!tcp.ranks[0]->inside()) std::this_thread::yield();
  EXPECT_EQ(tcp.ranks[0]->inside()->call.describe(), "all_reduce of 1 float32");
  tcp.ranks[0]->abort("node 1 is missing");
  EXPECT_EQ(waiting.get().message(), "node 1 is missing");
  EXPECT_FALSE(tcp.ranks[0]->inside());
  EXPECT_GT(tcp.ranks[0]->inside_s(), 0);
}

TEST(TcpMeetingPoint, TakesOnlyWhoKnowsTheToken) {
  auto point = TcpMeetingPoint::listen("127.0.0.1", kToken);
  ASSERT_TRUE(point.ok());
  const std::vector<TcpMeetingPoint::Address> addresses(2, {"127.0.0.1", (*point)->port()});
  auto stranger = TcpMeetingPoint::listen("127.0.0.1", "abcdef0123456789");
  ASSERT_TRUE(stranger.ok());
  // A stranger's rank 1, garbage, and silence; then the real one.
  const auto posing = (*stranger)->join(3, 1, addresses, deadline_in(60), 0.1);
  Result<TcpSocket> garbage = TcpSocket::connect("127.0.0.1", (*point)->port(), deadline_in(60));
  ASSERT_TRUE(garbage.ok());
  static_cast<void>(garbage->send_all(std::vector<std::byte>(100000, std::byte{0xff}), deadline_in(60)));
  Result<TcpSocket> silent = TcpSocket::connect("127.0.0.1", (*point)->port(), deadline_in(60));
  ASSERT_TRUE(silent.ok());
  auto real = std::async(std::launch::async, [&] { return (*point)->join(3, 1, addresses, deadline_in(60), 0); });
  auto first = (*point)->join(3, 0, addresses, deadline_in(60), 0);
  auto second = real.get();
  ASSERT_TRUE(first.ok() && second.ok());
  float one = 1, two = 2;
  std::thread other([&] { static_cast<void>((*second)->all_reduce(&two, 1, DType::kFloat32)); });
  EXPECT_TRUE((*first)->all_reduce(&one, 1, DType::kFloat32).ok());
  other.join();
  EXPECT_EQ(one, 3.0f);
  silent->shutdown();
}

TEST(TcpMeetingPoint, ARankThatDoesNotConnectIsNamed) {
  auto point = TcpMeetingPoint::listen("127.0.0.1", kToken);
  const std::vector<TcpMeetingPoint::Address> addresses(2, {"127.0.0.1", (*point)->port()});
  EXPECT_THAT((*point)->join(0, 0, addresses, deadline_in(0.1), 0).status().message(),
              HasSubstr("rank 1 of the group did not connect"));
}

}  // namespace
}  // namespace sextant
