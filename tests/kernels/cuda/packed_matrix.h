// A random weight matrix on the device in weight_layout.h's format, beside its exact numbers.
#pragma once

#include <memory>
#include <tuple>

#include "kernels/cuda/pack_weight.h"
#include "tests/kernels/cuda/cuda_test_support.h"

namespace sextant::kernels::cuda {

// A type that files hold: the panels' types by their numbers, and e4m3 with one scale for the tensor, for a row, for 128 x 128.
// The last two are kept row-major.
enum class FileType {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kF8Tensor,
  kF8Rows,
  kF8Blocks,
  kF8RowMajor,
  kF8RowMajorBlocks
};
inline bool is_f8(FileType type) { return type >= FileType::kF8Tensor; }
inline std::vector<FileType> quantised_file_types() {
  return {FileType::kQ8_0,     FileType::kQ4_0,   FileType::kQ4_1,
          FileType::kF8Tensor, FileType::kF8Rows, FileType::kF8Blocks};
}
inline std::vector<FileType> all_file_types() {
  std::vector<FileType> types = quantised_file_types();
  types.insert(types.end(),
               {FileType::kF32, FileType::kF16, FileType::kBF16, FileType::kF8RowMajor, FileType::kF8RowMajorBlocks});
  return types;
}
// `plain`: what plain types become, the format of the activations' type.
inline WeightFormat format_of(FileType type, WeightFormat plain) {
  if (!is_f8(type)) return weight_format_of(static_cast<PanelType>(type), plain);
  return type == FileType::kF8RowMajor         ? WeightFormat::kF8Rows
         : type == FileType::kF8RowMajorBlocks ? WeightFormat::kF8Blocks
                                               : WeightFormat::kF8Tiles;
}
inline WeightFormat plain_format(ElementType activations) {
  return activations == ElementType::kFloat16 ? WeightFormat::kFloat16 : WeightFormat::kBFloat16;
}
inline float rounded_to(ElementType type, float x) {
  return type == ElementType::kFloat16 ? ref::f32_of_f16(ref::f16_of_f32(x)) : ref::f32_of_bf16(ref::bf16_of_f32(x));
}
inline std::string file_type_name(FileType type) {
  if (!is_f8(type)) return type_name(static_cast<PanelType>(type));
  constexpr const char* kNames[] = {"f8_tensor", "f8_rows", "f8_blocks", "f8_row_major", "f8_row_major_blocks"};
  return kNames[static_cast<int>(type) - static_cast<int>(FileType::kF8Tensor)];
}

// A weight type and the type of the activations that it meets.
using ProductTypes = std::tuple<FileType, ElementType>;
inline std::string product_types_name(const testing::TestParamInfo<ProductTypes>& test) {
  return file_type_name(std::get<0>(test.param)) +
         (std::get<1>(test.param) == ElementType::kFloat16 ? "_fp16" : "_bf16");
}

// Random e4m3 of every exponent with scales of its kind.
struct F8Matrix {
  F8Matrix(FileType type, int64_t rows, int64_t cols, SeededTest& random)
      : block_rows(type == FileType::kF8Tensor                                  ? rows
                   : type == FileType::kF8Rows || type == FileType::kF8RowMajor ? 1
                                                                                : 128),
        block_cols(type == FileType::kF8Blocks || type == FileType::kF8RowMajorBlocks ? 128 : cols),
        scales_per_row((cols + block_cols - 1) / block_cols) {
    for (int64_t i = 0; i < (rows + block_rows - 1) / block_rows * scales_per_row; ++i) {
      scales.push_back(std::fabs(random.normal()) * 0.01f + 1e-4f);
    }
    for (int64_t i = 0; i < rows * cols; ++i) {
      int byte = static_cast<int>(random.uniform(0, 255));
      if ((byte & 0x7f) == 0x7f) --byte;  // no NaN
      bytes.push_back(static_cast<uint8_t>(byte));
      values.push_back(
          double{ref::f32_of_e4m3(bytes.back())} *
          double{scales[static_cast<size_t>(i / cols / block_rows * scales_per_row + i % cols / block_cols)]});
    }
  }
  int64_t block_rows, block_cols, scales_per_row;
  std::vector<uint8_t> bytes;
  std::vector<float> scales;
  std::vector<double> values;
};

class PackedMatrix {
 public:
  PackedMatrix(FileType type, int64_t rows, int64_t cols, SeededTest& random,
               ElementType activations = ElementType::kBFloat16)
      : PackedMatrix(format_of(type, plain_format(activations)),
                     is_f8(type) ? RandomMatrix{PanelType::kF32, rows, cols, {}, {}, {}}
                                 : random_matrix(static_cast<PanelType>(type), rows, cols, random)) {
    if (is_f8(type)) {
      pack_f8(F8Matrix(type, rows, cols, random));
    } else {
      pack(file.type);
    }
  }

  const void* weights() const { return weights_->data(); }
  const void* scales() const { return scales_ ? scales_->data() : nullptr; }
  // |d| (or |d| + |m| apart) of the block that column k of row n is in: what errors of offset sums are proportional to.
  double scale(int64_t n, int64_t k) const {
    if (!has_blocks(file.type)) return 0;
    const int64_t block_bytes = file_row_bytes(file.type, 32);
    uint16_t h;
    std::memcpy(&h, file.file.data() + n * file_row_bytes(file.type, file.cols) + k / 32 * block_bytes, 2);
    return std::fabs(ref::f32_of_f16(h));
  }
  double minimum(int64_t n, int64_t k) const {
    if (format != WeightFormat::kQ4_1) return 0;
    uint16_t h;
    std::memcpy(&h, file.file.data() + n * file_row_bytes(file.type, file.cols) + k / 32 * 20 + 2, 2);
    return std::fabs(ref::f32_of_f16(h));
  }

  const WeightFormat format;
  const RandomMatrix file;     // of e4m3: rows and cols alone
  std::vector<double> values;  // what the device computes with: plain types rounded to the activations'

 private:
  PackedMatrix(WeightFormat packed_as, RandomMatrix random)
      : format(packed_as), file(std::move(random)), values(file.values) {}

  void pack(PanelType type) {
    const int64_t rows = file.rows, cols = file.cols, row_bytes = file_row_bytes(type, cols);
    std::vector<uint8_t> packed(static_cast<size_t>(weight_bytes(format, rows, cols)));
    std::vector<uint8_t> scales(static_cast<size_t>(scale_bytes(format, rows, cols)));
    if (is_plain(format)) {
      std::vector<uint16_t> row(static_cast<size_t>(cols));
      for (int64_t r = 0; r < rows; ++r) {
        EXPECT_TRUE(pack_plain_row(type, format, file.file.data() + r * row_bytes, cols, row.data()));
        std::memcpy(packed.data() + r * cols * 2, row.data(), row.size() * 2);
        for (int64_t k = 0; k < cols; ++k) {
          double& value = values[static_cast<size_t>(r * cols + k)];
          value = rounded_to(format == WeightFormat::kFloat16 ? ElementType::kFloat16 : ElementType::kBFloat16,
                             static_cast<float>(value));
        }
      }
    }
    for (int64_t tile = 0; is_tiled(format) && tile < num_row_tiles(rows); ++tile) {
      const uint8_t* of_tile[kTileRows] = {};
      for (int64_t r = 0; r < kTileRows && tile * kTileRows + r < rows; ++r) {
        of_tile[r] = file.file.data() + (tile * kTileRows + r) * row_bytes;
      }
      pack_row_tile(type, of_tile, cols, packed.data() + tile * (cols / kTileCols) * quant_tile_bytes(format),
                    scales.data() + tile * (cols / kTileCols) * scale_tile_bytes(format));
    }
    upload(packed, scales);
  }

  void pack_f8(F8Matrix f8) {
    const int64_t rows = file.rows, cols = file.cols;
    values = std::move(f8.values);
    std::vector<uint8_t> packed(static_cast<size_t>(weight_bytes(format, rows, cols)), 0xff);
    std::vector<uint8_t> scales(static_cast<size_t>(scale_bytes(format, rows, cols)), 0xff);
    if (is_f8_row_major(format)) {
      const int64_t stride = format == WeightFormat::kF8Rows ? 1 : block_scale_stride(cols);
      std::vector<float> strided(scales.size() / 4, NAN);
      for (int64_t i = 0; i < static_cast<int64_t>(f8.scales.size()); ++i) {
        strided[static_cast<size_t>(i / f8.scales_per_row * stride + i % f8.scales_per_row)] =
            f8.scales[static_cast<size_t>(i)];
      }
      std::memcpy(scales.data(), strided.data(), scales.size());
      return upload(f8.bytes, scales);
    }
    for (int64_t tile = 0; tile < num_row_tiles(rows); ++tile) {
      F8Row of_tile[kTileRows] = {};
      for (int64_t i = 0; i < kTileRows && tile * kTileRows + i < rows; ++i) {
        const int64_t r = tile * kTileRows + i;
        of_tile[i] = {f8.bytes.data() + r * cols, f8.scales.data() + r / f8.block_rows * f8.scales_per_row,
                      f8.block_cols};
      }
      EXPECT_TRUE(
          pack_f8_row_tile(of_tile, cols, packed.data() + tile * cols * kTileRows,
                           scales.data() + tile * scales_per_row_tile(format, cols) * scale_tile_bytes(format)));
    }
    upload(packed, scales);
  }

  void upload(const std::vector<uint8_t>& packed, const std::vector<uint8_t>& scales) {
    weights_ = std::make_unique<DeviceArray<uint8_t>>(packed);
    if (!scales.empty()) scales_ = std::make_unique<DeviceArray<uint8_t>>(scales);
  }

  std::unique_ptr<DeviceArray<uint8_t>> weights_;
  std::unique_ptr<DeviceArray<uint8_t>> scales_;
};

// Numbers that `type` holds exactly.
inline std::vector<float> normals_of(ElementType type, int64_t n, SeededTest& random) {
  std::vector<float> x = random.normals(n);
  for (float& v : x) v = rounded_to(type, v);
  return x;
}

// Rows of `cols` numbers of 16 bits, `stride` apart, what is between them NaN.
inline std::vector<uint16_t> strided_16_bit(ElementType type, const std::vector<float>& x, int64_t cols,
                                            int64_t stride) {
  const int64_t rows = static_cast<int64_t>(x.size()) / cols;
  std::vector<uint16_t> out(static_cast<size_t>(rows * stride), 0x7fff);
  for (int64_t i = 0; i < static_cast<int64_t>(x.size()); ++i) {
    const float value = x[static_cast<size_t>(i)];
    out[static_cast<size_t>(i / cols * stride + i % cols)] =
        type == ElementType::kFloat16 ? ref::f16_of_f32(value) : ref::bf16_of_f32(value);
  }
  return out;
}

}  // namespace sextant::kernels::cuda
