// CudaMatrix: a weight matrix in device memory, in the layout of kernels/cuda/weight_layout.h, made of parts stacked by rows.
// Neighbouring parts of one format share tiles: there is one run of rows per change of format. Plain parts are kept in the type of
// the activations, to which others are rounded once; so are quantised ones that no kernel reads, unless they can be held as others
// without a change (host_matrix.h: held_type()). Other quantised parts and F8_E4M3 keep their bits. Included by cuda_* sources only.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/device/backend.h"
#include "engine/device/cuda_memory.h"
#include "engine/device/thread_pool.h"
#include "kernels/cuda/weight_layout.h"

namespace sextant {

// With which scales of its operands cuBLASLt multiplies e4m3 by e4m3: none before compute capability 8.9, one for the tensor
// from there on, on 9.0 also those of rows and of blocks. Weights whose scales it does not take are kept in tiles (W8A16).
enum class F8Products : uint8_t { kNone, kTensorScales, kAllScales };
F8Products f8_products_of(int compute_capability);

class CudaMatrix final : public WeightMatrix {
 public:
  struct Run {
    kernels::cuda::WeightFormat format;
    int64_t first_row;
    int64_t rows;
    const uint8_t* weights;  // or quants; device memory, aligned to 256 bytes
    const uint8_t* scales;   // nullptr for plain formats
    bool one_scale = false;  // kF8Rows: all are equal
  };

  // Packs on the pool's threads and copies piece by piece: beside the matrix itself, at most kStagingBytes of host memory (or
  // one tile of 32 rows, where that is more). Refuses types, sizes and lengths that do not fit, plain types whose columns
  // are no multiple of 8, finite weights that `plain` (kBFloat16 or kFloat16, the activations' type) cannot hold.
  static constexpr int64_t kStagingBytes = 16 << 20;
  static Result<std::unique_ptr<CudaMatrix>> create(
      std::span<const HostMatrix> parts, ThreadPool& pool, F8Products f8_products = F8Products::kNone,
      kernels::cuda::WeightFormat plain = kernels::cuda::WeightFormat::kBFloat16);

  // What size_bytes() of a matrix of one part will be; of F8_E4M3 in tiles, which take 3% more than its other layouts.
  static uint64_t bytes_of(WeightType type, int64_t rows, int64_t cols);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  size_t size_bytes() const override { return buffer_->size_bytes(); }

  const std::vector<Run>& runs() const { return runs_; }

 private:
  CudaMatrix() = default;
  Status upload(std::span<const HostMatrix> parts, ThreadPool& pool);

  int64_t rows_ = 0;
  int64_t cols_ = 0;
  std::vector<Run> runs_;
  std::unique_ptr<CudaBuffer> buffer_;
};

// out[t] = factor times row ids[t] - first_id of the table, f32; ids on the device. Rows of ids that the table does not have are left
// alone. out.cols is the table's, out.row_stride a multiple of 4.
Status embed_rows(const CudaMatrix& table, int64_t first_id, const int32_t* ids, float factor, Tensor out,
                  cudaStream_t stream);

}  // namespace sextant
