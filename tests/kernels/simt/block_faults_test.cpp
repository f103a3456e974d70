// Faults inside a thread block, each beside its correct twin: the twin passes under every order, the fault is caught.
#include <algorithm>
#include <cmath>

#include "tests/kernels/simt/emulator_test_support.h"

namespace sextant::simt {
namespace {

using kernels::cuda::launch;

class BlockFaults : public EmulatorTest {};

__global__ void reverse_kernel(float* out, const float* in, bool has_barrier) {
  SEXTANT_SHARED(float, tile, [64]);
  tile[threadIdx.x] = in[threadIdx.x];
  if (has_barrier) __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

std::vector<float> counting(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i);
  return values;
}

TEST_F(BlockFaults, ARemovedBarrierChangesTheResult) {
  const auto is_right = [](bool has_barrier) {
    float* in = device_array(counting(64));
    float* out = device_array(std::vector<float>(64));
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(64)}, nullptr, reverse_kernel, out, in, has_barrier), cudaSuccess);
    const std::vector<float> got = host_copy(out, 64);
    for (size_t i = 0; i < 64; ++i) {
      if (got[i] != static_cast<float>(63 - i)) return false;  // NaN, too
    }
    return true;
  };
  EXPECT_EQ(num_caught([&] { return is_right(true); }), 0);
  EXPECT_EQ(num_caught([&] { return is_right(false); }), 16);
}

// A barrier between two uses of one tile: without it a quick thread overwrites what a slow one still reads.
__global__ void rotate_twice_kernel(float* out, const float* in, bool has_barrier) {
  SEXTANT_SHARED(float, tile, [64]);
  float x = in[threadIdx.x];
  for (int round = 0; round < 2; ++round) {
    tile[threadIdx.x] = x;
    __syncthreads();
    x = tile[(threadIdx.x + 1) % 64];
    if (has_barrier) __syncthreads();
  }
  out[threadIdx.x] = x;
}

TEST_F(BlockFaults, AMissingBarrierBeforeReuseChangesTheResult) {
  const auto is_right = [](bool has_barrier) {
    float* in = device_array(counting(64));
    float* out = device_array(std::vector<float>(64));
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(64)}, nullptr, rotate_twice_kernel, out, in, has_barrier), 0);
    const std::vector<float> got = host_copy(out, 64);
    for (size_t i = 0; i < 64; ++i) {
      if (got[i] != static_cast<float>((i + 2) % 64)) return false;
    }
    return true;
  };
  EXPECT_EQ(num_caught([&] { return is_right(true); }), 0);
  EXPECT_GE(num_caught([&] { return is_right(false); }), 12);
}

// Each warp tells its share of a sum, twice. Without the barrier after reading, a warp that is far ahead overwrites its share
// of the first sum before the others have read it.
__global__ void shared_sum_kernel(int* out, bool waits) {
  SEXTANT_SHARED(int, share, [16]);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  int total = 0;
  for (int round = 1; round <= 2; ++round) {
    int sum = round;
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    if (threadIdx.x % 32 == 0) share[warp] = sum;
    __syncthreads();
    for (int w = 0; w < 16; ++w) total += share[w] * round;
    if (waits) __syncthreads();
    for (int i = 0; i < 8; ++i) __syncwarp();
  }
  out[threadIdx.x] = total;
}

TEST_F(BlockFaults, AWarpThatRunsAheadShowsAMissingBarrier) {
  const auto is_right = [](bool waits) {
    int* out = device_array(std::vector<int>(512, 0));
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(512)}, nullptr, shared_sum_kernel, out, waits), cudaSuccess);
    const std::vector<int> got = host_copy(out, 512);
    return std::all_of(got.begin(), got.end(), [](int total) { return total == 16 * 32 * (1 + 4); });
  };
  EXPECT_EQ(num_caught([&] { return is_right(true); }), 0);
  EXPECT_GE(num_caught([&] { return is_right(false); }), 4);
}

__global__ void divergent_kernel(bool diverges) {
  if (!diverges || threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

TEST_F(BlockFaults, ADivergentBarrierIsReportedWithItsLines) {
  ASSERT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, nullptr, divergent_kernel, false), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ASSERT_EQ(launch({.grid = dim3(3), .block = dim3(32)}, nullptr, divergent_kernel, true), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_THAT(last_report(),
              ::testing::ContainsRegex("divergent_kernel, block .*, thread .*divergent barrier.* line [0-9]+"));
  // Sticky: all that follows fails, until the device is reset.
  void* p = nullptr;
  EXPECT_EQ(cudaMalloc(&p, 16), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaDeviceReset(), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&p, 16), cudaSuccess);
  EXPECT_EQ(last_report(), "");
}

__global__ void early_exit_kernel(unsigned leaving) {
  if (threadIdx.x < leaving) return;
  __syncthreads();
}

TEST_F(BlockFaults, ABarrierIsLeftByWholeWarpsOnly) {
  const auto run = [](uint64_t seed, unsigned leaving) {
    restart();
    set_seed(seed);
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(96)}, nullptr, early_exit_kernel, leaving), cudaSuccess);
    return cudaDeviceSynchronize();
  };
  for (uint64_t seed = 0; seed < 8; ++seed) {
    EXPECT_EQ(run(seed, 64), cudaSuccess);
    EXPECT_EQ(run(seed, 7), cudaErrorLaunchFailure);
    EXPECT_THAT(last_report(), ::testing::HasSubstr("early_exit_kernel"));
    EXPECT_EQ(run(seed, 40), cudaErrorLaunchFailure);
  }
}

__global__ void shuffle_kernel(int* out, unsigned mask, int source) {
  if ((mask >> threadIdx.x % 32 & 1u) == 0 && source >= 0) return;
  out[threadIdx.x] = __shfl_sync(mask, static_cast<int>(threadIdx.x), source < 0 ? 0 : source);
}

TEST_F(BlockFaults, AShuffleWithAWrongMaskIsReported) {
  int* out = device_array(std::vector<int>(32));
  ASSERT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, nullptr, shuffle_kernel, out, 0xffffu, 5), cudaSuccess);
  EXPECT_EQ(host_copy(out, 32)[9], 5);
  // Lane 20 is not in the mask: its value does not exist.
  ASSERT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, nullptr, shuffle_kernel, out, 0xffffu, 20), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_THAT(last_report(), ::testing::HasSubstr("not in its mask"));
  restart();
  out = device_array(std::vector<int>(32));
  // Lanes call with a mask that leaves them out.
  ASSERT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, nullptr, shuffle_kernel, out, 0xffffu, -1), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_THAT(last_report(), ::testing::HasSubstr("the calling lane is not in the mask"));
}

__global__ void uninitialised_kernel(float* out, unsigned written) {
  SEXTANT_SHARED(float, tile, [64]);
  if (threadIdx.x < written) tile[threadIdx.x] = 1;
  __syncthreads();
  float sum = 0;
  for (const float x : tile) sum += x;
  out[blockIdx.x * 64 + threadIdx.x] = sum;
}

TEST_F(BlockFaults, SharedMemoryThatNobodyWroteIsNotANumberInEveryBlock) {
  float* out = device_array(std::vector<float>(128));
  ASSERT_EQ(launch({.grid = dim3(2), .block = dim3(64)}, nullptr, uninitialised_kernel, out, 64u), cudaSuccess);
  EXPECT_THAT(host_copy(out, 128), ::testing::Each(64.0f));
  // What the launch before left behind does not help.
  ASSERT_EQ(launch({.grid = dim3(2), .block = dim3(64)}, nullptr, uninitialised_kernel, out, 63u), cudaSuccess);
  for (const float x : host_copy(out, 128)) EXPECT_TRUE(std::isnan(x));
}

__global__ void async_copy_kernel(float4* out, const float4* in, bool waits_for_all) {
  SEXTANT_SHARED(float4, tile, [2][32]);
  for (int stage = 0; stage < 2; ++stage) {
    kernels::cuda::cp_async_16(&tile[stage][threadIdx.x], in + stage * 32 + threadIdx.x);
    kernels::cuda::cp_async_commit();
  }
  if (waits_for_all) {
    kernels::cuda::cp_async_wait<0>();
  } else {
    kernels::cuda::cp_async_wait<1>();  // the second stage is still open
  }
  for (int stage = 0; stage < 2; ++stage) out[stage * 32 + threadIdx.x] = tile[stage][threadIdx.x];
  kernels::cuda::cp_async_wait<0>();
}

TEST_F(BlockFaults, AWrongWaitForAnAsynchronousCopyReadsWhatIsNotThere) {
  const auto is_right = [](bool waits_for_all) {
    const std::vector<float> values = counting(256);
    float* in = device_array(values);
    float* out = device_array(std::vector<float>(256));
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, nullptr, async_copy_kernel, reinterpret_cast<float4*>(out),
                     reinterpret_cast<const float4*>(in), waits_for_all),
              cudaSuccess);
    return host_copy(out, 256) == values;
  };
  EXPECT_EQ(num_caught([&] { return is_right(true); }), 0);
  // With 32 threads that each draw whether their copy came early, that all did is out of reach.
  EXPECT_EQ(num_caught([&] { return is_right(false); }), 16);
}

__global__ void unfinished_copy_kernel(const float4* in) {
  SEXTANT_SHARED(float4, tile, [32]);
  kernels::cuda::cp_async_16(&tile[threadIdx.x], in + threadIdx.x);
  kernels::cuda::cp_async_commit();
}

TEST_F(BlockFaults, ACopyThatNobodyWaitsForIsReported) {
  float* in = device_array(counting(128));
  ASSERT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, nullptr, unfinished_copy_kernel,
                   reinterpret_cast<const float4*>(in)),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_THAT(last_report(), ::testing::HasSubstr("cp.async"));
}

__global__ void misaligned_copy_kernel(const float* in, int offset) {
  SEXTANT_SHARED(float4, tile, [1]);
  kernels::cuda::cp_async_16(&tile[0], in + offset);
  kernels::cuda::cp_async_commit();
  kernels::cuda::cp_async_wait<0>();
}
__global__ void misaligned_matrix_kernel(int offset) {
  SEXTANT_SHARED(uint16_t, tile, [2048]);
  tile[threadIdx.x] = 0;
  __syncwarp();
  uint32_t registers[4];
  kernels::cuda::ldmatrix_x4(registers, &tile[threadIdx.x * 8 + static_cast<unsigned>(offset)]);
}

TEST_F(BlockFaults, MisalignedCopiesAndMatrixLoadsAreRefused) {
  const auto run_copy = [](int offset) {
    restart();
    float* in = device_array(counting(64));
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(1)}, nullptr, misaligned_copy_kernel, in, offset), cudaSuccess);
    return cudaDeviceSynchronize();
  };
  EXPECT_EQ(run_copy(4), cudaSuccess);
  EXPECT_EQ(run_copy(2), cudaErrorMisalignedAddress);
  const auto run_matrix = [](int offset) {
    restart();
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(32)}, nullptr, misaligned_matrix_kernel, offset), cudaSuccess);
    return cudaDeviceSynchronize();
  };
  EXPECT_EQ(run_matrix(8), cudaSuccess);
  EXPECT_EQ(run_matrix(4), cudaErrorMisalignedAddress);
}

#if !defined(__SANITIZE_ADDRESS__)  // which stops the program at the access
__global__ void shared_overrun_kernel(int count) {
  SEXTANT_SHARED(float, tile, [64]);
  volatile float* p = &tile[0];
  for (int i = 0; i < count; ++i) p[i] = 1;
}
__global__ void dynamic_overrun_kernel(int count) {
  SEXTANT_DYNAMIC_SHARED(float, buffer);
  volatile float* p = buffer;
  for (int i = 0; i < count; ++i) p[i] = 1;
}

TEST_F(BlockFaults, WritingPastSharedMemoryIsReported) {
  const auto run = [](void (*kernel)(int), int count) {
    restart();
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(1), .dynamic_shared_bytes = 240}, nullptr, kernel, count),
              cudaSuccess);
    return cudaDeviceSynchronize();
  };
  EXPECT_EQ(run(shared_overrun_kernel, 64), cudaSuccess);
  EXPECT_EQ(run(shared_overrun_kernel, 65), cudaErrorIllegalAddress);
  EXPECT_THAT(last_report(), ::testing::HasSubstr("wrote past a static array of 256 bytes"));
  EXPECT_EQ(run(dynamic_overrun_kernel, 60), cudaSuccess);
  EXPECT_EQ(run(dynamic_overrun_kernel, 61), cudaErrorIllegalAddress);
  EXPECT_THAT(last_report(), ::testing::HasSubstr("wrote past the 240 bytes of dynamic shared memory"));
  EXPECT_EQ(run(dynamic_overrun_kernel, 1000), cudaErrorIllegalAddress);  // into the guard page
  EXPECT_THAT(last_report(), ::testing::HasSubstr("illegal"));
}
#endif

#if !defined(__SANITIZE_ADDRESS__)  // which stops the program itself
__global__ void deep_kernel(int* out, int depth) {
  struct Recursion {
    static int down(int n, volatile char* above) {
      volatile char frame[1024];
      frame[0] = static_cast<char>(above[0] + 1);
      return n == 0 ? frame[0] : down(n - 1, frame) + frame[0];
    }
  };
  volatile char first = 0;
  *out = Recursion::down(depth, &first);
}

TEST_F(BlockFaults, AUsedUpStackIsReported) {
  int* out = device_array(std::vector<int>(1));
  ASSERT_EQ(launch({.grid = dim3(1), .block = dim3(1)}, nullptr, deep_kernel, out, 1), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ASSERT_EQ(launch({.grid = dim3(1), .block = dim3(1)}, nullptr, deep_kernel, out, 100000), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  EXPECT_THAT(last_report(), ::testing::HasSubstr("stack is used up"));
}
#endif

__global__ void sum_kernel(float* sum) { atomicAdd(sum, 1.0f); }

TEST_F(BlockFaults, AtomicsOfManyBlocksAddUp) {
  for (const uint64_t seed : {uint64_t{0}, uint64_t{99}}) {
    set_seed(seed);
    float* sum = device_array(std::vector<float>{0});
    ASSERT_EQ(launch({.grid = dim3(7, 5, 3), .block = dim3(32, 2)}, nullptr, sum_kernel, sum), cudaSuccess);
    EXPECT_EQ(host_copy(sum, 1)[0], 7.0f * 5 * 3 * 64);
  }
}

}  // namespace
}  // namespace sextant::simt
