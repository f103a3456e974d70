// The shadow of NCCL: collectives between threads, groups, and the disagreements that it names.
#include <nccl.h>

#include <cuda_bf16.h>

#include <barrier>
#include <cstdlib>
#include <numeric>
#include <thread>

#include "tests/kernels/simt/emulator_test_support.h"

namespace sextant::simt {
namespace {

constexpr int kRanks = 3;

class Nccl : public EmulatorTest {
 protected:
  Nccl() { restart(profile_sm_80(), kRanks); }

  struct Rank {
    int id;
    ncclComm_t comm;
    cudaStream_t stream;
  };
  // One thread per rank, each with its device, communicator and stream.
  static void on_every_rank(const std::function<void(Rank&)>& body) {
    ncclUniqueId id;
    ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < kRanks; ++rank) {
      threads.emplace_back([&, rank] {
        Rank self{rank, nullptr, nullptr};
        EXPECT_EQ(cudaSetDevice(rank), cudaSuccess);
        ASSERT_EQ(ncclCommInitRank(&self.comm, kRanks, id, rank), ncclSuccess);
        EXPECT_EQ(cudaStreamCreateWithFlags(&self.stream, cudaStreamNonBlocking), cudaSuccess);
        body(self);
        EXPECT_EQ(ncclCommDestroy(self.comm), ncclSuccess);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  static std::vector<float> numbers(int rank, size_t count) {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(100 * rank) + static_cast<float>(i);
    return values;
  }
};

TEST_F(Nccl, CollectivesMoveAndSum) {
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{7}}) {
    set_seed(seed);
    on_every_rank([](Rank& self) {
      float* in = device_array(numbers(self.id, 6));
      float* out = device_array(std::vector<float>(18));
      ASSERT_EQ(ncclAllReduce(in, out, 6, ncclFloat32, ncclSum, self.comm, self.stream), ncclSuccess);
      ASSERT_EQ(cudaStreamSynchronize(self.stream), cudaSuccess);
      EXPECT_EQ(host_copy(out, 6), (std::vector<float>{300, 303, 306, 309, 312, 315}));
      ASSERT_EQ(ncclAllReduce(in, out, 6, ncclFloat32, ncclMax, self.comm, self.stream), ncclSuccess);
      ASSERT_EQ(ncclReduceScatter(in, out + 6, 2, ncclFloat32, ncclSum, self.comm, self.stream), ncclSuccess);
      ASSERT_EQ(cudaStreamSynchronize(self.stream), cudaSuccess);
      EXPECT_EQ(host_copy(out, 6), numbers(2, 6));
      const float first = 300.0f + 6.0f * static_cast<float>(self.id);
      EXPECT_EQ(host_copy(out + 6, 2), (std::vector<float>{first, first + 3}));
      ASSERT_EQ(ncclAllGather(in, out, 6, ncclFloat32, self.comm, self.stream), ncclSuccess);
      ASSERT_EQ(cudaStreamSynchronize(self.stream), cudaSuccess);
      EXPECT_EQ(host_copy(out, 18)[6 + 5], 105);
      EXPECT_EQ(host_copy(out, 18)[12], 200);
      ASSERT_EQ(ncclBroadcast(in, in, 6, ncclFloat32, 1, self.comm, self.stream), ncclSuccess);
      ASSERT_EQ(cudaStreamSynchronize(self.stream), cudaSuccess);
      EXPECT_EQ(host_copy(in, 6), numbers(1, 6));
    });
  }
}

TEST_F(Nccl, SixteenBitSumsAreRoundedOnce) {
  on_every_rank([](Rank& self) {
    // 256 + 1 + 1: each half a place below bf16's step of 2, together one.
    __nv_bfloat16* x = device_array(std::vector<__nv_bfloat16>{__float2bfloat16(self.id == 0 ? 256.0f : 1.0f)});
    ASSERT_EQ(ncclAllReduce(x, x, 1, ncclBfloat16, ncclSum, self.comm, self.stream), ncclSuccess);
    ASSERT_EQ(cudaStreamSynchronize(self.stream), cudaSuccess);
    EXPECT_EQ(__bfloat162float(host_copy(x, 1)[0]), 258.0f);
  });
}

TEST_F(Nccl, SendsAndReceivesInAGroupPassEachOther) {
  for (const uint64_t seed : {uint64_t{0}, uint64_t{5}}) {
    set_seed(seed);
    on_every_rank([](Rank& self) {
      float* in = device_array(numbers(self.id, 4));
      float* out = device_array(std::vector<float>(4));
      ASSERT_EQ(ncclGroupStart(), ncclSuccess);
      ASSERT_EQ(ncclSend(in, 4, ncclFloat32, (self.id + 1) % kRanks, self.comm, self.stream), ncclSuccess);
      ASSERT_EQ(ncclRecv(out, 4, ncclFloat32, (self.id + kRanks - 1) % kRanks, self.comm, self.stream), ncclSuccess);
      ASSERT_EQ(ncclGroupEnd(), ncclSuccess);
      ASSERT_EQ(cudaStreamSynchronize(self.stream), cudaSuccess);
      EXPECT_EQ(host_copy(out, 4), numbers((self.id + kRanks - 1) % kRanks, 4));
    });
  }
}

TEST_F(Nccl, OneThreadMayDriveAllRanksInGroups) {
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  ncclComm_t comms[kRanks] = {};
  float* data[kRanks] = {};
  ASSERT_EQ(ncclGroupStart(), ncclSuccess);
  for (int rank = 0; rank < kRanks; ++rank) {
    ASSERT_EQ(cudaSetDevice(rank), cudaSuccess);
    data[rank] = device_array(numbers(rank, 2));
    ASSERT_EQ(ncclCommInitRank(&comms[rank], kRanks, id, rank), ncclSuccess);
  }
  ASSERT_EQ(ncclGroupEnd(), ncclSuccess);
  ASSERT_EQ(ncclGroupStart(), ncclSuccess);
  for (int rank = 0; rank < kRanks; ++rank) {
    ASSERT_EQ(ncclAllReduce(data[rank], data[rank], 2, ncclFloat32, ncclSum, comms[rank], nullptr), ncclSuccess);
  }
  ASSERT_EQ(ncclGroupEnd(), ncclSuccess);
  for (int rank = 0; rank < kRanks; ++rank) {
    EXPECT_EQ(host_copy(data[rank], 2), (std::vector<float>{300, 303}));
    EXPECT_EQ(ncclCommDestroy(comms[rank]), ncclSuccess);
  }
}

TEST_F(Nccl, ACollectiveInsideAGraphMeetsInEveryReplay) {
  on_every_rank([](Rank& self) {
    int* x = device_array(std::vector<int>{1});
    ASSERT_EQ(cudaStreamBeginCapture(self.stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    ASSERT_EQ(ncclAllReduce(x, x, 1, ncclInt32, ncclSum, self.comm, self.stream), ncclSuccess);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    ASSERT_EQ(cudaStreamEndCapture(self.stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&exec, graph), cudaSuccess);
    for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaGraphLaunch(exec, self.stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(self.stream), cudaSuccess);
    EXPECT_EQ(host_copy(x, 1)[0], 27);
  });
}

TEST_F(Nccl, DisagreementsAreNamed) {
  struct Disagreement {
    std::function<ncclResult_t(Rank&, void*)> call;
    const char* said;
  };
  const Disagreement all[] = {
      {[](Rank& self, void* p) {
         return ncclAllReduce(p, p, self.id == 1 ? 3 : 4, ncclFloat32, ncclSum, self.comm, self.stream);
       },
       "AllReduce of 3 float32, sum on rank 1"},
      {[](Rank& self, void* p) {
         return ncclAllReduce(p, p, 4, self.id == 1 ? ncclInt32 : ncclFloat32, ncclSum, self.comm, self.stream);
       },
       "AllReduce of 4 int32, sum on rank 1"},
      {[](Rank& self, void* p) {
         return self.id == 1 ? ncclBroadcast(p, p, 4, ncclFloat32, 0, self.comm, self.stream)
                             : ncclAllReduce(p, p, 4, ncclFloat32, ncclSum, self.comm, self.stream);
       },
       "Broadcast of 4 float32 from rank 0 on rank 1"},
  };
  for (const Disagreement& disagreement : all) {
    restart(profile_sm_80(), kRanks);
    std::barrier ready(kRanks);
    on_every_rank([&](Rank& self) {
      float* p = device_array(numbers(self.id, 4));
      ready.arrive_and_wait();
      // The first of the ranks may have failed all devices before another calls.
      const ncclResult_t called = disagreement.call(self, p);
      EXPECT_TRUE(called == ncclSuccess || called == ncclUnhandledCudaError);
      EXPECT_EQ(cudaStreamSynchronize(self.stream), cudaErrorLaunchFailure);
      ncclResult_t error = ncclSuccess;
      EXPECT_EQ(ncclCommGetAsyncError(self.comm, &error), ncclSuccess);
      EXPECT_EQ(error, ncclInvalidUsage);
    });
    // Whoever came second tells; either names both sides.
    EXPECT_THAT(last_report(), ::testing::AnyOf(::testing::HasSubstr(disagreement.said),
                                                ::testing::ContainsRegex("on rank [02] and .* on rank 1")));
  }
}

TEST_F(Nccl, AMissingRankIsNamed) {
  setenv("SEXTANT_SIMT_PATIENCE_S", "1", 1);
  on_every_rank([](Rank& self) {
    float* p = device_array(numbers(self.id, 4));
    if (self.id == 2) return;  // takes another path
    ASSERT_EQ(ncclAllReduce(p, p, 4, ncclFloat32, ncclSum, self.comm, self.stream), ncclSuccess);
    EXPECT_EQ(cudaStreamSynchronize(self.stream), cudaErrorLaunchTimeout);
  });
  EXPECT_THAT(last_report(), ::testing::HasSubstr("missing is rank 2"));
  restart(profile_sm_80(), kRanks);
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  ncclComm_t comm = nullptr;
  EXPECT_EQ(ncclCommInitRank(&comm, 2, id, 1), ncclSystemError);
  EXPECT_THAT(ncclGetLastError(nullptr), ::testing::HasSubstr("rank 0 of 2 did not join"));
  unsetenv("SEXTANT_SIMT_PATIENCE_S");
}

TEST_F(Nccl, AnAbortLetsWaitingRanksGo) {
  on_every_rank([](Rank& self) {
    float* p = device_array(numbers(self.id, 4));
    if (self.id == 0) {
      ASSERT_EQ(ncclAllReduce(p, p, 4, ncclFloat32, ncclSum, self.comm, self.stream), ncclSuccess);
      EXPECT_EQ(cudaStreamSynchronize(self.stream), cudaSuccess);
    } else if (self.id == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      EXPECT_EQ(ncclCommAbort(self.comm), ncclSuccess);
      ncclUniqueId alone;
      EXPECT_EQ(ncclGetUniqueId(&alone), ncclSuccess);
      EXPECT_EQ(ncclCommInitRank(&self.comm, 1, alone, 0), ncclSuccess);  // for the end of the test
    }
  });
}

TEST_F(Nccl, BadArgumentsAreRefused) {
  on_every_rank([](Rank& self) {
    float* p = device_array(numbers(self.id, 4));
    float host[4] = {};
    EXPECT_EQ(ncclAllReduce(p, p, 5, ncclFloat32, ncclSum, self.comm, self.stream), ncclInvalidArgument);
    EXPECT_EQ(ncclAllReduce(host, p, 4, ncclFloat32, ncclSum, self.comm, self.stream), ncclInvalidArgument);
    EXPECT_EQ(ncclSend(p, 4, ncclFloat32, kRanks, self.comm, self.stream), ncclInvalidArgument);
    EXPECT_EQ(ncclAllReduce(p, p, 4, ncclFloat32, ncclSum, nullptr, self.stream), ncclInvalidArgument);
  });
}

}  // namespace
}  // namespace sextant::simt
