// The machine that is emulated: profiles and the environment.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/simt/runtime.h"

namespace sextant::simt {
namespace {

[[noreturn]] void refuse(const char* name, const char* value, const char* wanted) {
  std::fprintf(stderr, "simt: %s is '%s', not %s\n", name, value, wanted);
  std::exit(2);
}

unsigned long long number_from_environment(const char* name, unsigned long long otherwise,
                                           unsigned long long at_least) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') return otherwise;
  char* end = nullptr;
  const unsigned long long value = std::strtoull(text, &end, 10);
  if (*end != '\0' || *text == '-' || value < at_least) refuse(name, text, "a number");
  return value;
}

}  // namespace

const DeviceProfile& profile_sm_80() {
  static const DeviceProfile profile{.name = "NVIDIA A100-SXM4-80GB (emulated)",
                                     .major = 8,
                                     .minor = 0,
                                     .num_multiprocessors = 108,
                                     .shared_per_block_opt_in_bytes = 163 << 10,
                                     .shared_per_multiprocessor_bytes = 164 << 10,
                                     .l2_bytes = 40 << 20,
                                     .memory_bus_bits = 5120,
                                     .clock_khz = 1'410'000,
                                     .memory_clock_khz = 1'593'000};
  return profile;
}

const DeviceProfile& profile_sm_89() {
  static const DeviceProfile profile{.name = "NVIDIA L40S (emulated)",
                                     .major = 8,
                                     .minor = 9,
                                     .num_multiprocessors = 142,
                                     .shared_per_block_opt_in_bytes = 99 << 10,
                                     .shared_per_multiprocessor_bytes = 100 << 10,
                                     .l2_bytes = 96 << 20,
                                     .memory_bus_bits = 384,
                                     .clock_khz = 2'520'000,
                                     .memory_clock_khz = 9'001'000};
  return profile;
}

const DeviceProfile& profile_sm_90() {
  static const DeviceProfile profile{.name = "NVIDIA H100 80GB HBM3 (emulated)",
                                     .major = 9,
                                     .minor = 0,
                                     .num_multiprocessors = 132,
                                     .shared_per_block_opt_in_bytes = 227 << 10,
                                     .shared_per_multiprocessor_bytes = 228 << 10,
                                     .l2_bytes = 50 << 20,
                                     .memory_bus_bits = 5120,
                                     .clock_khz = 1'980'000,
                                     .memory_clock_khz = 2'619'000};
  return profile;
}

Machine machine_from_environment() {
  Machine machine;
  if (const char* name = std::getenv("SEXTANT_SIMT_PROFILE"); name != nullptr && *name != '\0') {
    if (std::strcmp(name, "sm_90") == 0) {
      machine.profile = profile_sm_90();
    } else if (std::strcmp(name, "sm_89") == 0) {
      machine.profile = profile_sm_89();
    } else if (std::strcmp(name, "sm_80") != 0) {
      refuse("SEXTANT_SIMT_PROFILE", name, "sm_80, sm_89 or sm_90");
    }
  }
  machine.num_devices = static_cast<int>(number_from_environment("SEXTANT_SIMT_DEVICES", 1, 0));
  if (machine.num_devices > 32) refuse("SEXTANT_SIMT_DEVICES", std::getenv("SEXTANT_SIMT_DEVICES"), "at most 32");
  machine.memory_bytes = number_from_environment("SEXTANT_SIMT_MEMORY_BYTES", machine.memory_bytes, 1 << 20);
  if (const char* mode = std::getenv("SEXTANT_SIMT_PROTECTION"); mode != nullptr && *mode != '\0') {
    if (std::strcmp(mode, "off") == 0) {
      machine.protection = Protection::kOff;
    } else if (std::strcmp(mode, "always") == 0) {
      machine.protection = Protection::kAlways;
    } else if (std::strcmp(mode, "cheap") != 0) {
      refuse("SEXTANT_SIMT_PROTECTION", mode, "off, cheap or always");
    }
  }
  return machine;
}

}  // namespace sextant::simt
