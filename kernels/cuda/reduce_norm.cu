#include "kernels/cuda/reduce_norm.h"

#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/warp.h"

namespace sextant::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) reduce_add_rms_norm_kernel(ReduceAddRmsNormArgs args) {
  constexpr int kWidth = kPerVector<T>;
  grid_dependency_wait();
  const int64_t row = blockIdx.x;
  float* residual = args.residual + row * args.residual_stride;
  T* out = static_cast<T*>(args.out) + row * args.out_stride;
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x) * kWidth; i < args.cols; i += kThreads * kWidth) {
    float sums[kWidth];
    for (int r = 0; r < args.num_parts; ++r) {
      const Vector<T> part = load_vector(static_cast<const T*>(args.parts[r]) + row * args.part_stride + i);
      SEXTANT_UNROLL
      for (int j = 0; j < kWidth; ++j) sums[j] = r == 0 ? to_float(part.at[j]) : sums[j] + to_float(part.at[j]);
    }
    SEXTANT_UNROLL
    for (int j = 0; j < kWidth; j += 4) {
      float4 x = *reinterpret_cast<const float4*>(residual + i + j);
      x.x += sums[j];
      x.y += sums[j + 1];
      x.z += sums[j + 2];
      x.w += sums[j + 3];
      *reinterpret_cast<float4*>(residual + i + j) = x;
      squares += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
    }
  }
  const float scale = rsqrtf(block_sum(squares) / static_cast<float>(args.cols) + args.eps);
  grid_dependency_launch();
  for (int i = static_cast<int>(threadIdx.x) * kWidth; i < args.cols; i += kThreads * kWidth) {
    Vector<T> result;
    for (int j = 0; j < kWidth; ++j) result.at[j] = from_float<T>(residual[i + j] * scale * args.weight[i + j]);
    store_vector(out + i, result);
  }
}

}  // namespace

int reduce_add_rms_norm(const ReduceAddRmsNormArgs& args, Stream stream) {
  if (args.rows == 0) return cudaSuccess;
  if (args.rows < 0 || args.cols <= 0 || args.cols % 8 != 0 || args.cols > 65536 || args.num_parts < 1 ||
      args.num_parts > kMaxReducedParts || args.part_stride < args.cols || args.part_stride % 8 != 0) {
    return cudaErrorInvalidValue;
  }
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(args.rows)), .block = dim3(kThreads), .overlaps_previous = true};
  switch (args.type) {
    case ElementType::kFloat32: return launch(shape, stream, reduce_add_rms_norm_kernel<float>, args);
    case ElementType::kBFloat16: return launch(shape, stream, reduce_add_rms_norm_kernel<bf16>, args);
    case ElementType::kFloat16: return launch(shape, stream, reduce_add_rms_norm_kernel<fp16>, args);
  }
  return cudaErrorInvalidValue;
}

}  // namespace sextant::kernels::cuda
