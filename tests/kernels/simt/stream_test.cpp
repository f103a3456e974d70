// Streams and events: what is late, what is ordered, and what a program gets wrong when it relies on more.
#include <atomic>
#include <chrono>
#include <thread>

#include "tests/kernels/simt/emulator_test_support.h"

namespace sextant::simt {
namespace {

using kernels::cuda::launch;

class Streams : public EmulatorTest {
 protected:
  static cudaStream_t stream(unsigned flags = cudaStreamNonBlocking) {
    cudaStream_t made = nullptr;
    EXPECT_EQ(cudaStreamCreateWithFlags(&made, flags), cudaSuccess);
    return made;
  }
  static cudaEvent_t event(unsigned flags = cudaEventDisableTiming) {
    cudaEvent_t made = nullptr;
    EXPECT_EQ(cudaEventCreateWithFlags(&made, flags), cudaSuccess);
    return made;
  }
};

__global__ void fill_kernel(int* p, int value) { p[threadIdx.x] = value; }
__global__ void add_kernel(int* to, const int* from) { to[threadIdx.x] += from[threadIdx.x]; }

TEST_F(Streams, AMissingEventBetweenStreamsIsCaught) {
  const auto is_right = [](bool has_event) {
    int* a = device_array(std::vector<int>(32, 0));
    int* b = device_array(std::vector<int>(32, 0));
    cudaStream_t producer = stream();
    cudaStream_t consumer = stream();
    cudaEvent_t done = event();
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, producer, fill_kernel, a, 7), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(done, producer), cudaSuccess);
    if (has_event) {
      EXPECT_EQ(cudaStreamWaitEvent(consumer, done), cudaSuccess);
    }
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, consumer, add_kernel, b, static_cast<const int*>(a)), 0);
    EXPECT_EQ(cudaStreamSynchronize(consumer), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(producer), cudaSuccess);
    return host_copy(b, 32) == std::vector<int>(32, 7);
  };
  EXPECT_EQ(num_caught([&] { return is_right(true); }), 0);
  EXPECT_GE(num_caught([&] { return is_right(false); }), 3);
}

TEST_F(Streams, AMissingEventBeforeMemoryIsReusedIsCaught) {
  const auto is_right = [](bool has_event) {
    int* shared = device_array(std::vector<int>(32, 1));
    int* sum = device_array(std::vector<int>(32, 0));
    cudaStream_t reader = stream();
    cudaStream_t writer = stream();
    cudaEvent_t was_read = event();
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, reader, add_kernel, sum, static_cast<const int*>(shared)),
              0);
    EXPECT_EQ(cudaEventRecord(was_read, reader), cudaSuccess);
    if (has_event) {
      EXPECT_EQ(cudaStreamWaitEvent(writer, was_read), cudaSuccess);
    }
    EXPECT_EQ(cudaMemsetAsync(shared, 0, 128, writer), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return host_copy(sum, 32) == std::vector<int>(32, 1);
  };
  EXPECT_EQ(num_caught([&] { return is_right(true); }), 0);
  EXPECT_GE(num_caught([&] { return is_right(false); }), 3);
}

TEST_F(Streams, APinnedBufferThatIsReusedTooEarlyIsCaught) {
  const auto is_right = [](bool waits) {
    int* a = device_array(std::vector<int>(32, 0));
    int* pinned = nullptr;
    EXPECT_EQ(cudaMallocHost(&pinned, 128), cudaSuccess);
    cudaStream_t s = stream();
    std::fill_n(pinned, 32, 3);
    EXPECT_EQ(cudaMemcpyAsync(a, pinned, 128, cudaMemcpyHostToDevice, s), cudaSuccess);
    if (waits) {
      EXPECT_EQ(cudaStreamSynchronize(s), cudaSuccess);
    }
    std::fill_n(pinned, 32, 4);  // for the next step
    EXPECT_EQ(cudaStreamSynchronize(s), cudaSuccess);
    const bool right = host_copy(a, 32) == std::vector<int>(32, 3);
    EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
    return right;
  };
  EXPECT_EQ(num_caught([&] { return is_right(true); }), 0);
  EXPECT_EQ(num_caught([&] { return is_right(false); }), 16);
}

TEST_F(Streams, AResultThatIsReadTooEarlyIsNotThere) {
  int* a = device_array(std::vector<int>(32, 5));
  int* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(&pinned, 128), cudaSuccess);
  cudaStream_t s = stream();
  ASSERT_EQ(cudaMemcpyAsync(pinned, a, 128, cudaMemcpyDeviceToHost, s), cudaSuccess);
  EXPECT_EQ(pinned[0], -1);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(pinned[0], 5);
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST_F(Streams, PageableMemoryIsTakenAtTheCall) {
  int* a = device_array(std::vector<int>(32, 0));
  cudaStream_t s = stream();
  std::vector<int> host(32, 3);
  ASSERT_EQ(cudaMemcpyAsync(a, host.data(), 128, cudaMemcpyHostToDevice, s), cudaSuccess);
  host.assign(32, 4);
  ASSERT_EQ(cudaMemcpyAsync(host.data(), a, 128, cudaMemcpyDeviceToHost, s), cudaSuccess);
  EXPECT_EQ(host, std::vector<int>(32, 3));  // into pageable memory: done when the call returns
  int registered[32] = {};
  ASSERT_EQ(cudaHostRegister(registered, sizeof(registered), cudaHostRegisterDefault), cudaSuccess);
  EXPECT_EQ(cudaHostRegister(registered + 1, 4, cudaHostRegisterDefault), cudaErrorHostMemoryAlreadyRegistered);
  ASSERT_EQ(cudaMemcpyAsync(a, registered, 128, cudaMemcpyHostToDevice, s), cudaSuccess);
  registered[0] = 9;
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(host_copy(a, 1)[0], 9);
  EXPECT_EQ(cudaHostUnregister(registered), cudaSuccess);
  EXPECT_EQ(cudaHostUnregister(registered), cudaErrorHostMemoryNotRegistered);
}

TEST_F(Streams, TheLegacyStreamIsOrderedWithBlockingStreamsOnly) {
  const auto is_right = [](unsigned flags) {
    int* a = device_array(std::vector<int>(32, 1));
    int* b = device_array(std::vector<int>(32, 0));
    cudaStream_t s = stream(flags);
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, s, fill_kernel, a, 2), cudaSuccess);
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, nullptr, add_kernel, b, static_cast<const int*>(a)), 0);
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, s, fill_kernel, a, 3), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return host_copy(b, 32) == std::vector<int>(32, 2);
  };
  EXPECT_EQ(num_caught([&] { return is_right(cudaStreamDefault); }), 0);
  EXPECT_GE(num_caught([&] { return is_right(cudaStreamNonBlocking); }), 3);
}

TEST_F(Streams, QueriesSayNotReadyAndComeToAnEnd) {
  int* a = device_array(std::vector<int>(32, 0));
  cudaStream_t s = stream();
  cudaEvent_t done = event();
  EXPECT_EQ(cudaEventQuery(done), cudaSuccess);  // never recorded
  EXPECT_EQ(cudaStreamQuery(s), cudaSuccess);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, s, fill_kernel, a, i), 0);
  ASSERT_EQ(cudaEventRecord(done, s), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(done), cudaErrorNotReady);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  int polls = 0;
  while (cudaEventQuery(done) == cudaErrorNotReady) ASSERT_LT(++polls, 100);
  EXPECT_EQ(cudaStreamQuery(s), cudaSuccess);
}

TEST_F(Streams, EventsMeasureTime) {
  cudaStream_t s = stream();
  cudaEvent_t begin = event(cudaEventDefault);
  cudaEvent_t end = event(cudaEventDefault);
  float ms = -1;
  EXPECT_EQ(cudaEventElapsedTime(&ms, begin, end), cudaErrorInvalidResourceHandle);  // not recorded
  ASSERT_EQ(cudaEventRecord(begin, s), cudaSuccess);
  ASSERT_EQ(cudaLaunchHostFunc(
                s, [](void*) { std::this_thread::sleep_for(std::chrono::milliseconds(3)); }, nullptr),
            cudaSuccess);
  ASSERT_EQ(cudaEventRecord(end, s), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&ms, begin, end), cudaErrorNotReady);
  ASSERT_EQ(cudaEventSynchronize(end), cudaSuccess);
  ASSERT_EQ(cudaEventElapsedTime(&ms, begin, end), cudaSuccess);
  EXPECT_GE(ms, 3.0f);
  EXPECT_EQ(cudaEventElapsedTime(&ms, begin, event()), cudaErrorInvalidResourceHandle);
}

TEST_F(Streams, AHostFunctionRunsThoughNobodySynchronises) {
  cudaStream_t s = stream();
  std::atomic<int> calls = 0;
  const auto count = [](void* data) {
    // CUDA may not be called from here.
    if (cudaDeviceSynchronize() == cudaErrorNotPermitted) ++*static_cast<std::atomic<int>*>(data);
  };
  ASSERT_EQ(cudaLaunchHostFunc(s, count, &calls), cudaSuccess);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (calls == 0 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_EQ(calls, 1);
}

TEST_F(Streams, HostWorkOfALibraryIsOrderedInItsStreamAndTouchesDeviceMemory) {
  int* a = device_array(std::vector<int>(32, 0));
  cudaStream_t s = stream();
  ASSERT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, s, fill_kernel, a, 20), cudaSuccess);
  ASSERT_EQ(enqueue_host_work(s, "double",
                              [a] {
                                for (int i = 0; i < 32; ++i) a[i] *= 2;
                              }),
            cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(host_copy(a, 32), std::vector<int>(32, 40));
}

TEST_F(Streams, BadHandlesAreRefused) {
  int* a = device_array(std::vector<int>(32, 0));
  cudaStream_t s = stream();
  ASSERT_EQ(cudaStreamDestroy(s), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(s), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaStreamSynchronize(s), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, s, fill_kernel, a, 1), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaStreamSynchronize(cudaStreamPerThread), cudaErrorInvalidResourceHandle);
  cudaEvent_t e = event();
  ASSERT_EQ(cudaEventDestroy(e), cudaSuccess);
  EXPECT_EQ(cudaEventRecord(e, nullptr), cudaErrorInvalidResourceHandle);
}

TEST_F(Streams, WorkOfADestroyedStreamStillRuns) {
  for (const unsigned flags : {cudaStreamDefault, cudaStreamNonBlocking}) {
    int* a = device_array(std::vector<int>(32, 0));
    cudaStream_t s = stream(flags);
    ASSERT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, s, fill_kernel, a, 1), cudaSuccess);
    ASSERT_EQ(cudaStreamDestroy(s), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(host_copy(a, 32), std::vector<int>(32, 1));
  }
}

TEST_F(Streams, ManyThreadsMayEnqueueAtOnce) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 50;
  int* sums = device_array(std::vector<int>(kThreads * 32, 0));
  int* one = device_array(std::vector<int>(32, 1));
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([=] {
      cudaStream_t s = stream();
      for (int i = 0; i < kRounds; ++i) {
        EXPECT_EQ(
            launch({.grid = dim3(1), .block = dim3(32)}, s, add_kernel, sums + t * 32, static_cast<const int*>(one)),
            cudaSuccess);
        if (i % 10 == 9) {
          EXPECT_EQ(cudaStreamSynchronize(s), cudaSuccess);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(host_copy(sums, kThreads * 32), std::vector<int>(kThreads * 32, kRounds));
}

}  // namespace
}  // namespace sextant::simt
