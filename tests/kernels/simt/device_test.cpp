// Device profiles: what they say and what they refuse; several devices.
#include "tests/kernels/simt/emulator_test_support.h"

namespace sextant::simt {
namespace {

using kernels::cuda::launch;

class Devices : public EmulatorTest {};

__global__ void touch_kernel(int* p) { p[blockIdx.x] = static_cast<int>(threadIdx.x); }
__global__ void shared_kernel(int* out) {
  SEXTANT_DYNAMIC_SHARED(int, buffer);
  buffer[0] = 7;
  out[0] = buffer[0];
}
__global__ void static_and_dynamic_kernel(int* out) {
  SEXTANT_SHARED(int, tile, [1024]);
  tile[0] = 1;
  out[0] = tile[0];
}

TEST_F(Devices, PropertiesAreTheProfiles) {
  for (const DeviceProfile* profile : {&profile_sm_80(), &profile_sm_90()}) {
    restart(*profile);
    cudaDeviceProp p;
    ASSERT_EQ(cudaGetDeviceProperties(&p, 0), cudaSuccess);
    EXPECT_EQ(p.major, profile->major);
    EXPECT_EQ(p.multiProcessorCount, profile->num_multiprocessors);
    int opt_in = 0;
    ASSERT_EQ(cudaDeviceGetAttribute(&opt_in, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), cudaSuccess);
    EXPECT_EQ(opt_in, profile->major == 8 ? 163 << 10 : 227 << 10);
    EXPECT_EQ(cudaGetDeviceProperties(&p, 1), cudaErrorInvalidDevice);
  }
}

TEST_F(Devices, ThreadsAndGridsBeyondTheLimitsAreRefused) {
  int* p = device_array(std::vector<int>(16));
  const auto try_launch = [&](dim3 grid, dim3 block) {
    return launch({.grid = grid, .block = block}, nullptr, touch_kernel, p);
  };
  EXPECT_EQ(try_launch(dim3(1), dim3(1024)), cudaSuccess);
  EXPECT_EQ(try_launch(dim3(1), dim3(1025)), cudaErrorInvalidConfiguration);
  EXPECT_EQ(try_launch(dim3(1), dim3(32, 33)), cudaErrorInvalidConfiguration);
  EXPECT_EQ(try_launch(dim3(1), dim3(1, 1, 65)), cudaErrorInvalidConfiguration);
  EXPECT_EQ(try_launch(dim3(0), dim3(32)), cudaErrorInvalidConfiguration);
  EXPECT_EQ(try_launch(dim3(1, 65536), dim3(32)), cudaErrorInvalidConfiguration);
  EXPECT_EQ(try_launch(dim3(1u << 31), dim3(32)), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(Devices, SharedMemoryAbove48KiBNeedsAnOptInThatTheProfileBounds) {
  const auto try_launch = [](size_t bytes) {
    int* out = device_array(std::vector<int>(1));
    const cudaError_t error =
        launch({.grid = dim3(1), .block = dim3(1), .dynamic_shared_bytes = bytes}, nullptr, shared_kernel, out);
    return error != cudaSuccess ? error : cudaDeviceSynchronize();
  };
  const auto opt_in = [](int bytes) {
    return cudaFuncSetAttribute(shared_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  };
  EXPECT_EQ(try_launch(48 << 10), cudaSuccess);
  EXPECT_EQ(try_launch((48 << 10) + 4), cudaErrorInvalidValue);
  EXPECT_EQ(opt_in(163 << 10), cudaSuccess);
  EXPECT_EQ(try_launch(163 << 10), cudaSuccess);
  EXPECT_EQ(try_launch((163 << 10) + 4), cudaErrorInvalidValue);
  EXPECT_EQ(opt_in((163 << 10) + 4), cudaErrorInvalidValue);
  restart(profile_sm_90());
  EXPECT_EQ(opt_in(227 << 10), cudaSuccess);
  EXPECT_EQ(try_launch(227 << 10), cudaSuccess);
  EXPECT_EQ(opt_in((227 << 10) + 4), cudaErrorInvalidValue);
}

TEST_F(Devices, StaticAndDynamicSharedMemoryCountTogether) {
  const auto run = [](size_t dynamic_bytes) {
    restart();
    int* out = device_array(std::vector<int>(1));
    EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(1), .dynamic_shared_bytes = dynamic_bytes}, nullptr,
                     static_and_dynamic_kernel, out),
              cudaSuccess);
    return cudaDeviceSynchronize();
  };
  EXPECT_EQ(run(44 << 10), cudaSuccess);
  EXPECT_EQ(run((44 << 10) + 16), cudaErrorLaunchOutOfResources);
  EXPECT_THAT(last_report(), ::testing::HasSubstr("shared memory"));
}

TEST_F(Devices, NoDeviceIsAnErrorOfEveryCall) {
  restart(profile_sm_80(), 0);
  int count = -1;
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  EXPECT_EQ(count, 0);
  void* p = nullptr;
  EXPECT_EQ(cudaMalloc(&p, 16), cudaErrorNoDevice);
  EXPECT_EQ(cudaSetDevice(0), cudaErrorInvalidDevice);
}

TEST_F(Devices, MemoryOfAnotherDeviceCannotBeTouchedWithoutPeerAccess) {
  restart(profile_sm_80(), 2);
  int count = 0;
  ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  ASSERT_EQ(count, 2);
  int* of_0 = device_array(std::vector<int>(1, 5));
  ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
  int* of_1 = device_array(std::vector<int>(1, 6));
  int can = 0;
  ASSERT_EQ(cudaDeviceCanAccessPeer(&can, 1, 0), cudaSuccess);
  EXPECT_EQ(can, 1);
  // A copy between devices needs no access of kernels.
  ASSERT_EQ(cudaMemcpyPeerAsync(of_1, 1, of_0, 0, 4), cudaSuccess);
  EXPECT_EQ(host_copy(of_1, 1)[0], 5);
  EXPECT_EQ(cudaMemcpyPeerAsync(of_1, 0, of_0, 0, 4), cudaErrorInvalidValue);
  ASSERT_EQ(cudaDeviceEnablePeerAccess(0, 0), cudaSuccess);
  EXPECT_EQ(cudaDeviceEnablePeerAccess(0, 0), cudaErrorPeerAccessAlreadyEnabled);
  ASSERT_EQ(launch({.grid = dim3(1), .block = dim3(1)}, nullptr, touch_kernel, of_0), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(host_copy(of_0, 1)[0], 0);
  ASSERT_EQ(cudaDeviceDisablePeerAccess(0), cudaSuccess);
  ASSERT_EQ(launch({.grid = dim3(1), .block = dim3(1)}, nullptr, touch_kernel, of_0), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  EXPECT_THAT(last_report(), ::testing::HasSubstr("device 0, at offset 0 of an allocation of 4 bytes"));
  // The other device has not failed.
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

TEST_F(Devices, AStreamBelongsToItsDevice) {
  restart(profile_sm_80(), 2);
  int* p = device_array(std::vector<int>(1));
  cudaStream_t s = nullptr;
  ASSERT_EQ(cudaStreamCreate(&s), cudaSuccess);
  ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
  EXPECT_EQ(launch({.grid = dim3(1), .block = dim3(1)}, s, touch_kernel, p), cudaErrorInvalidResourceHandle);
}

}  // namespace
}  // namespace sextant::simt
