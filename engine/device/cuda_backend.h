// The CUDA backend: kernels/cuda, cuBLASLt and graphs on one device and one stream. In builds without nvcc the same sources run
// on the CPU under kernels/simt ("cuda-emulated"): to prove them, not to serve.
#pragma once

#include <memory>

#include "engine/base/result.h"
#include "engine/config.h"
#include "engine/device/backend.h"

namespace sextant {

// On device number `index`, which becomes the calling thread's. `activation`: kBFloat16 or kFloat16; plain weights and the KV cache
// are of that type, too. The residual stream is fp32, so that only single ops can leave fp16's range: what is beyond 65504 becomes
// infinity. Errors are one line: no driver, no such device, compute capability below 8.0, another type.
Result<std::unique_ptr<Backend>> make_cuda_backend(const DeviceConfig& config, int index = 0,
                                                   DType activation = DType::kBFloat16);

}  // namespace sextant
