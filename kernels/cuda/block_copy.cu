#include "kernels/cuda/block_copy.h"

#include <algorithm>

#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"

namespace sextant::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 4;
constexpr int64_t kMaxGridY = 65535;

__global__ void __launch_bounds__(kThreads) block_copy_kernel(BlockCopyArgs args) {
  grid_dependency_wait();
  auto* base = static_cast<uint4*>(args.arrays[blockIdx.y]);
  const int64_t vectors = args.block_bytes / 16;
  const int64_t first = int64_t{blockIdx.x} * (kThreads * kPerThread) + threadIdx.x;
  for (int32_t pair = static_cast<int32_t>(blockIdx.z); pair < args.num_pairs;
       pair += static_cast<int32_t>(gridDim.z)) {
    const int64_t from = args.pairs[2 * pair], to = args.pairs[2 * pair + 1];
    if (to < 0) continue;
    uint4 held[kPerThread];
    SEXTANT_UNROLL
    for (int k = 0; k < kPerThread; ++k) {
      if (first + k * kThreads < vectors) held[k] = base[from * vectors + first + k * kThreads];
    }
    SEXTANT_UNROLL
    for (int k = 0; k < kPerThread; ++k) {
      if (first + k * kThreads < vectors) base[to * vectors + first + k * kThreads] = held[k];
    }
  }
}

}  // namespace

int block_copy(const BlockCopyArgs& args, Stream stream) {
  if (args.num_pairs == 0 || args.num_arrays == 0) return cudaSuccess;
  if (args.num_pairs < 0 || args.num_arrays < 0 || args.num_arrays > kMaxGridY) return cudaErrorInvalidValue;
  if (args.block_bytes <= 0 || args.block_bytes % 16 != 0 || args.block_bytes > (int64_t{1} << 31)) {
    return cudaErrorInvalidValue;
  }
  const int64_t per_block = int64_t{kThreads} * kPerThread * 16;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>((args.block_bytes + per_block - 1) / per_block),
                                       static_cast<unsigned>(args.num_arrays),
                                       static_cast<unsigned>(std::min<int64_t>(args.num_pairs, kMaxGridY))),
                          .block = dim3(kThreads),
                          .overlaps_previous = true};
  return launch(shape, stream, block_copy_kernel, args);
}

}  // namespace sextant::kernels::cuda
