// Communicators between threads: what they compute, and that what does not fit is named on every rank.
#include "engine/device/thread_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <thread>

#include "kernels/ref/reference.h"

namespace sextant {
namespace {

using testing::AllOf;
using testing::HasSubstr;

using Ranks = std::vector<std::unique_ptr<Communicator>>;

void on_every_rank(Ranks& ranks, const std::function<void(Communicator&)>& body) {
  std::vector<std::thread> threads;
  for (const auto& rank : ranks) threads.emplace_back([&body, &rank] { body(*rank); });
  for (std::thread& thread : threads) thread.join();
}

std::vector<float> numbers(int rank, size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), static_cast<float>(1000 * rank));
  return values;
}

class ThreadCommunicatorOfSize : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, ThreadCommunicatorOfSize, testing::Values(1, 2, 3, 5));

TEST_P(ThreadCommunicatorOfSize, EveryKindAtManySizes) {
  const int size = GetParam();
  Ranks ranks = make_thread_communicators(size, 0);
  on_every_rank(ranks, [&](Communicator& self) {
    for (const int64_t count : {0, 1, 2, 31, 33, 513, 2000}) {
      const auto n = static_cast<size_t>(count);
      const auto all = static_cast<size_t>(size) * n;
      std::vector<float> sum = numbers(self.rank(), n);
      ASSERT_TRUE(self.all_reduce(sum.data(), count, DType::kFloat32).ok());
      for (size_t i = 0; i < n; ++i) {
        ASSERT_EQ(sum[i], static_cast<float>(1000 * size * (size - 1) / 2) + static_cast<float>(size * i));
      }
      std::vector<float> gathered(all, NAN);
      ASSERT_TRUE(self.all_gather(numbers(self.rank(), n).data(), gathered.data(), count, DType::kFloat32).ok());
      for (int r = 0; r < size && n > 0; ++r)
        ASSERT_EQ(gathered[(static_cast<size_t>(r) + 1) * n - 1], numbers(r, n).back());
      // In place: each rank's part is at its place already.
      std::vector<float> part(n, NAN);
      ASSERT_TRUE(self.reduce_scatter(gathered.data(), part.data(), count, DType::kFloat32).ok());
      for (size_t i = 0; i < n; ++i) {
        ASSERT_EQ(part[i], static_cast<float>(size) * (static_cast<float>(1000 * self.rank()) + static_cast<float>(i)));
      }
      const int root = size - 1;
      std::vector<int64_t> counts;
      for (int r = 0; r < size; ++r) counts.push_back(count + r);
      std::vector<float> at_root(self.rank() == root ? all + static_cast<size_t>(size * (size - 1) / 2) : 0);
      const std::vector<float> mine = numbers(self.rank(), n + static_cast<size_t>(self.rank()));
      ASSERT_TRUE(self.gather(mine.data(), at_root.data(), counts, DType::kFloat32, root).ok());
      size_t at = 0;
      for (int r = 0; r < size && self.rank() == root; ++r) {
        for (const float x : numbers(r, n + static_cast<size_t>(r))) ASSERT_EQ(at_root[at++], x);
      }
      std::vector<float> told = numbers(self.rank(), n);
      ASSERT_TRUE(self.broadcast(told.data(), count, DType::kFloat32, root).ok());
      ASSERT_EQ(told, numbers(root, n));
    }
  });
  EXPECT_EQ(ranks[0]->number(), 35u);
}

TEST(ThreadCommunicator, SixteenBitSumsAreRoundedOnceAndInOrder) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    Ranks ranks = make_thread_communicators(3, 0);
    // The least step at `large` is 2: two ones are half of it each, together one.
    const float large = dtype == DType::kBFloat16 ? 256.0f : 2048.0f;
    on_every_rank(ranks, [&](Communicator& self) {
      const float x = self.rank() == 0 ? large : 1.0f;
      uint16_t bits = dtype == DType::kBFloat16 ? kernels::ref::bf16_of_f32(x) : kernels::ref::f16_of_f32(x);
      ASSERT_TRUE(self.all_reduce(&bits, 1, dtype).ok());
      EXPECT_EQ(dtype == DType::kBFloat16 ? kernels::ref::f32_of_bf16(bits) : kernels::ref::f32_of_f16(bits),
                large + 2);
    });
  }
  Ranks ranks = make_thread_communicators(3, 0);
  on_every_rank(ranks, [&](Communicator& self) {
    // (1e8 + 1) - 1e8 is 0 in fp32, (1e8 - 1e8) + 1 is not: the order shows.
    float x = std::array{1e8f, 1.0f, -1e8f}[static_cast<size_t>(self.rank())];
    ASSERT_TRUE(self.all_reduce(&x, 1, DType::kFloat32).ok());
    EXPECT_EQ(x, 0.0f);
  });
}

TEST(ThreadCommunicator, SendsAndReceivesMeetInOrder) {
  Ranks ranks = make_thread_communicators(3, 0);
  on_every_rank(ranks, [](Communicator& self) {
    // Round the ring, twice: a send does not wait for other pairs.
    for (int round = 0; round < 2; ++round) {
      float token = static_cast<float>(round);
      if (self.rank() > 0) {
        ASSERT_TRUE(self.receive(&token, 1, DType::kFloat32, self.rank() - 1).ok());
      }
      token += 10;
      ASSERT_TRUE(self.send(&token, 1, DType::kFloat32, (self.rank() + 1) % 3).ok());
      if (self.rank() == 0) {
        ASSERT_TRUE(self.receive(&token, 1, DType::kFloat32, 2).ok());
        EXPECT_EQ(token, 30.0f + static_cast<float>(round));
      }
    }
  });
  EXPECT_EQ(ranks[1]->number(), 0u);
  EXPECT_EQ(ranks[1]->counters().of(CollectiveKind::kSend).bytes, 8u);
  EXPECT_EQ(ranks[1]->counters().of(CollectiveKind::kReceive).calls, 2u);
}

TEST(ThreadCommunicator, DisagreementsAreNamedOnEveryRank) {
  struct Case {
    std::function<Status(Communicator&, void*)> call;
    std::vector<const char*> said;
  };
  const Case cases[] = {
      {[](Communicator& c, void* p) { return c.all_reduce(p, c.rank() == 1 ? 3 : 4, DType::kFloat32); },
       {"all_reduce of 3 float32", "all_reduce of 4 float32"}},
      {[](Communicator& c, void* p) { return c.all_reduce(p, 4, c.rank() == 1 ? DType::kBFloat16 : DType::kFloat32); },
       {"all_reduce of 4 bfloat16", "all_reduce of 4 float32"}},
      {[](Communicator& c, void* p) {
         return c.rank() == 1 ? c.broadcast(p, 4, DType::kFloat32, 0) : c.all_reduce(p, 4, DType::kFloat32);
       },
       {"broadcast of 4 float32 from rank 0", "all_reduce of 4 float32"}},
      {[](Communicator& c, void* p) { return c.broadcast(p, 4, DType::kFloat32, c.rank() == 1 ? 1 : 0); },
       {"from rank 0", "from rank 1"}},
  };
  for (const Case& each : cases) {
    Ranks ranks = make_thread_communicators(3, 0);
    on_every_rank(ranks, [&](Communicator& self) {
      float data[4] = {};
      ASSERT_TRUE(self.all_reduce(data, 4, DType::kFloat32).ok());
      const Status status = each.call(self, data);
      EXPECT_EQ(status.code(), StatusCode::kDeviceError);
      EXPECT_THAT(status.message(), AllOf(HasSubstr("collective 1: rank "), HasSubstr(each.said[0]),
                                          HasSubstr(each.said[1]), HasSubstr("rank 1 calls ")));
      // The group has failed for good.
      EXPECT_EQ(self.all_reduce(data, 4, DType::kFloat32).message(), status.message());
      EXPECT_EQ(self.status().message(), status.message());
    });
  }
}

TEST(ThreadCommunicator, AMissingRankIsNamed) {
  Ranks ranks = make_thread_communicators(3, 0.05);
  on_every_rank(ranks, [](Communicator& self) {
    float data[4] = {};
    if (self.rank() == 1) return;
    const Status status = self.all_reduce(data, 4, DType::kFloat32);
    EXPECT_EQ(status.code(), StatusCode::kDeviceError);
    // Where the machine is busy a second one may be late too.
    EXPECT_THAT(status.message(), AllOf(HasSubstr("collective 0 (all_reduce of 4 float32): rank"), HasSubstr("1"),
                                        HasSubstr("of 3 did not arrive within 0.05 s")));
  });
  Ranks pair = make_thread_communicators(2, 0.05);
  float x = 0;
  EXPECT_THAT(pair[0]->receive(&x, 1, DType::kFloat32, 1).message(),
              HasSubstr("receive of 1 float32 from rank 1 by rank 0: rank 1 did not arrive within 0.05 s"));
  Ranks senders = make_thread_communicators(2, 0.05);
  EXPECT_THAT(senders[0]->send(&x, 1, DType::kFloat32, 1).message(), HasSubstr("rank 1 did not arrive"));
}

TEST(ThreadCommunicator, SendAndReceiveOfAnotherSizeAreNamed) {
  Ranks ranks = make_thread_communicators(2, 0);
  on_every_rank(ranks, [](Communicator& self) {
    float data[4] = {};
    const Status status =
        self.rank() == 0 ? self.send(data, 4, DType::kFloat32, 1) : self.receive(data, 3, DType::kFloat32, 0);
    EXPECT_THAT(status.message(), AllOf(HasSubstr("rank 0 calls send of 4 float32 to rank 1"),
                                        HasSubstr("rank 1 calls receive of 3 float32 from rank 0")));
  });
}

TEST(ThreadCommunicator, AnAbortEndsThoseThatWaitAndKeepsItsReason) {
  Ranks ranks = make_thread_communicators(3, 0);
  on_every_rank(ranks, [&](Communicator& self) {
    float data = 0;
    if (self.rank() == 2) {
      while (ranks[0]->number() == 0 || ranks[1]->number() == 0) std::this_thread::yield();
      self.abort("rank 2 has no memory left");
      self.abort("a later reason");
    }
    EXPECT_EQ(self.all_reduce(&data, 1, DType::kFloat32).message(), "rank 2 has no memory left");
  });
}

TEST(ThreadCommunicator, CountsPayloadByKindAndWhatARecordReplays) {
  Ranks ranks = make_thread_communicators(2, 0);
  on_every_rank(ranks, [](Communicator& self) {
    std::vector<float> data(8);
    ASSERT_TRUE(self.all_reduce(data.data(), 4, DType::kFloat32).ok());
    ASSERT_TRUE(self.all_gather(data.data(), data.data() + 4, 2, DType::kFloat32).ok());
    self.begin_recording();
    ASSERT_TRUE(self.all_reduce(data.data(), 3, DType::kFloat32).ok());
    const CollectiveCounters recorded = self.end_recording();
    EXPECT_EQ(self.counters().of(CollectiveKind::kAllReduce).bytes, 16u);
    self.replayed(recorded);
    self.replayed(recorded);
  });
  const CollectiveCounters counters = ranks[1]->counters();
  EXPECT_EQ(counters.of(CollectiveKind::kAllReduce).bytes, 16u + 2 * 12u);
  EXPECT_EQ(counters.of(CollectiveKind::kAllReduce).calls, 3u);
  EXPECT_EQ(counters.of(CollectiveKind::kAllGather).bytes, 16u);
  EXPECT_EQ(counters.of(CollectiveKind::kBroadcast).calls, 0u);
}

TEST(NameRanks, ReadsAsASentence) {
  EXPECT_EQ(name_ranks(std::vector{2}), "rank 2");
  EXPECT_EQ(name_ranks(std::vector{0, 2}), "ranks 0 and 2");
  EXPECT_EQ(name_ranks(std::vector{0, 2, 3}), "ranks 0, 2 and 3");
}

}  // namespace
}  // namespace sextant
