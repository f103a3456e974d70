// DeviceReading: what a GPU says about itself at a moment. Plain data; what it does not tell is absent.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace sextant {

struct DeviceReading {
  int32_t index = 0;                        // among the GPUs that NVML sees, which need not be CUDA's number
  std::string name;                         // "NVIDIA H200"
  std::string uuid;                         // "GPU-..."
  std::optional<double> utilization_ratio;  // 0..1: the share of a recent interval in which a kernel ran
  std::optional<uint64_t> memory_used_bytes;
  std::optional<uint64_t> memory_total_bytes;
  std::optional<double> temperature_celsius;
  std::optional<double> power_watts;
};

}  // namespace sextant
