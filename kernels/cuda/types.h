// What launchers and their callers share. No CUDA header: callers outside kernels/cuda may include it.
// Every launcher returns a cudaError_t as int (0: launched); it checks its limits and launches nothing when they are broken.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace sextant::kernels::cuda {

using Stream = CUstream_st*;

enum class ElementType : uint8_t { kFloat32, kBFloat16, kFloat16 };

}  // namespace sextant::kernels::cuda
