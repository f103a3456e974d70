// NVML by a library of the tests (tests/support/fake_nvml.cpp), and the monitor that keeps a slow one off its callers.
#include "engine/device/nvml.h"

#include <dlfcn.h>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>

#include "engine/device/cuda_device.h"
#include "engine/device/device_monitor.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using std::chrono::steady_clock;

TEST(Nvml, ReadsWhatEachGpuTells) {
  const auto nvml = Nvml::open(FAKE_NVML);
  ASSERT_NE(nvml, nullptr);
  const std::vector<DeviceReading> readings = nvml->read();
  ASSERT_EQ(readings.size(), 2u) << "the third cannot be opened";
  EXPECT_EQ(readings[0].index, 0);
  EXPECT_EQ(readings[0].name, "Fake H200");
  EXPECT_EQ(readings[0].uuid, "GPU-01234567-89ab-cdef-0123-456789abcdef");
  EXPECT_EQ(readings[0].utilization_ratio, 0.87);
  EXPECT_EQ(readings[0].memory_used_bytes, uint64_t{43} << 30);
  EXPECT_EQ(readings[0].memory_total_bytes, uint64_t{143} << 30);
  EXPECT_EQ(readings[0].temperature_celsius, 64);
  EXPECT_EQ(readings[0].power_watts, 698.25);
  EXPECT_EQ(readings[1].name, "Fake A100");
  EXPECT_EQ(readings[1].memory_used_bytes, uint64_t{1} << 30);
  EXPECT_FALSE(readings[1].utilization_ratio || readings[1].temperature_celsius || readings[1].power_watts);
}

TEST(Nvml, ReadsOneGpuByTheUuidThatCudaGives) {
  const auto nvml = Nvml::open(FAKE_NVML);
  ASSERT_NE(nvml, nullptr);
  const char bytes[16] = {'\x01', '\x23', '\x45', '\x67', '\x89', '\xab', '\xcd', '\xef',
                          '\x01', '\x23', '\x45', '\x67', '\x89', '\xab', '\xcd', '\xef'};
  const std::vector<DeviceReading> readings = nvml->read(gpu_uuid_text(bytes));
  ASSERT_EQ(readings.size(), 1u);
  EXPECT_EQ(readings[0].index, 0);
  EXPECT_TRUE(nvml->read("GPU-of-another-machine").empty());
}

TEST(Nvml, CallsThatAreMissingAreValuesThatAreAbsent) {
  const auto nvml = Nvml::open(FAKE_NVML_OLD);
  ASSERT_NE(nvml, nullptr);
  const std::vector<DeviceReading> readings = nvml->read();
  ASSERT_EQ(readings.size(), 2u);
  EXPECT_EQ(readings[0].name, "Fake H200");
  EXPECT_FALSE(readings[0].utilization_ratio || readings[0].memory_used_bytes || readings[0].memory_total_bytes ||
               readings[0].temperature_celsius || readings[0].power_watts);
}

TEST(Nvml, IsNothingWithoutALibraryOrADriver) {
  EXPECT_EQ(Nvml::open("libnvidia-ml-that-is-not-there.so.1"), nullptr);
  EXPECT_EQ(Nvml::open(FAKE_NVML_NO_DRIVER), nullptr);
  EXPECT_EQ(Nvml::open("libm.so.6"), nullptr) << "without one of NVML's calls";
  const ScratchDirectory directory;
  EXPECT_EQ(Nvml::open(directory.write("libnvidia-ml.so.1", "not a library")), nullptr);
  EXPECT_TRUE(monitor_gpu("GPU-of-another-machine")().empty());
  EXPECT_TRUE(monitor_gpu("")().empty());
}

TEST(Nvml, IsClosedAfterUse) {
  void* library = dlopen(FAKE_NVML, RTLD_NOW);  // keeps it loaded, to be asked
  ASSERT_NE(library, nullptr);
  const auto num_started = reinterpret_cast<int (*)()>(dlsym(library, "fake_nvml_num_started"));
  {
    const auto nvml = Nvml::open(FAKE_NVML);
    EXPECT_EQ(num_started(), 1);
  }
  EXPECT_EQ(num_started(), 0);
  dlclose(library);
}

TEST(DeviceMonitor, ReadsAtMostOnceASecond) {
  std::atomic<int> num_read{0};
  DeviceMonitor monitor([&] {
    DeviceReading reading;
    reading.index = ++num_read;
    return std::vector<DeviceReading>{reading};
  });
  EXPECT_EQ(num_read, 0) << "idle while nobody asks";
  const auto begin = steady_clock::now();
  const auto is_within = [&](int ms) { return steady_clock::now() - begin < std::chrono::milliseconds(ms); };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 200; ++j) monitor.readings();
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (is_within(900)) {
    EXPECT_EQ(num_read, 1);
  }
  while (is_within(2100)) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  monitor.readings();
  EXPECT_GE(num_read, 2);
}

TEST(DeviceMonitor, AReadingThatHangsHoldsNobodyUp) {
  struct Gate {
    std::mutex mutex;
    std::condition_variable changed;
    bool open = false;
    bool left = false;
  };
  const auto gate = std::make_shared<Gate>();
  {
    DeviceMonitor monitor([gate] {
      std::unique_lock lock(gate->mutex);
      gate->changed.wait(lock, [&] { return gate->open; });
      gate->left = true;
      gate->changed.notify_all();
      return std::vector<DeviceReading>(1);
    });
    const auto begin = steady_clock::now();
    for (int i = 0; i < 50; ++i) EXPECT_TRUE(monitor.readings().empty());
    EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(3)) << "one of them waits 100 ms, not each";
  }  // nor does the destructor wait
  std::unique_lock lock(gate->mutex);
  gate->open = true;
  gate->changed.notify_all();
  EXPECT_TRUE(gate->changed.wait_for(lock, std::chrono::seconds(60), [&] { return gate->left; }));
}

}  // namespace
}  // namespace sextant
