#include "kernels/cuda/quantize_f8.h"

#include <cuda_fp8.h>

#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/shared_memory.h"
#include "kernels/cuda/warp.h"
#include "kernels/cuda/weight_tile.h"

namespace sextant::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr float kLargest = 448;
constexpr int64_t kMaxCols = int64_t{1} << 20;
constexpr int kBlockLanes = 16;  // of 8 columns each

template <typename T>
__device__ __forceinline__ float largest_of_8(const uint4& vector, float largest) {
  float x[8];
  unpack_8<T>(vector, x);
  SEXTANT_UNROLL
  for (int k = 0; k < 8; ++k) largest = fmaxf(largest, fabsf(x[k]));
  return largest;
}
__device__ __forceinline__ float scale_of(float largest) { return largest > 0 ? largest / kLargest : 1.0f; }
__device__ __forceinline__ float inverse_of(float largest) { return largest > 0 ? kLargest / largest : 1.0f; }

template <typename T>
__device__ __forceinline__ uint2 quantized_8(const uint4& vector, float inverse) {
  float x[8];
  unpack_8<T>(vector, x);
  uint32_t words[2] = {};
  SEXTANT_UNROLL
  for (int k = 0; k < 8; ++k) {
    const uint32_t byte = __nv_cvt_float_to_fp8(x[k] * inverse, __NV_SATFINITE, __NV_E4M3);
    words[k / 4] |= byte << (8 * (k % 4));
  }
  return make_uint2(words[0], words[1]);
}

// The largest of a block's values, in each of its threads.
__device__ __forceinline__ float block_max(float x) {
  SEXTANT_SHARED(float, of_warp, [32]);
  x = warp_max(x);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? of_warp[threadIdx.x % 32] : 0.0f);
}

template <typename T>
__device__ __forceinline__ float row_max(const uint4* row, int num_vectors) {
  float largest = 0;
  for (int v = static_cast<int>(threadIdx.x); v < num_vectors; v += kThreads)
    largest = largest_of_8<T>(row[v], largest);
  return block_max(largest);
}

template <typename T>
__device__ __forceinline__ const uint4* row_of(const QuantizeF8Args& args, int64_t t) {
  return reinterpret_cast<const uint4*>(static_cast<const T*>(args.x) + t * args.x_stride);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) row_maxima_kernel(QuantizeF8Args args) {
  grid_dependency_wait();
  grid_dependency_launch();
  const float largest = row_max<T>(row_of<T>(args, blockIdx.x), static_cast<int>(args.cols / 8));
  if (threadIdx.x == 0) args.row_maxima[blockIdx.x] = largest;
}

template <F8Scaling kScaling, typename T>
__global__ void __launch_bounds__(kThreads) quantize_f8_rows_kernel(QuantizeF8Args args) {
  grid_dependency_wait();
  grid_dependency_launch();
  const int64_t t = blockIdx.x;
  const int num_vectors = static_cast<int>(args.cols / 8);
  const uint4* row = row_of<T>(args, t);
  float largest = 0;
  if constexpr (kScaling == F8Scaling::kPerTensor) {
    for (int i = static_cast<int>(threadIdx.x); i < args.num_tokens; i += kThreads) {
      largest = fmaxf(largest, args.row_maxima[i]);
    }
    largest = block_max(largest);
    if (t == 0 && threadIdx.x == 0) args.scales[0] = scale_of(largest);
  } else {
    largest = row_max<T>(row, num_vectors);
    if (threadIdx.x == 0) args.scales[t] = scale_of(largest);
  }
  const float inverse = inverse_of(largest);
  uint2* out = reinterpret_cast<uint2*>(static_cast<uint8_t*>(args.out) + t * args.cols);
  for (int v = static_cast<int>(threadIdx.x); v < num_vectors; v += kThreads) out[v] = quantized_8<T>(row[v], inverse);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) quantize_f8_blocks_kernel(QuantizeF8Args args) {
  grid_dependency_wait();
  grid_dependency_launch();
  const int64_t blocks = (args.cols + 127) / 128;
  const int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kBlockLanes;
  const int64_t t = at / blocks, block = at % blocks;
  const int lane = static_cast<int>(threadIdx.x) % kBlockLanes;
  const int64_t v = block * kBlockLanes + lane;
  const bool inside = t < args.num_tokens && v < args.cols / 8;
  const uint4 vector = inside ? row_of<T>(args, t)[v] : make_uint4(0, 0, 0, 0);
  float largest = largest_of_8<T>(vector, 0);
  SEXTANT_UNROLL
  for (int distance = kBlockLanes / 2; distance > 0; distance /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, distance));
  }
  if (!inside) return;
  if (lane == 0) args.scales[block * args.scale_stride + t] = scale_of(largest);
  reinterpret_cast<uint2*>(static_cast<uint8_t*>(args.out) + t * args.cols)[v] =
      quantized_8<T>(vector, inverse_of(largest));
}

template <typename T>
int launch_type(const QuantizeF8Args& args, Stream stream) {
  LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(args.num_tokens)), .block = dim3(kThreads), .overlaps_previous = true};
  switch (args.scaling) {
    case F8Scaling::kPerRow: return launch(shape, stream, quantize_f8_rows_kernel<F8Scaling::kPerRow, T>, args);
    case F8Scaling::kPerTensor: {
      const cudaError_t error = launch(shape, stream, row_maxima_kernel<T>, args);
      if (error != cudaSuccess) return error;
      return launch(shape, stream, quantize_f8_rows_kernel<F8Scaling::kPerTensor, T>, args);
    }
    case F8Scaling::kPerBlock: {
      const int64_t lanes = args.num_tokens * ((args.cols + 127) / 128) * kBlockLanes;
      if (lanes / kThreads >= 0x7fffffff) return cudaErrorInvalidValue;
      shape.grid = dim3(static_cast<unsigned>((lanes + kThreads - 1) / kThreads));
      return launch(shape, stream, quantize_f8_blocks_kernel<T>, args);
    }
  }
  return cudaErrorInvalidValue;
}

}  // namespace

int quantize_f8(const QuantizeF8Args& args, Stream stream) {
  const auto is_aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  if (args.num_tokens == 0) return cudaSuccess;
  if (args.num_tokens < 0 || args.cols < 16 || args.cols > kMaxCols || args.cols % 16 != 0 || args.x_stride % 8 != 0 ||
      !is_aligned(args.x) || !is_aligned(args.out) || args.scales == nullptr || args.x_type == ElementType::kFloat32 ||
      (args.scaling == F8Scaling::kPerTensor && args.row_maxima == nullptr) ||
      (args.scaling == F8Scaling::kPerBlock && args.scale_stride < args.num_tokens)) {
    return cudaErrorInvalidValue;
  }
  return args.x_type == ElementType::kBFloat16 ? launch_type<bf16>(args, stream) : launch_type<fp16>(args, stream);
}

}  // namespace sextant::kernels::cuda
