#include "kernels/cuda/elementwise.h"

#include "kernels/cuda/element_dispatch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/row_access.h"

namespace sextant::kernels::cuda {
namespace {

template <typename T, int kWidth>
__global__ void __launch_bounds__(kRowAccessThreads) add_kernel(AddArgs args) {
  grid_dependency_wait();
  grid_dependency_launch();
  const RowAccess at = row_access<kWidth>(args.rows, args.cols);
  if (!at.valid) return;
  float* residual = args.residual + at.row * args.residual_stride + at.col;
  const auto x = load_elements<kWidth>(static_cast<const T*>(args.x) + at.row * args.x_stride + at.col);
  float sum[kWidth];
  load_floats(residual, sum);
  SEXTANT_UNROLL
  for (int j = 0; j < kWidth; ++j) sum[j] += to_float(x.at[j]);
  store_floats(residual, sum);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kRowAccessThreads) add_bias_kernel(AddBiasArgs args) {
  grid_dependency_wait();
  grid_dependency_launch();
  const RowAccess at = row_access<kWidth>(args.rows, args.cols);
  if (!at.valid) return;
  T* p = static_cast<T*>(args.x) + at.row * args.x_stride + at.col;
  auto x = load_elements<kWidth>(p);
  float bias[kWidth];
  load_floats(args.bias + at.col, bias);
  SEXTANT_UNROLL
  for (int j = 0; j < kWidth; ++j) x.at[j] = from_float<T>(to_float(x.at[j]) + bias[j]);
  store_elements(p, x);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kRowAccessThreads) round_kernel(RoundArgs args) {
  grid_dependency_wait();
  grid_dependency_launch();
  const RowAccess at = row_access<kWidth>(args.rows, args.cols);
  if (!at.valid) return;
  float residual[kWidth];
  load_floats(args.residual + at.row * args.residual_stride + at.col, residual);
  Elements<T, kWidth> out;
  SEXTANT_UNROLL
  for (int j = 0; j < kWidth; ++j) out.at[j] = from_float<T>(residual[j]);
  store_elements(static_cast<T*>(args.out) + at.row * args.out_stride + at.col, out);
}

template <int kWidth>
__global__ void __launch_bounds__(kRowAccessThreads) softcap_kernel(SoftcapArgs args) {
  grid_dependency_wait();
  grid_dependency_launch();
  const RowAccess at = row_access<kWidth>(args.rows, args.cols);
  if (!at.valid) return;
  float* logits = args.logits + at.row * args.stride + at.col;
  float x[kWidth];
  load_floats(logits, x);
  SEXTANT_UNROLL
  for (int j = 0; j < kWidth; ++j) x[j] = args.cap * tanhf(x[j] / args.cap);
  store_floats(logits, x);
}

template <typename T>
int add_typed(const AddArgs& args, Stream stream) {
  const int64_t size = sizeof(T);
  return launch_row_access<T>(add_kernel<T, kPerVector<T>>, add_kernel<T, 1>,
                              {{args.residual, args.residual_stride * 4}, {args.x, args.x_stride * size}}, args,
                              stream);
}

template <typename T>
int add_bias_typed(const AddBiasArgs& args, Stream stream) {
  const int64_t size = sizeof(T);
  return launch_row_access<T>(add_bias_kernel<T, kPerVector<T>>, add_bias_kernel<T, 1>,
                              {{args.x, args.x_stride * size}, {args.bias, 0}}, args, stream);
}

template <typename T>
int round_typed(const RoundArgs& args, Stream stream) {
  const int64_t size = sizeof(T);
  return launch_row_access<T>(round_kernel<T, kPerVector<T>>, round_kernel<T, 1>,
                              {{args.residual, args.residual_stride * 4}, {args.out, args.out_stride * size}}, args,
                              stream);
}

}  // namespace

int add(const AddArgs& args, Stream stream) {
  if (args.rows == 0) return cudaSuccess;
  if (!fits_row_access(args.rows, args.cols)) return cudaErrorInvalidValue;
  if (args.residual_stride < args.cols || args.x_stride < args.cols) return cudaErrorInvalidValue;
  return with_element_type(args.type, [&](auto zero) { return add_typed<decltype(zero)>(args, stream); });
}

int add_bias(const AddBiasArgs& args, Stream stream) {
  if (args.rows == 0) return cudaSuccess;
  if (!fits_row_access(args.rows, args.cols) || args.x_stride < args.cols) return cudaErrorInvalidValue;
  return with_element_type(args.type, [&](auto zero) { return add_bias_typed<decltype(zero)>(args, stream); });
}

int round(const RoundArgs& args, Stream stream) {
  if (args.rows == 0) return cudaSuccess;
  if (!fits_row_access(args.rows, args.cols)) return cudaErrorInvalidValue;
  if (args.residual_stride < args.cols || args.out_stride < args.cols) return cudaErrorInvalidValue;
  return with_element_type(args.type, [&](auto zero) { return round_typed<decltype(zero)>(args, stream); });
}

int softcap(const SoftcapArgs& args, Stream stream) {
  if (args.rows == 0) return cudaSuccess;
  if (!fits_row_access(args.rows, args.cols) || args.stride < args.cols || !(args.cap > 0))
    return cudaErrorInvalidValue;
  return launch_row_access<float>(softcap_kernel<kPerVector<float>>, softcap_kernel<1>,
                                  {{args.logits, args.stride * 4}}, args, stream);
}

}  // namespace sextant::kernels::cuda
