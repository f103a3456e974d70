// Communicators over NCCL: on the devices of this machine where there are several, else between those of the emulator.
#include "engine/device/nccl_communicator.h"

#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <barrier>
#include <cmath>
#include <functional>
#include <thread>

#if defined(SEXTANT_SIMT)
#include "kernels/simt/runtime.h"
#endif

namespace sextant {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class NcclCommunicator : public testing::Test {
 protected:
  void SetUp() override {
#if defined(SEXTANT_SIMT)
    simt::Machine machine = simt::machine_from_environment();
    machine.num_devices = 3;
    machine.memory_bytes = size_t{64} << 20;
    simt::set_machine(machine);
#else
    int visible = 0;
    if (cudaGetDeviceCount(&visible) != cudaSuccess || visible < 2)
      GTEST_SKIP() << "needs 2 GPUs, this machine shows " << visible;
    num_ranks_ = std::min(visible, 3);
#endif
    if (const Result<NcclId> id = make_nccl_id(); !id.ok()) GTEST_SKIP() << id.status().message();
  }

  struct Rank {
    Communicator& group;
    cudaStream_t stream;
    void* device;  // 1 MiB

    void put(const std::vector<float>& values) const {
      ASSERT_EQ(cudaMemcpy(device, values.data(), values.size() * 4, cudaMemcpyHostToDevice), cudaSuccess);
    }
    std::vector<float> take(size_t count) const {
      std::vector<float> values(count);
      EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      EXPECT_EQ(cudaMemcpy(values.data(), device, count * 4, cudaMemcpyDeviceToHost), cudaSuccess);
      return values;
    }
    float* at(size_t i) const { return static_cast<float*>(device) + i; }
  };
  void on_every_rank(const std::function<void(Rank&)>& body) const {
    const Result<NcclId> id = make_nccl_id();
    ASSERT_TRUE(id.ok());
    const auto ledger = make_nccl_ledger(num_ranks_);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < num_ranks_; ++rank) {
      threads.emplace_back([&, rank] {
        EXPECT_EQ(cudaSetDevice(rank), cudaSuccess);
        Result<std::unique_ptr<Communicator>> made = make_nccl_communicator(*id, rank, num_ranks_, ledger);
        ASSERT_TRUE(made.ok()) << made.status().message();
        Rank self{**made, nullptr, nullptr};
        EXPECT_EQ(cudaStreamCreateWithFlags(&self.stream, cudaStreamNonBlocking), cudaSuccess);
        EXPECT_EQ(cudaMalloc(&self.device, 1 << 20), cudaSuccess);
        body(self);
        cudaStreamSynchronize(self.stream);
        made->reset();
        cudaFree(self.device);
        cudaStreamDestroy(self.stream);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  int num_ranks_ = 3;
};

TEST_F(NcclCommunicator, EveryKindMovesWhatItSays) {
  on_every_rank([&](Rank& self) {
    const auto r = static_cast<float>(self.group.rank());
    const int n = num_ranks_;
    EXPECT_THAT(self.group.description(), HasSubstr("NCCL 2."));
    self.put({r, 10 + r});
    ASSERT_TRUE(self.group.all_reduce(self.device, 2, DType::kFloat32, self.stream).ok());
    const float sum = static_cast<float>(n * (n - 1) / 2);
    EXPECT_EQ(self.take(2), (std::vector<float>{sum, static_cast<float>(10 * n) + sum}));
    self.put({r, 10 + r});
    ASSERT_TRUE(self.group.all_gather(self.device, self.at(16), 2, DType::kFloat32, self.stream).ok());
    ASSERT_TRUE(self.group.reduce_scatter(self.at(16), self.at(4), 2, DType::kFloat32, self.stream).ok());
    const std::vector<float> seen = self.take(16 + static_cast<size_t>(2 * n));
    for (int other = 0; other < n; ++other)
      EXPECT_EQ(seen[16 + static_cast<size_t>(2 * other)], static_cast<float>(other));
    EXPECT_EQ(seen[4], static_cast<float>(n) * r);
    // Parts of other sizes, the last rank's empty.
    std::vector<int64_t> counts = {2, 1};
    counts.resize(static_cast<size_t>(n), 0);
    ASSERT_TRUE(self.group.gather(self.device, self.at(32), counts, DType::kFloat32, 0, self.stream).ok());
    const std::vector<float> gathered = self.take(35);
    if (self.group.rank() == 0) {
      EXPECT_EQ(gathered[33], 10);
      EXPECT_EQ(gathered[34], 1);
    }
    ASSERT_TRUE(self.group.broadcast(self.device, 2, DType::kFloat32, 1, self.stream).ok());
    EXPECT_EQ(self.take(2), (std::vector<float>{1, 11}));
    if (self.group.rank() == 0) {
      ASSERT_TRUE(self.group.send(self.at(33), 1, DType::kFloat32, 1, self.stream).ok());
    }
    if (self.group.rank() == 1) {
      ASSERT_TRUE(self.group.receive(self.device, 1, DType::kFloat32, 0, self.stream).ok());
      EXPECT_EQ(self.take(1)[0], 10);
    }
    EXPECT_TRUE(self.group.status().ok());
    EXPECT_EQ(self.group.missing(), "");
    EXPECT_EQ(self.group.counters().of(CollectiveKind::kGather).bytes, 12u);
  });
}

TEST_F(NcclCommunicator, OtherSizesTypesAndKindsAreNamedBeforeTheyAreEnqueued) {
  struct Case {
    std::function<Status(Rank&)> call;
    const char* said;
  };
  const Case cases[] = {
      {[](Rank& s) { return s.group.all_reduce(s.device, s.group.rank() == 1 ? 3 : 4, DType::kFloat32, s.stream); },
       "rank 1 calls all_reduce of 3 float32"},
      {[](Rank& s) {
         return s.group.all_reduce(s.device, 4, s.group.rank() == 1 ? DType::kBFloat16 : DType::kFloat32, s.stream);
       },
       "rank 1 calls all_reduce of 4 bfloat16"},
      {[](Rank& s) {
         return s.group.rank() == 1 ? s.group.broadcast(s.device, 4, DType::kFloat32, 0, s.stream)
                                    : s.group.all_reduce(s.device, 4, DType::kFloat32, s.stream);
       },
       "rank 1 calls broadcast of 4 float32 from rank 0"},
  };
  for (const Case& each : cases) {
    std::barrier called(num_ranks_);
    on_every_rank([&](Rank& self) {
      EXPECT_TRUE(self.group.all_reduce(self.device, 4, DType::kFloat32, self.stream).ok());
      called.arrive_and_wait();
      Status status = each.call(self);
      called.arrive_and_wait();
      // Ranks that came before the disagreement have enqueued theirs: the group knows.
      if (status.ok()) status = self.group.status();
      EXPECT_EQ(status.code(), StatusCode::kDeviceError);
      EXPECT_THAT(status.message(), AllOf(HasSubstr("collective 1: rank "), HasSubstr(each.said)));
      self.group.abort("the test ends");  // what is enqueued would wait for ever
      EXPECT_FALSE(self.group.all_reduce(self.device, 4, DType::kFloat32, self.stream).ok());
    });
  }
}

TEST_F(NcclCommunicator, ARankThatDoesNotComeIsNamed) {
  std::barrier enqueued(num_ranks_);
  on_every_rank([&](Rank& self) {
    EXPECT_TRUE(self.group.all_reduce(self.device, 4, DType::kFloat32, self.stream).ok());
    if (self.group.rank() != 1) {
      EXPECT_TRUE(self.group.all_reduce(self.device, 8, DType::kFloat32, self.stream).ok());
    }
    enqueued.arrive_and_wait();
    EXPECT_THAT(self.group.missing(),
                AllOf(HasSubstr("collective 1 (all_reduce of 8 float32): rank 1 of "), HasSubstr("did not arrive")));
    enqueued.arrive_and_wait();
    self.group.abort("rank 1 is missing");  // lets the others go
    EXPECT_EQ(self.group.status().message(), "rank 1 is missing");
  });
}

}  // namespace
}  // namespace sextant
