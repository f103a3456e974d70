// Capture and replay of graphs, and the calls that a capture forbids.
#include "tests/kernels/simt/emulator_test_support.h"

namespace sextant::simt {
namespace {

using kernels::cuda::launch;

__global__ void add_one_kernel(int* p) { p[threadIdx.x] += 1; }
__global__ void double_kernel(int* p) { p[threadIdx.x] *= 2; }
__global__ void sum_kernel(int* out, const int* a, const int* b) { out[threadIdx.x] = a[threadIdx.x] + b[threadIdx.x]; }

const kernels::cuda::LaunchShape kOneWarp{.grid = dim3(1), .block = dim3(32)};

class Graphs : public EmulatorTest {
 protected:
  Graphs() { create(); }
  void create() {
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    EXPECT_EQ(cudaStreamCreateWithFlags(&other_, cudaStreamNonBlocking), cudaSuccess);
    EXPECT_EQ(cudaEventCreateWithFlags(&fork_, cudaEventDisableTiming), cudaSuccess);
    EXPECT_EQ(cudaEventCreateWithFlags(&join_, cudaEventDisableTiming), cudaSuccess);
  }
  void begin(cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal) {
    ASSERT_EQ(cudaStreamBeginCapture(stream_, mode), cudaSuccess);
  }
  cudaGraphExec_t end(size_t num_nodes) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
    size_t count = 0;
    EXPECT_EQ(cudaGraphGetNodes(graph, nullptr, &count), cudaSuccess);
    EXPECT_EQ(count, num_nodes);
    EXPECT_EQ(cudaGraphInstantiate(&exec, graph), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    return exec;
  }

  cudaStream_t stream_ = nullptr;
  cudaStream_t other_ = nullptr;
  cudaEvent_t fork_ = nullptr;
  cudaEvent_t join_ = nullptr;
};

TEST_F(Graphs, ACaptureRunsNothingAndItsReplayRunsInOrder) {
  int* p = device_array(std::vector<int>(32, 1));
  int* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(&pinned, 128), cudaSuccess);
  std::fill_n(pinned, 32, 0);
  begin();
  ASSERT_EQ(cudaMemcpyAsync(p, pinned, 128, cudaMemcpyHostToDevice, stream_), cudaSuccess);
  ASSERT_EQ(launch(kOneWarp, stream_, add_one_kernel, p), cudaSuccess);
  ASSERT_EQ(launch(kOneWarp, stream_, double_kernel, p), cudaSuccess);
  int host_calls = 0;
  ASSERT_EQ(cudaLaunchHostFunc(
                stream_, [](void* calls) { ++*static_cast<int*>(calls); }, &host_calls),
            cudaSuccess);
  ASSERT_EQ(enqueue_host_work(stream_, "library", [p] { p[0] += 100; }), cudaSuccess);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  ASSERT_EQ(cudaStreamIsCapturing(stream_, &status), cudaSuccess);
  EXPECT_EQ(status, cudaStreamCaptureStatusActive);
  cudaGraphExec_t exec = end(5);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(host_copy(p, 1)[0], 1);
  EXPECT_EQ(host_calls, 0);
  for (const int input : {3, 8}) {  // a replay reads what is in the buffer then
    std::fill_n(pinned, 32, input);
    ASSERT_EQ(cudaGraphUpload(exec, stream_), cudaSuccess);
    ASSERT_EQ(cudaGraphLaunch(exec, stream_), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    EXPECT_EQ(host_copy(p, 2), (std::vector<int>{2 * (input + 1) + 100, 2 * (input + 1)}));
  }
  EXPECT_EQ(host_calls, 2);
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  EXPECT_EQ(cudaGraphLaunch(exec, stream_), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST_F(Graphs, AForkIsJoinedByEventsAndAMissingOneIsCaught) {
  const auto is_right = [this](bool waits) {
    create();
    int* a = device_array(std::vector<int>(32, 1));
    int* b = device_array(std::vector<int>(32, 10));
    int* out = device_array(std::vector<int>(32, 0));
    begin();
    EXPECT_EQ(cudaEventRecord(fork_, stream_), cudaSuccess);
    EXPECT_EQ(cudaStreamWaitEvent(other_, fork_), cudaSuccess);
    EXPECT_EQ(launch(kOneWarp, other_, double_kernel, b), cudaSuccess);
    EXPECT_EQ(launch(kOneWarp, stream_, add_one_kernel, a), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(join_, other_), cudaSuccess);
    const auto join = [&] { EXPECT_EQ(cudaStreamWaitEvent(stream_, join_), cudaSuccess); };
    if (waits) join();
    EXPECT_EQ(launch(kOneWarp, stream_, sum_kernel, out, a, b), cudaSuccess);
    if (!waits) join();  // too late for the sum
    cudaGraphExec_t exec = end(3);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(cudaGraphLaunch(exec, stream_), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    return host_copy(out, 32) == std::vector<int>(32, 3 + 40);
  };
  EXPECT_EQ(num_caught([&] { return is_right(true); }), 0);
  EXPECT_GE(num_caught([&] { return is_right(false); }), 2);
}

TEST_F(Graphs, AForkThatIsNotJoinedIsRefused) {
  int* a = device_array(std::vector<int>(32, 1));
  begin();
  ASSERT_EQ(cudaEventRecord(fork_, stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(other_, fork_), cudaSuccess);
  ASSERT_EQ(launch(kOneWarp, other_, double_kernel, a), cudaSuccess);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(other_, &graph), cudaErrorStreamCaptureUnmatched);
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(graph, nullptr);
  begin();
  ASSERT_EQ(cudaEventRecord(fork_, stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(other_, fork_), cudaSuccess);
  ASSERT_EQ(launch(kOneWarp, other_, double_kernel, a), cudaSuccess);
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorStreamCaptureUnjoined);
  // Both streams are as before.
  ASSERT_EQ(launch(kOneWarp, other_, double_kernel, a), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(other_), cudaSuccess);
  EXPECT_EQ(host_copy(a, 1)[0], 2);
}

TEST_F(Graphs, CallsThatACaptureForbidsFailAndEndIt) {
  int* device = device_array(std::vector<int>(32, 1));
  int host[32] = {};
  cudaStream_t blocking = nullptr;
  ASSERT_EQ(cudaStreamCreate(&blocking), cudaSuccess);
  cudaEvent_t before = nullptr;
  ASSERT_EQ(cudaEventCreate(&before), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(before, other_), cudaSuccess);
  void* p = nullptr;
  struct Call {
    const char* name;
    std::function<cudaError_t()> call;
    cudaError_t expected;
  };
  const Call calls[] = {
      {"cudaMalloc", [&] { return cudaMalloc(&p, 16); }, cudaErrorStreamCaptureUnsupported},
      {"cudaFree", [&] { return cudaFree(device); }, cudaErrorStreamCaptureUnsupported},
      {"cudaMallocHost", [&] { return cudaMallocHost(&p, 16); }, cudaErrorStreamCaptureUnsupported},
      {"device synchronise", [] { return cudaDeviceSynchronize(); }, cudaErrorStreamCaptureUnsupported},
      {"stream synchronise", [&] { return cudaStreamSynchronize(stream_); }, cudaErrorStreamCaptureUnsupported},
      {"stream query", [&] { return cudaStreamQuery(stream_); }, cudaErrorStreamCaptureUnsupported},
      {"event query", [&] { return cudaEventQuery(before); }, cudaErrorStreamCaptureUnsupported},
      {"captured event",
       [&] {
         EXPECT_EQ(cudaEventRecord(fork_, stream_), cudaSuccess);
         return cudaEventSynchronize(fork_);
       },
       cudaErrorCapturedEvent},
      {"copy", [&] { return cudaMemcpy(device, host, 128, cudaMemcpyHostToDevice); },
       cudaErrorStreamCaptureUnsupported},
      {"pageable copy", [&] { return cudaMemcpyAsync(device, host, 128, cudaMemcpyHostToDevice, stream_); },
       cudaErrorStreamCaptureUnsupported},
      {"memset", [&] { return cudaMemset(device, 0, 128); }, cudaErrorStreamCaptureUnsupported},
      {"event from outside", [&] { return cudaStreamWaitEvent(stream_, before); }, cudaErrorStreamCaptureIsolation},
  };
  for (const Call& call : calls) {
    SCOPED_TRACE(call.name);
    begin();
    EXPECT_EQ(call.call(), call.expected);
    EXPECT_EQ(launch(kOneWarp, stream_, add_one_kernel, device), cudaErrorStreamCaptureInvalidated);
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(graph, nullptr);
  }
  // The legacy stream waits for blocking streams, which is impossible while one captures.
  ASSERT_EQ(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed), cudaSuccess);
  EXPECT_EQ(launch(kOneWarp, nullptr, add_one_kernel, device), cudaErrorStreamCaptureImplicit);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(blocking, &graph), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorIllegalState);
}

TEST_F(Graphs, ARelaxedCaptureAllowsAllocation) {
  begin(cudaStreamCaptureModeRelaxed);
  int* p = nullptr;
  EXPECT_EQ(cudaMalloc(&p, 128), cudaSuccess);
  EXPECT_EQ(launch(kOneWarp, stream_, add_one_kernel, p), cudaSuccess);
  end(1);
}

TEST_F(Graphs, AFaultInAReplayIsReported) {
  int* p = device_array(std::vector<int>(31, 1));
  begin();
  ASSERT_EQ(launch(kOneWarp, stream_, add_one_kernel, p + 4), cudaSuccess);
  cudaGraphExec_t exec = end(1);
  ASSERT_EQ(cudaGraphLaunch(exec, stream_), cudaSuccess);
#if !defined(__SANITIZE_ADDRESS__)
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorIllegalAddress);
  EXPECT_THAT(last_report(), ::testing::HasSubstr("add_one_kernel"));
#endif
}

}  // namespace
}  // namespace sextant::simt
