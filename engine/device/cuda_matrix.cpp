// From a file's rows to device memory; at load, on the loader's thread and the pool.
#include "engine/device/cuda_matrix.h"

#include <algorithm>
#include <string>

#include "engine/device/cuda_status.h"
#include "engine/device/host_matrix.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/pack_weight.h"

namespace sextant {
namespace {

using kernels::PanelType;
using kernels::cuda::WeightFormat;

constexpr int64_t kAlignment = 256;
constexpr int64_t kMaxCols = 1 << 20;  // what the kernels take

// Rows of one encoding, as the file holds them.
struct FileRows {
  PanelType type;
  const uint8_t* data;
  int64_t rows;
  int64_t row_bytes;
};

Status copy_to_device(const void* from, const uint8_t* to, int64_t bytes) {
  RETURN_IF_CUDA_ERROR(cudaMemcpy(const_cast<uint8_t*>(to), from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice),
                       "copying weights to the device");
  return ok_status();
}

Status upload_plain(const FileRows& part, int64_t cols, const uint8_t* to, std::vector<uint8_t>& staging,
                    ThreadPool& pool) {
  const int64_t row_bytes = cols * 2;
  if (part.type == PanelType::kBF16) return copy_to_device(part.data, to, part.rows * row_bytes);
  const int64_t rows_per_piece = std::max<int64_t>(1, CudaMatrix::kStagingBytes / row_bytes);
  for (int64_t first = 0; first < part.rows; first += rows_per_piece) {
    const int64_t count = std::min(rows_per_piece, part.rows - first);
    staging.resize(static_cast<size_t>(count * row_bytes));
    pool.parallel_for(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        kernels::cuda::pack_plain_row(part.type, part.data + (first + r) * part.row_bytes, cols,
                                      reinterpret_cast<uint16_t*>(staging.data() + r * row_bytes));
      }
    });
    RETURN_IF_ERROR(copy_to_device(staging.data(), to + first * row_bytes, count * row_bytes));
  }
  return ok_status();
}

// All parts of the run are of one encoding; tiles go on from one part to the next.
Status upload_tiles(std::span<const FileRows> parts, const CudaMatrix::Run& run, int64_t cols,
                    std::vector<uint8_t>& staging, ThreadPool& pool) {
  using namespace kernels::cuda;
  const int64_t blocks = cols / kTileCols;
  const int64_t quants = blocks * quant_tile_bytes(run.format), scales = blocks * scale_tile_bytes(run.format);
  const int64_t tiles_per_piece = std::max<int64_t>(1, CudaMatrix::kStagingBytes / (quants + scales));
  std::vector<const uint8_t*> rows;
  rows.reserve(static_cast<size_t>(num_row_tiles(run.rows) * kTileRows));
  for (const FileRows& part : parts) {
    for (int64_t r = 0; r < part.rows; ++r) rows.push_back(part.data + r * part.row_bytes);
  }
  rows.resize(static_cast<size_t>(num_row_tiles(run.rows) * kTileRows), nullptr);
  for (int64_t first = 0; first < num_row_tiles(run.rows); first += tiles_per_piece) {
    const int64_t count = std::min(tiles_per_piece, num_row_tiles(run.rows) - first);
    staging.resize(static_cast<size_t>(count * (quants + scales)));
    uint8_t* staged_scales = staging.data() + count * quants;
    pool.parallel_for(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) {
        pack_row_tile(parts[0].type, rows.data() + (first + tile) * kTileRows, cols, staging.data() + tile * quants,
                      staged_scales + tile * scales);
      }
    });
    RETURN_IF_ERROR(copy_to_device(staging.data(), run.weights + first * quants, count * quants));
    RETURN_IF_ERROR(copy_to_device(staged_scales, run.scales + first * scales, count * scales));
  }
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<CudaMatrix>> CudaMatrix::create(std::span<const HostMatrix> parts, ThreadPool& pool) {
  if (parts.empty()) return invalid_argument("a weight matrix needs at least one part");
  std::unique_ptr<CudaMatrix> matrix(new CudaMatrix);
  matrix->cols_ = parts[0].cols;
  for (const HostMatrix& part : parts) {
    RETURN_IF_ERROR(check_host_matrix(part, matrix->cols_, "CUDA"));
    const WeightFormat format = kernels::cuda::weight_format_of(*panel_type_of(part.type));
    if (part.cols % kernels::cuda::column_multiple(format) != 0 || part.cols > kMaxCols || part.rows > INT32_MAX) {
      return unsupported("the CUDA backend does not compute with a matrix of " + std::to_string(part.rows) +
                         " rows and " + std::to_string(part.cols) + " columns: the columns must be a multiple of " +
                         std::to_string(kernels::cuda::column_multiple(format)) + " and at most " +
                         std::to_string(kMaxCols));
    }
    if (matrix->runs_.empty() || matrix->runs_.back().format != format) {
      matrix->runs_.push_back({format, matrix->rows_, 0, nullptr, nullptr});
    }
    matrix->runs_.back().rows += part.rows;
    matrix->rows_ += part.rows;
  }
  // Cannot overflow: the parts exist in memory, and tiles round them up to 32 rows.
  std::vector<int64_t> offsets;
  int64_t size_bytes = 0;
  const auto reserve = [&](int64_t bytes) {
    offsets.push_back(size_bytes);
    size_bytes += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  };
  for (const Run& run : matrix->runs_) {
    reserve(kernels::cuda::weight_bytes(run.format, run.rows, matrix->cols_));
    reserve(kernels::cuda::scale_bytes(run.format, run.rows, matrix->cols_));
  }
  ASSIGN_OR_RETURN(matrix->buffer_, CudaBuffer::create(static_cast<size_t>(size_bytes)));
  const auto* base = static_cast<const uint8_t*>(matrix->buffer_->data());
  for (size_t i = 0; i < matrix->runs_.size(); ++i) {
    Run& run = matrix->runs_[i];
    run.weights = base + offsets[2 * i];
    if (kernels::cuda::is_quantised(run.format)) run.scales = base + offsets[2 * i + 1];
  }
  RETURN_IF_ERROR(matrix->upload(parts, pool));
  return matrix;
}

Status CudaMatrix::upload(std::span<const HostMatrix> parts, ThreadPool& pool) {
  std::vector<uint8_t> staging;
  size_t next_part = 0;
  for (const Run& run : runs_) {
    std::vector<FileRows> of_run;
    for (int64_t rows = 0; rows < run.rows; rows += parts[next_part++].rows) {
      const HostMatrix& part = parts[next_part];
      const PanelType type = *panel_type_of(part.type);
      const auto* data = reinterpret_cast<const uint8_t*>(part.data.data());
      of_run.push_back({type, data, part.rows, kernels::file_row_bytes(type, cols_)});
      if (run.format == WeightFormat::kBFloat16) {
        RETURN_IF_ERROR(upload_plain(of_run.back(), cols_, run.weights + rows * cols_ * 2, staging, pool));
      }
    }
    if (kernels::cuda::is_quantised(run.format)) RETURN_IF_ERROR(upload_tiles(of_run, run, cols_, staging, pool));
  }
  return ok_status();
}

Status embed_rows(const CudaMatrix& table, const int32_t* ids, Tensor out, cudaStream_t stream) {
  for (const CudaMatrix::Run& run : table.runs()) {
    const auto error = static_cast<cudaError_t>(
        kernels::cuda::embed({run.format, run.weights, run.scales, run.first_row, run.rows, table.cols(), ids,
                              static_cast<int32_t>(out.rows), out.f32(), out.row_stride},
                             stream));
    RETURN_IF_CUDA_ERROR(error, "looking up embeddings");
  }
  return ok_status();
}

}  // namespace sextant
