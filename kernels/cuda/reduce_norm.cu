#include "kernels/cuda/reduce_norm.h"

#include "kernels/cuda/element_dispatch.h"
#include "kernels/cuda/norm_row.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/warp.h"

namespace sextant::kernels::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kNormThreads) reduce_add_rms_norm_kernel(ReduceAddRmsNormArgs args) {
  constexpr int kWidth = kPerVector<T>;
  grid_dependency_wait();
  grid_dependency_launch();  // the product that follows asks for its weights while this one sums
  const int64_t row = blockIdx.x;
  float* residual = args.residual + row * args.residual_stride;
  T* out = static_cast<T*>(args.out) + row * args.out_stride;
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x) * kWidth; i < args.cols; i += kNormThreads * kWidth) {
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
  store_normed_row(residual, scale, args.weight, args.cols, out);
}

}  // namespace

int reduce_add_rms_norm(const ReduceAddRmsNormArgs& args, Stream stream) {
  if (args.rows == 0) return cudaSuccess;
  if (!fits_norm(args.rows, args.cols) || args.num_parts < 1 || args.num_parts > kMaxReducedParts ||
      args.part_stride < args.cols || args.part_stride % 8 != 0) {
    return cudaErrorInvalidValue;
  }
  return with_element_type(args.type, [&](auto zero) {
    return launch(norm_shape(args.rows), stream, reduce_add_rms_norm_kernel<decltype(zero)>, args);
  });
}

}  // namespace sextant::kernels::cuda
