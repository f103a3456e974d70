// Device and page-locked memory: bounds, protection from the host, sizes.
#include <cmath>

#include "tests/kernels/simt/emulator_test_support.h"

namespace sextant::simt {
namespace {

using kernels::cuda::launch;

class MemoryFaults : public EmulatorTest {};
class MemoryFaultsDeathTest : public EmulatorTest {};

__global__ void shift_kernel(float* out, const float* in, int read_offset, int write_offset) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  out[i + write_offset] = in[i + read_offset];
}

cudaError_t run_shift(int read_offset, int write_offset) {
  float* in = nullptr;
  float* out = nullptr;
  EXPECT_EQ(cudaMalloc(&in, 1024), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&out, 1024), cudaSuccess);
  EXPECT_EQ(launch({.grid = dim3(4), .block = dim3(64)}, nullptr, shift_kernel, out, in, read_offset, write_offset),
            cudaSuccess);
  return cudaDeviceSynchronize();
}

TEST_F(MemoryFaults, AnOffByOneLoadIsReportedWithKernelThreadAndOffset) {
  EXPECT_EQ(run_shift(0, 0), cudaSuccess);
  restart();
  EXPECT_EQ(run_shift(1, 0), cudaErrorIllegalAddress);
  EXPECT_THAT(last_report(),
              ::testing::AllOf(::testing::HasSubstr("shift_kernel, block (3, 0, 0), thread (63, 0, 0)"),
                               ::testing::HasSubstr("illegal"),
                               ::testing::HasSubstr("device 0, 0 bytes past the end of an allocation of 1024 bytes")));
#if defined(__x86_64__)
  EXPECT_THAT(last_report(), ::testing::HasSubstr("illegal read"));
#endif
}

TEST_F(MemoryFaults, AnOffByOneStoreIsReported) {
  EXPECT_EQ(run_shift(0, 1), cudaErrorIllegalAddress);
#if defined(__x86_64__)
  EXPECT_THAT(last_report(), ::testing::HasSubstr("illegal write"));
#endif
}

TEST_F(MemoryFaults, TheNextLaunchAfterAFaultRunsOnAFreshMachine) {
  for (int i = 0; i < 20; ++i) {  // fibres and stacks that were abandoned are used again
    restart();
    EXPECT_EQ(run_shift(i % 2, 0), i % 2 == 0 ? cudaSuccess : cudaErrorIllegalAddress);
  }
}

#if !defined(__SANITIZE_ADDRESS__)  // which stops the program at the access
TEST_F(MemoryFaults, AStoreBesideAnAllocationThatEndsWithinAPageIsReported) {
  float* in = device_array(std::vector<float>(256));
  float* out = nullptr;
  ASSERT_EQ(cudaMalloc(&out, 1020), cudaSuccess);  // 4 bytes remain before the guard page
  ASSERT_EQ(
      launch({.grid = dim3(4), .block = dim3(64)}, nullptr, shift_kernel, out, static_cast<const float*>(in), 0, 0),
      cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  EXPECT_THAT(last_report(), ::testing::AllOf(::testing::HasSubstr("shift_kernel"),
                                              ::testing::HasSubstr("past the end of an allocation of 1020 bytes")));
  restart();
  in = device_array(std::vector<float>(256));
  ASSERT_EQ(cudaMalloc(&out, 1024), cudaSuccess);
  ASSERT_EQ(
      launch({.grid = dim3(1), .block = dim3(64)}, nullptr, shift_kernel, out, static_cast<const float*>(in), 0, -1),
      cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  EXPECT_THAT(last_report(), ::testing::HasSubstr("before the start of an allocation of 1024 bytes"));
}
#endif

TEST_F(MemoryFaults, AFreedPointerAndANullPointerAreReported) {
  float* in = device_array(std::vector<float>(256));
  float* out = device_array(std::vector<float>(256));
  ASSERT_EQ(cudaFree(in), cudaSuccess);
  ASSERT_EQ(
      launch({.grid = dim3(4), .block = dim3(64)}, nullptr, shift_kernel, out, static_cast<const float*>(in), 0, 0),
      cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  restart();
  EXPECT_EQ(cudaFree(&in), cudaErrorInvalidValue);
  out = device_array(std::vector<float>(4));
  EXPECT_EQ(cudaFree(out + 1), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(out), cudaSuccess);
  EXPECT_EQ(cudaFree(out), cudaErrorInvalidValue);
}

TEST_F(MemoryFaults, FreshMemoryIsNotANumber) {
  float* p = nullptr;
  ASSERT_EQ(cudaMalloc(&p, 400), cudaSuccess);
  for (const float x : host_copy(p, 100)) EXPECT_TRUE(std::isnan(x));
  float* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(&pinned, 400), cudaSuccess);
  EXPECT_TRUE(std::isnan(pinned[99]));
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

#if defined(__SANITIZE_ADDRESS__)
TEST_F(MemoryFaultsDeathTest, TheBytesBesideAnAllocationAreRedzones) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  float* in = device_array(std::vector<float>(256));
  float* out = nullptr;
  ASSERT_EQ(cudaMalloc(&out, 1016), cudaSuccess);  // 8 bytes remain before the guard page
  const auto run = [&](int write_offset) {
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(254)}, nullptr, shift_kernel, out, static_cast<const float*>(in),
                     0, write_offset),
              cudaSuccess);
    return cudaDeviceSynchronize();
  };
  EXPECT_EQ(run(0), cudaSuccess);
  EXPECT_DEATH(run(1), "use-after-poison");
  EXPECT_DEATH(run(-1), "use-after-poison");
}
#endif

TEST_F(MemoryFaultsDeathTest, AHostThatDereferencesDeviceMemoryCrashes) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  float* p = device_array(std::vector<float>(256, 1.0f));
  volatile float* host_view = p;
  EXPECT_DEATH(static_cast<void>(host_view[3]), "the host dereferences memory of device 0");
  EXPECT_DEATH(host_view[3] = 1, "the host dereferences memory of device 0");
  EXPECT_EQ(host_copy(p, 256)[3], 1.0f);
}

TEST_F(MemoryFaultsDeathTest, AHostFunctionThatDereferencesDeviceMemoryCrashes) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  float* p = device_array(std::vector<float>(256, 1.0f));
  EXPECT_DEATH(
      {
        cudaLaunchHostFunc(
            nullptr, [](void* data) { *static_cast<volatile float*>(data) = 2; }, p);
        cudaDeviceSynchronize();
      },
      "the host dereferences memory of device 0");
}

TEST_F(MemoryFaultsDeathTest, ACrashOfTheHostStaysACrash) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ASSERT_EQ(run_shift(0, 0), cudaSuccess);  // the fault handler stands
  volatile int* nowhere = reinterpret_cast<int*>(uintptr_t{64});
  EXPECT_DEATH(*nowhere = 1, "");
}

TEST_F(MemoryFaults, MemoryIsAsLargeAsTheMachineSays) {
  size_t free_bytes = 0;
  size_t total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free_bytes, &total), cudaSuccess);
  EXPECT_EQ(total, size_t{64} << 20);
  EXPECT_EQ(free_bytes, total);
  void* most = nullptr;
  ASSERT_EQ(cudaMalloc(&most, total - 4096), cudaSuccess);
  void* more = nullptr;
  EXPECT_EQ(cudaMalloc(&more, 4097), cudaErrorMemoryAllocation);
  EXPECT_EQ(more, nullptr);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);  // not sticky
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&more, 4096), cudaSuccess);
  EXPECT_EQ(cudaFree(most), cudaSuccess);
  ASSERT_EQ(cudaMemGetInfo(&free_bytes, &total), cudaSuccess);
  EXPECT_EQ(free_bytes, total - 4096);
}

TEST_F(MemoryFaults, CopiesAreCheckedAgainstAllocationsAndDirections) {
  std::vector<float> host(256);
  float* p = device_array(host);
  EXPECT_EQ(cudaMemcpy(p, host.data(), 1028, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(p + 1, host.data(), 1024, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(p, host.data(), 1024, cudaMemcpyDeviceToHost), cudaErrorInvalidMemcpyDirection);
  EXPECT_EQ(cudaMemset(p, 0, 1025), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(p, 0, 1024), cudaSuccess);
  EXPECT_THAT(host_copy(p, 256), ::testing::Each(0.0f));
  EXPECT_EQ(cudaMemcpy(p, host.data(), 1024, cudaMemcpyDefault), cudaSuccess);
}

}  // namespace
}  // namespace sextant::simt
