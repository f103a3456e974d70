// The CUDA backend: kernels/cuda, cuBLASLt and graphs on one device and one stream. In builds without nvcc the same sources run
// on the CPU under kernels/simt ("cuda-emulated"): to prove them, not to serve.
#pragma once

#include <memory>

#include "engine/base/result.h"
#include "engine/config.h"
#include "engine/device/backend.h"

namespace sextant {

// On device number `index`, which becomes the calling thread's. Errors are one line: no driver, no such device, compute capability
// below 8.0.
Result<std::unique_ptr<Backend>> make_cuda_backend(const DeviceConfig& config, int index = 0);

}  // namespace sextant
