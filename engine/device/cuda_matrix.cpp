// From a file's rows to device memory; at load, on the loader's thread and the pool.
#include "engine/device/cuda_matrix.h"

#include <algorithm>
#include <atomic>
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

constexpr const char* kNotANumber = "an F8_E4M3 matrix holds a weight that is not a number (0x7f or 0xff)";

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

const uint8_t* bytes_of(const HostMatrix& part) { return reinterpret_cast<const uint8_t*>(part.data.data()); }

WeightType held(WeightType type) { return *held_type(type, HeldBy::kCuda); }

Status copy_to_device(const void* from, const uint8_t* to, int64_t bytes) {
  RETURN_IF_CUDA_ERROR(cudaMemcpy(const_cast<uint8_t*>(to), from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice),
                       "copying weights to the device");
  return ok_status();
}

Status upload_plain(const HostMatrix& part, const CudaMatrix::Run& run, const uint8_t* to,
                    std::vector<uint8_t>& staging, ThreadPool& pool) {
  const bool is_decoded = held(part.type) != part.type;  // of rows in fp32
  const PanelType type = is_decoded ? PanelType::kF32 : *panel_type_of(part.type);
  const bool is_f16 = run.format == WeightFormat::kFloat16;
  const int64_t cols = part.cols, row_bytes = cols * 2;
  if (type == (is_f16 ? PanelType::kF16 : PanelType::kBF16))
    return copy_to_device(bytes_of(part), to, part.rows * row_bytes);
  const int64_t rows_per_piece = std::max<int64_t>(1, CudaMatrix::kStagingBytes / row_bytes);
  for (int64_t first = 0; first < part.rows; first += rows_per_piece) {
    const int64_t count = std::min(rows_per_piece, part.rows - first);
    staging.resize(static_cast<size_t>(count * row_bytes));
    std::atomic<bool> fits = true;
    pool.parallel_for(count, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> values(static_cast<size_t>(is_decoded ? cols : 0));
      for (int64_t r = begin; r < end; ++r) {
        const uint8_t* row = reinterpret_cast<const uint8_t*>(values.data());
        if (!is_decoded) {
          row = bytes_of(part) + (first + r) * kernels::file_row_bytes(type, cols);
        } else if (!decode_row(part, first + r, values.data())) {
          fits = false;
        }
        if (!kernels::cuda::pack_plain_row(type, run.format, row, cols,
                                           reinterpret_cast<uint16_t*>(staging.data() + r * row_bytes))) {
          fits = false;
        }
      }
    });
    if (!fits && is_decoded) return does_not_hold(part.type, is_f16 ? WeightType::kF16 : WeightType::kBF16);
    if (!fits) {
      return unsupported(is_f16 ? "a weight is beyond 65504, the largest number of float16: use --dtype bfloat16"
                                : "a weight is beyond the largest number of bfloat16",
                         "dtype");
    }
    RETURN_IF_ERROR(copy_to_device(staging.data(), to + first * row_bytes, count * row_bytes));
  }
  return ok_status();
}

// Tiles of a run, piece by piece: pack(tile, quants, scales) fills one row of them.
template <typename Pack>
Status upload_tiles(const CudaMatrix::Run& run, int64_t cols, std::vector<uint8_t>& staging, ThreadPool& pool,
                    Pack&& pack) {
  using namespace kernels::cuda;
  const int64_t quants = cols / kTileCols * quant_tile_bytes(run.format);
  const int64_t scales = scales_per_row_tile(run.format, cols) * scale_tile_bytes(run.format);
  const int64_t tiles_per_piece = std::max<int64_t>(1, CudaMatrix::kStagingBytes / (quants + scales));
  for (int64_t first = 0; first < num_row_tiles(run.rows); first += tiles_per_piece) {
    const int64_t count = std::min(tiles_per_piece, num_row_tiles(run.rows) - first);
    staging.resize(static_cast<size_t>(count * (quants + scales)));
    uint8_t* staged_scales = staging.data() + count * quants;
    pool.parallel_for(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) {
        pack(first + tile, staging.data() + tile * quants, staged_scales + tile * scales);
      }
    });
    RETURN_IF_ERROR(copy_to_device(staging.data(), run.weights + first * quants, count * quants));
    RETURN_IF_ERROR(copy_to_device(staged_scales, run.scales + first * scales, count * scales));
  }
  return ok_status();
}

// All parts of the run are held in one encoding; tiles go on from one part to the next.
Status upload_blocks(std::span<const HostMatrix> parts, const CudaMatrix::Run& run, int64_t cols,
                     std::vector<uint8_t>& staging, ThreadPool& pool) {
  const WeightType held_as = held(parts[0].type);
  const PanelType type = *panel_type_of(held_as);
  const int64_t row_bytes = kernels::file_row_bytes(type, cols);
  struct Row {
    const HostMatrix* part = nullptr;
    int64_t at = 0;  // in the part
  };
  std::vector<Row> rows;
  rows.reserve(static_cast<size_t>(kernels::cuda::num_row_tiles(run.rows) * kernels::cuda::kTileRows));
  for (const HostMatrix& part : parts) {
    for (int64_t r = 0; r < part.rows; ++r) rows.push_back({&part, r});
  }
  rows.resize(static_cast<size_t>(kernels::cuda::num_row_tiles(run.rows) * kernels::cuda::kTileRows));
  return upload_tiles(run, cols, staging, pool, [&](int64_t tile, uint8_t* quants, uint8_t* scales) {
    std::vector<uint8_t> recoded;
    const uint8_t* of_tile[kernels::cuda::kTileRows] = {};
    for (int64_t r = 0; r < kernels::cuda::kTileRows; ++r) {
      const auto& [part, at] = rows[static_cast<size_t>(tile * kernels::cuda::kTileRows + r)];
      if (part == nullptr) continue;
      if (part->type == held_as) {
        of_tile[r] = bytes_of(*part) + at * row_bytes;
        continue;
      }
      recoded.resize(static_cast<size_t>(kernels::cuda::kTileRows * row_bytes));
      uint8_t* to = recoded.data() + r * row_bytes;
      CHECK(recode_row(*part, at, held_as, nullptr, to)) << "quants are copied and not judged";
      of_tile[r] = to;
    }
    kernels::cuda::pack_row_tile(type, of_tile, cols, quants, scales);
  });
}

Status upload_f8_tiles(std::span<const HostMatrix> parts, const CudaMatrix::Run& run, int64_t cols,
                       std::vector<uint8_t>& staging, ThreadPool& pool) {
  std::vector<kernels::cuda::F8Row> rows;
  rows.reserve(static_cast<size_t>(kernels::cuda::num_row_tiles(run.rows) * kernels::cuda::kTileRows));
  for (const HostMatrix& part : parts) {
    const int64_t scales_per_row = (cols + part.scale_block_cols - 1) / part.scale_block_cols;
    for (int64_t r = 0; r < part.rows; ++r) {
      rows.push_back({bytes_of(part) + r * cols, part.scales.data() + r / part.scale_block_rows * scales_per_row,
                      part.scale_block_cols});
    }
  }
  rows.resize(static_cast<size_t>(kernels::cuda::num_row_tiles(run.rows) * kernels::cuda::kTileRows),
              {nullptr, nullptr, 1});
  std::atomic<bool> is_finite = true;
  RETURN_IF_ERROR(upload_tiles(run, cols, staging, pool, [&](int64_t tile, uint8_t* quants, uint8_t* scales) {
    if (!kernels::cuda::pack_f8_row_tile(rows.data() + tile * kernels::cuda::kTileRows, cols, quants, scales)) {
      is_finite = false;
    }
  }));
  return is_finite ? ok_status() : data_loss(kNotANumber);
}

// Row-major bytes go as they are; scales are spread to one a row, or their rows of blocks to a stride that is a multiple of 4.
Status upload_f8_rows(std::span<const HostMatrix> parts, const CudaMatrix::Run& run, int64_t cols) {
  std::vector<float> scales;
  int64_t first = 0;
  for (const HostMatrix& part : parts) {
    for (const std::byte weight : part.data) {
      if ((static_cast<uint8_t>(weight) & 0x7fu) == 0x7fu) return data_loss(kNotANumber);
    }
    RETURN_IF_ERROR(copy_to_device(bytes_of(part), run.weights + first * cols, part.rows * cols));
    first += part.rows;
    if (run.format == WeightFormat::kF8Rows) {
      for (int64_t r = 0; r < part.rows; ++r) {
        scales.push_back(part.scales[static_cast<size_t>(r / part.scale_block_rows)]);
      }
      continue;
    }
    const int64_t blocks = (cols + 127) / 128;
    for (int64_t r = 0; r < (part.rows + 127) / 128; ++r) {
      for (int64_t b = 0; b < kernels::cuda::block_scale_stride(cols); ++b) {
        scales.push_back(b < blocks ? part.scales[static_cast<size_t>(r * blocks + b)] : 0.0f);
      }
    }
  }
  return copy_to_device(scales.data(), run.scales, static_cast<int64_t>(scales.size() * sizeof(float)));
}

bool has_one_scale(const HostMatrix& part) {
  return std::all_of(part.scales.begin(), part.scales.end(), [&](float scale) { return scale == part.scales[0]; });
}

WeightFormat format_of(WeightType type, WeightFormat plain) {
  return type == WeightType::kF8E4M3 ? WeightFormat::kF8Tiles
                                     : kernels::cuda::weight_format_of(*panel_type_of(held(type)), plain);
}

// Of a part that begins at `first_row` of its matrix: cuBLASLt asks for 16 bytes of alignment everywhere.
WeightFormat format_of(const HostMatrix& part, int64_t first_row, F8Products f8_products, WeightFormat plain) {
  const WeightFormat format = format_of(part.type, plain);
  if (format != WeightFormat::kF8Tiles || part.rows % 16 != 0 || part.cols % 16 != 0 || first_row % 16 != 0)
    return format;
  const bool has_blocks = part.scale_block_rows == 128 && part.scale_block_cols == 128;
  switch (f8_products) {
    case F8Products::kNone: return format;
    case F8Products::kTensorScales: return has_one_scale(part) ? WeightFormat::kF8Rows : format;
    case F8Products::kAllScales: return has_blocks ? WeightFormat::kF8Blocks : WeightFormat::kF8Rows;
  }
  return format;
}

// Whether `part` goes on with the run that `before` ended in. Blocks of scales must go on where a block ends, and a product with
// one scale takes one.
bool continues(const CudaMatrix::Run& run, const HostMatrix& before, const HostMatrix& part, WeightFormat format,
               F8Products f8_products) {
  if (run.format != format) return false;
  if (format == WeightFormat::kF8Blocks) return run.rows % 128 == 0;
  if (format == WeightFormat::kF8Rows && f8_products == F8Products::kTensorScales)
    return before.scales[0] == part.scales[0];
  return true;
}

}  // namespace

F8Products f8_products_of(int compute_capability) {
  if (compute_capability < 89) return F8Products::kNone;
  return compute_capability == 90 ? F8Products::kAllScales : F8Products::kTensorScales;
}

Result<std::unique_ptr<CudaMatrix>> CudaMatrix::create(std::span<const HostMatrix> parts, ThreadPool& pool,
                                                       F8Products f8_products, WeightFormat plain) {
  if (parts.empty()) return invalid_argument("a weight matrix needs at least one part");
  std::unique_ptr<CudaMatrix> matrix(new CudaMatrix);
  matrix->cols_ = parts[0].cols;
  for (size_t i = 0; i < parts.size(); ++i) {
    const HostMatrix& part = parts[i];
    RETURN_IF_ERROR(check_host_matrix(part, matrix->cols_, "CUDA"));
    const WeightFormat format = format_of(part, matrix->rows_, f8_products, plain);
    if (part.cols % kernels::cuda::column_multiple(format) != 0 || part.cols > kMaxCols || part.rows > INT32_MAX) {
      return unsupported("the CUDA backend does not compute with a matrix of " + std::to_string(part.rows) +
                         " rows and " + std::to_string(part.cols) + " columns: the columns must be a multiple of " +
                         std::to_string(kernels::cuda::column_multiple(format)) + " and at most " +
                         std::to_string(kMaxCols));
    }
    const bool one_scale = format == WeightFormat::kF8Rows && has_one_scale(part);
    if (matrix->runs_.empty() || !continues(matrix->runs_.back(), parts[i - 1], part, format, f8_products)) {
      matrix->runs_.push_back({format, matrix->rows_, 0, nullptr, nullptr, one_scale});
    } else {
      Run& run = matrix->runs_.back();
      run.one_scale = run.one_scale && one_scale && parts[i - 1].scales[0] == part.scales[0];
    }
    matrix->runs_.back().rows += part.rows;
    matrix->rows_ += part.rows;
  }
  // Cannot overflow: the parts exist in memory, and tiles round them up to 32 rows.
  std::vector<int64_t> offsets;
  int64_t size_bytes = 0;
  const auto reserve = [&](int64_t bytes) {
    offsets.push_back(size_bytes);
    size_bytes += aligned(bytes);
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
    if (!kernels::cuda::is_plain(run.format)) run.scales = base + offsets[2 * i + 1];
  }
  RETURN_IF_ERROR(matrix->upload(parts, pool));
  return matrix;
}

uint64_t CudaMatrix::bytes_of(WeightType type, int64_t rows, int64_t cols) {
  if (!is_computable(type))
    return encoded_bytes(type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols)).value_or(0);
  const WeightFormat format = format_of(type, WeightFormat::kBFloat16);  // kFloat16 takes as much
  return static_cast<uint64_t>(aligned(kernels::cuda::weight_bytes(format, rows, cols)) +
                               aligned(kernels::cuda::scale_bytes(format, rows, cols)));
}

Status CudaMatrix::upload(std::span<const HostMatrix> parts, ThreadPool& pool) {
  std::vector<uint8_t> staging;
  size_t next_part = 0;
  for (const Run& run : runs_) {
    const size_t first_part = next_part;
    for (int64_t rows = 0; rows < run.rows; rows += parts[next_part++].rows) {
      if (!kernels::cuda::is_plain(run.format)) continue;
      RETURN_IF_ERROR(upload_plain(parts[next_part], run, run.weights + rows * cols_ * 2, staging, pool));
    }
    const std::span<const HostMatrix> of_run = parts.subspan(first_part, next_part - first_part);
    if (run.format == WeightFormat::kF8Tiles) {
      RETURN_IF_ERROR(upload_f8_tiles(of_run, run, cols_, staging, pool));
    } else if (kernels::cuda::is_f8_row_major(run.format)) {
      RETURN_IF_ERROR(upload_f8_rows(of_run, run, cols_));
    } else if (kernels::cuda::is_tiled(run.format)) {
      RETURN_IF_ERROR(upload_blocks(of_run, run, cols_, staging, pool));
    }
  }
  return ok_status();
}

Status embed_rows(const CudaMatrix& table, int64_t first_id, const int32_t* ids, float factor, Tensor out,
                  cudaStream_t stream) {
  for (const CudaMatrix::Run& run : table.runs()) {
    const auto error = static_cast<cudaError_t>(
        kernels::cuda::embed({run.format, run.weights, run.scales, first_id + run.first_row, run.rows, table.cols(),
                              ids, static_cast<int32_t>(out.rows), out.f32(), out.row_stride, factor},
                             stream));
    RETURN_IF_CUDA_ERROR(error, "looking up embeddings");
  }
  return ok_status();
}

}  // namespace sextant
