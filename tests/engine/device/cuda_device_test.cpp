// What a machine without a usable GPU is told, on machines that the emulator makes up.
#include "engine/device/cuda_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/device/make_backend.h"

#if defined(SEXTANT_SIMT)
#include "kernels/simt/runtime.h"

namespace sextant {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class CudaDeviceTest : public testing::Test {
 protected:
  ~CudaDeviceTest() override { simt::set_machine(simt::machine_from_environment()); }

  // One line that names the way out.
  static std::string refusal(const simt::Machine& machine) {
    simt::set_machine(machine);
    const Result<CudaDevice> device = open_cuda_device();
    EXPECT_FALSE(device.ok());
    if (device.ok()) return "";
    EXPECT_THAT(device.status().message(), AllOf(HasSubstr("--device cpu"), Not(HasSubstr("\n"))));
    EXPECT_FALSE(cuda_available() && machine.profile.major >= 8);
    return device.status().message();
  }
};

TEST_F(CudaDeviceTest, IsDescribed) {
  simt::Machine machine;
  machine.profile = simt::profile_sm_90();
  simt::set_machine(machine);
  const Result<CudaDevice> device = open_cuda_device();
  ASSERT_TRUE(device.ok()) << device.status().message();
  EXPECT_EQ(device->compute_capability(), 90);
  EXPECT_EQ(device->num_multiprocessors, 132);
  EXPECT_EQ(device->memory_bytes, machine.memory_bytes);
  EXPECT_TRUE(cuda_available());
}

TEST_F(CudaDeviceTest, NoDriver) {
  simt::Machine machine;
  machine.driver_version = -1;
  EXPECT_THAT(refusal(machine), HasSubstr("no NVIDIA driver"));
}

TEST_F(CudaDeviceTest, AnOldDriver) {
  simt::Machine machine;
  machine.driver_version = 11040;
  EXPECT_THAT(refusal(machine), AllOf(HasSubstr("too old"), HasSubstr("CUDA 11.4")));
}

TEST_F(CudaDeviceTest, NoDevice) {
  simt::Machine machine;
  machine.num_devices = 0;
  EXPECT_THAT(refusal(machine), HasSubstr("no CUDA device"));
}

TEST_F(CudaDeviceTest, AnOldDevice) {
  simt::Machine machine;
  machine.profile.name = "Tesla T4";
  machine.profile.major = 7;
  machine.profile.minor = 5;
  EXPECT_THAT(refusal(machine), AllOf(HasSubstr("Tesla T4"), HasSubstr("7.5"), HasSubstr("8.0")));
}

TEST_F(CudaDeviceTest, ThisBuildSaysThatItHasNoCuda) {
  DeviceConfig config;
  config.device = "cuda";
  const auto backend = make_backend(config);
  ASSERT_FALSE(backend.ok());
  EXPECT_THAT(backend.status().message(), AllOf(HasSubstr("no CUDA"), HasSubstr("--device cpu")));
  config.device = "auto";
  ASSERT_TRUE(make_backend(config).ok());
  EXPECT_THAT((*make_backend(config))->description(), HasSubstr("cpu"));  // never the emulator
}

}  // namespace
}  // namespace sextant
#endif
