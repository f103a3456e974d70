#include "kernels/cuda/activation.h"

#include <type_traits>

#include "kernels/cuda/element_dispatch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/row_access.h"

namespace sextant::kernels::cuda {
namespace {

// g / (1 + exp(-x)); kExact: as good as fp32 gets, else as good as 16 bits need.
template <bool kExact>
__device__ __forceinline__ float gated_by_logistic(float g, float x) {
  if constexpr (kExact) return g / (1.0f + expf(-x));
  return __fdividef(g, 1.0f + exp2_approx(x * -1.44269504f));
}

template <Activation kActivation, bool kExact>
__device__ __forceinline__ float activate(float g) {
  if constexpr (kActivation == Activation::kSilu) return gated_by_logistic<kExact>(g, g);
  if constexpr (kActivation == Activation::kGeluTanh) {
    return gated_by_logistic<kExact>(g, 1.5957691216f * g * (1.0f + 0.044715f * g * g));  // 2 sqrt(2 / pi)
  }
  return 0.5f * g * erfcf(g * -0.70710678f);
}

template <typename T, int kWidth, Activation kActivation>
__global__ void __launch_bounds__(kRowAccessThreads) activation_mul_kernel(ActivationMulArgs args) {
  grid_dependency_wait();
  grid_dependency_launch();
  const RowAccess at = row_access<kWidth>(args.rows, args.cols);
  if (!at.valid) return;
  const T* p = static_cast<const T*>(args.gate_up) + at.row * args.gate_up_stride + at.col;
  const auto gate = load_elements<kWidth>(p);
  const auto up = load_elements<kWidth>(p + args.cols);
  Elements<T, kWidth> out;
  SEXTANT_UNROLL
  for (int j = 0; j < kWidth; ++j) {
    const float f = activate<kActivation, std::is_same_v<T, float>>(to_float(gate.at[j]));
    out.at[j] = from_float<T>(f * to_float(up.at[j]));
  }
  store_elements(static_cast<T*>(args.out) + at.row * args.out_stride + at.col, out);
}

template <typename T, Activation kActivation>
int of_activation(const ActivationMulArgs& args, Stream stream) {
  const int64_t size = sizeof(T);
  return launch_row_access<T>(
      activation_mul_kernel<T, kPerVector<T>, kActivation>, activation_mul_kernel<T, 1, kActivation>,
      {{args.gate_up, args.gate_up_stride * size}, {args.out, args.out_stride * size}}, args, stream);
}

template <typename T>
int of_type(const ActivationMulArgs& args, Stream stream) {
  switch (args.activation) {
    case Activation::kSilu: return of_activation<T, Activation::kSilu>(args, stream);
    case Activation::kGeluTanh: return of_activation<T, Activation::kGeluTanh>(args, stream);
    case Activation::kGeluErf: return of_activation<T, Activation::kGeluErf>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

int activation_mul(const ActivationMulArgs& args, Stream stream) {
  if (args.rows == 0) return cudaSuccess;
  if (!fits_row_access(args.rows, args.cols)) return cudaErrorInvalidValue;
  if (args.gate_up_stride < 2 * int64_t{args.cols} || args.out_stride < args.cols) return cudaErrorInvalidValue;
  return with_element_type(args.type, [&](auto zero) { return of_type<decltype(zero)>(args, stream); });
}

}  // namespace sextant::kernels::cuda
