#include "kernels/cuda/norm.h"

#include "kernels/cuda/element_dispatch.h"
#include "kernels/cuda/norm_row.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/row_access.h"
#include "kernels/cuda/warp.h"

namespace sextant::kernels::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kNormThreads) add_rms_norm_kernel(AddRmsNormArgs args) {
  constexpr int kWidth = kPerVector<T>;
  grid_dependency_wait();
  const int64_t row = blockIdx.x;
  float* residual = args.residual + row * args.residual_stride;
  const T* x = static_cast<const T*>(args.x) + row * args.x_stride;
  T* out = static_cast<T*>(args.out) + row * args.out_stride;
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x) * kWidth; i < args.cols; i += kNormThreads * kWidth) {
    Vector<T> added = {};
    if (args.x != nullptr) added = load_vector(x + i);
    for (int j = 0; j < kWidth; j += 4) {
      float4 r = *reinterpret_cast<const float4*>(residual + i + j);
      if (args.x != nullptr) {
        r.x += to_float(added.at[j]);
        r.y += to_float(added.at[j + 1]);
        r.z += to_float(added.at[j + 2]);
        r.w += to_float(added.at[j + 3]);
        *reinterpret_cast<float4*>(residual + i + j) = r;
      }
      squares += r.x * r.x + r.y * r.y + r.z * r.z + r.w * r.w;
    }
  }
  const float scale = rsqrtf(block_sum(squares) / static_cast<float>(args.cols) + args.eps);
  grid_dependency_launch();
  store_normed_row(residual, scale, args.weight, args.cols, out);
}

// residual + x, or residual alone, four elements from i.
template <typename T>
__device__ __forceinline__ float4 row_sum(const float* residual, const T* x, int i) {
  float4 r = *reinterpret_cast<const float4*>(residual + i);
  if (x != nullptr) {
    const auto added = load_elements<4>(x + i);
    r.x += to_float(added.at[0]);
    r.y += to_float(added.at[1]);
    r.z += to_float(added.at[2]);
    r.w += to_float(added.at[3]);
  }
  return r;
}

template <typename T>
__global__ void __launch_bounds__(kNormThreads) rms_norm_rows_kernel(RmsNormRowsArgs args) {
  grid_dependency_wait();
  const int64_t row = blockIdx.x;
  const int64_t from = args.row_indices == nullptr ? row : args.row_indices[row];
  const float* residual = args.residual + from * args.residual_stride;
  const T* x = args.x == nullptr ? nullptr : static_cast<const T*>(args.x) + from * args.x_stride;
  T* out = static_cast<T*>(args.out) + row * args.out_stride;
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x) * 4; i < args.cols; i += kNormThreads * 4) {
    const float4 r = row_sum(residual, x, i);
    squares += r.x * r.x + r.y * r.y + r.z * r.z + r.w * r.w;
  }
  const float scale = rsqrtf(block_sum(squares) / static_cast<float>(args.cols) + args.eps);
  grid_dependency_launch();
  for (int i = static_cast<int>(threadIdx.x) * 4; i < args.cols; i += kNormThreads * 4) {
    const float4 r = row_sum(residual, x, i);
    const float4 w = *reinterpret_cast<const float4*>(args.weight + i);
    store_elements(out + i, Elements<T, 4>{{from_float<T>(r.x * scale * w.x), from_float<T>(r.y * scale * w.y),
                                            from_float<T>(r.z * scale * w.z), from_float<T>(r.w * scale * w.w)}});
  }
}

constexpr int kHeadsPerBlock = 4;  // warps

template <typename T>
__global__ void __launch_bounds__(kHeadsPerBlock * 32) rms_norm_heads_kernel(RmsNormHeadsArgs args) {
  constexpr int kWidth = kPerVector<T>;
  grid_dependency_wait();
  grid_dependency_launch();
  const int head = static_cast<int>(blockIdx.y) * kHeadsPerBlock + static_cast<int>(threadIdx.x / 32);
  if (head >= args.num_heads) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  T* x = static_cast<T*>(args.x) + int64_t{blockIdx.x} * args.x_stride + int64_t{head} * args.head_dim;
  float squares = 0;
  for (int i = lane * kWidth; i < args.head_dim; i += 32 * kWidth) {
    const Vector<T> v = load_vector(x + i);
    SEXTANT_UNROLL
    for (int j = 0; j < kWidth; ++j) squares += to_float(v.at[j]) * to_float(v.at[j]);
  }
  const float scale = rsqrtf(warp_sum(squares) / static_cast<float>(args.head_dim) + args.eps);
  for (int i = lane * kWidth; i < args.head_dim; i += 32 * kWidth) {
    Vector<T> v = load_vector(x + i);
    SEXTANT_UNROLL
    for (int j = 0; j < kWidth; j += 4) {
      const float4 w = *reinterpret_cast<const float4*>(args.weight + i + j);
      v.at[j] = from_float<T>(to_float(v.at[j]) * scale * w.x);
      v.at[j + 1] = from_float<T>(to_float(v.at[j + 1]) * scale * w.y);
      v.at[j + 2] = from_float<T>(to_float(v.at[j + 2]) * scale * w.z);
      v.at[j + 3] = from_float<T>(to_float(v.at[j + 3]) * scale * w.w);
    }
    store_vector(x + i, v);
  }
}

}  // namespace

int rms_norm_heads(const RmsNormHeadsArgs& args, Stream stream) {
  if (args.rows == 0 || args.num_heads == 0) return cudaSuccess;
  if (!fits_norm(args.rows, args.head_dim) || args.num_heads < 0 ||
      args.x_stride < int64_t{args.num_heads} * args.head_dim) {
    return cudaErrorInvalidValue;
  }
  const int num_blocks = (args.num_heads + kHeadsPerBlock - 1) / kHeadsPerBlock;
  if (num_blocks > 65535) return cudaErrorInvalidValue;
  const LaunchShape shape = {.grid = dim3(static_cast<unsigned>(args.rows), static_cast<unsigned>(num_blocks)),
                             .block = dim3(kHeadsPerBlock * 32),
                             .overlaps_previous = true};
  return with_element_type(
      args.type, [&](auto zero) { return launch(shape, stream, rms_norm_heads_kernel<decltype(zero)>, args); });
}

int add_rms_norm(const AddRmsNormArgs& args, Stream stream) {
  if (args.rows == 0) return cudaSuccess;
  if (!fits_norm(args.rows, args.cols)) return cudaErrorInvalidValue;
  return with_element_type(args.type, [&](auto zero) {
    return launch(norm_shape(args.rows), stream, add_rms_norm_kernel<decltype(zero)>, args);
  });
}

int rms_norm_rows(const RmsNormRowsArgs& args, Stream stream) {
  if (args.rows == 0) return cudaSuccess;
  if (!fits_norm(args.rows, args.cols)) return cudaErrorInvalidValue;
  return with_element_type(args.type, [&](auto zero) {
    return launch(norm_shape(args.rows), stream, rms_norm_rows_kernel<decltype(zero)>, args);
  });
}

}  // namespace sextant::kernels::cuda
