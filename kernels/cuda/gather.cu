#include "kernels/cuda/gather.h"

#include "kernels/cuda/ptx.h"
#include "kernels/cuda/row_access.h"

namespace sextant::kernels::cuda {
namespace {

template <typename T, int kWidth>
__global__ void __launch_bounds__(kRowAccessThreads) gather_rows_kernel(GatherRowsArgs args) {
  grid_dependency_wait();
  grid_dependency_launch();
  const RowAccess at = row_access<kWidth>(args.rows, args.cols);
  if (!at.valid) return;
  const T* from = static_cast<const T*>(args.x) + args.row_indices[at.row] * args.x_stride + at.col;
  store_elements(static_cast<T*>(args.out) + at.row * args.out_stride + at.col, load_elements<kWidth>(from));
}

template <typename T>
int of_size(const GatherRowsArgs& args, Stream stream) {
  const int64_t size = sizeof(T);
  return launch_row_access<T>(gather_rows_kernel<T, kPerVector<T>>, gather_rows_kernel<T, 1>,
                              {{args.x, args.x_stride * size}, {args.out, args.out_stride * size}}, args, stream);
}

}  // namespace

int gather_rows(const GatherRowsArgs& args, Stream stream) {
  if (args.rows == 0) return cudaSuccess;
  if (!fits_row_access(args.rows, args.cols)) return cudaErrorInvalidValue;
  if (args.x_stride < args.cols || args.out_stride < args.cols) return cudaErrorInvalidValue;
  return args.type == ElementType::kFloat32 ? of_size<uint32_t>(args, stream) : of_size<uint16_t>(args, stream);
}

}  // namespace sextant::kernels::cuda
