// Nvml: NVIDIA's management library, which comes with the driver, opened at run time: the CUDA toolkit has no header for it
// and a machine without a GPU has no library. Any thread, one at a time. Calls may block while the driver is in trouble.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/device/device_reading.h"

namespace sextant {

class Nvml {
 public:
  // Nothing where the library is absent, lacks what every version since 2012 has, or does not start (no driver).
  static std::unique_ptr<Nvml> open(const std::string& library = "libnvidia-ml.so.1");
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // Every GPU, or the one with this UUID. What a GPU refuses to tell is absent; a GPU that says nothing at all is left out.
  std::vector<DeviceReading> read(const std::string& uuid = {}) const;

 private:
  struct Calls;
  Nvml(void* library, std::unique_ptr<Calls> calls);

  void* library_;
  std::unique_ptr<Calls> calls_;
};

}  // namespace sextant
