// The CUDA device that an engine runs on: which one, what it has, and why there is none.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/base/result.h"

namespace sextant {

struct CudaDevice {
  int index = 0;
  std::string name;
  std::string uuid;  // "GPU-...", as NVML and nvidia-smi have it; empty for the emulator's
  int compute_major = 0;
  int compute_minor = 0;
  int num_multiprocessors = 0;
  uint64_t memory_bytes = 0;
  int64_t shared_memory_per_block_bytes = 0;  // with opt-in

  int compute_capability() const { return compute_major * 10 + compute_minor; }
};

// What `--device auto` asks: whether this build and this machine could serve on CUDA.
bool cuda_available();
// Whether this build's CUDA runs on the CPU (kernels/simt).
bool cuda_is_emulated();

// Makes device `index` current for this thread and describes it. The error is one line that says what is missing (driver, device,
// compute capability 8.0) and names the CPU as the way out.
Result<CudaDevice> open_cuda_device(int index = 0);

// "GPU-01234567-89ab-cdef-0123-456789abcdef" from its 16 bytes.
std::string gpu_uuid_text(std::span<const char, 16> bytes);

}  // namespace sextant
