#include "kernels/cuda/step_inputs.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"

namespace sextant::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) last_token_kernel(LastTokenArgs args) {
  grid_dependency_wait();
  const auto i = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= args.count) return;
  const int32_t position = args.positions[i];
  if (position >= 0) args.token_ids[position] = args.sampled[args.rows[i]];
}

}  // namespace

int last_token_on_device(const LastTokenArgs& args, Stream stream) {
  if (args.count == 0) return cudaSuccess;
  if (args.count < 0) return cudaErrorInvalidValue;
  const auto blocks = static_cast<unsigned>((args.count + kThreads - 1) / kThreads);
  return launch({.grid = dim3(blocks), .block = dim3(kThreads), .overlaps_previous = true}, stream, last_token_kernel,
                args);
}

}  // namespace sextant::kernels::cuda
