// CUDA's error codes as Status. Included by cuda_* sources only.
#pragma once

#include <cuda_runtime.h>

#include <string_view>

#include "engine/base/status.h"

namespace sextant {

// ok, or kDeviceError "<what>: <CUDA's text> (CUDA error <n>)".
Status cuda_status(cudaError_t error, std::string_view what);

#define RETURN_IF_CUDA_ERROR(call, what)                                    \
  do {                                                                      \
    if (const cudaError_t cuda_error_ = (call); cuda_error_ != cudaSuccess) \
      return ::sextant::cuda_status(cuda_error_, what);                     \
  } while (false)

}  // namespace sextant
