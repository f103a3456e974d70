// A random weight matrix on the device in weight_layout.h's format, beside its exact numbers.
#pragma once

#include <memory>

#include "kernels/cuda/pack_weight.h"
#include "tests/kernels/cuda/cuda_test_support.h"

namespace sextant::kernels::cuda {

class PackedMatrix {
 public:
  PackedMatrix(PanelType type, int64_t rows, int64_t cols, SeededTest& random)
      : format(weight_format_of(type)), file(random_matrix(type, rows, cols, random)), values(file.values) {
    const int64_t row_bytes = file_row_bytes(type, cols);
    std::vector<uint8_t> packed(static_cast<size_t>(weight_bytes(format, rows, cols)));
    std::vector<uint8_t> scales(static_cast<size_t>(scale_bytes(format, rows, cols)));
    if (format == WeightFormat::kBFloat16) {
      std::vector<uint16_t> row(static_cast<size_t>(cols));
      for (int64_t r = 0; r < rows; ++r) {
        pack_plain_row(type, file.file.data() + r * row_bytes, cols, row.data());
        std::memcpy(packed.data() + r * cols * 2, row.data(), row.size() * 2);
        for (int64_t k = 0; k < cols; ++k) {
          double& value = values[static_cast<size_t>(r * cols + k)];
          value = ref::f32_of_bf16(ref::bf16_of_f32(static_cast<float>(value)));
        }
      }
    }
    for (int64_t tile = 0; is_quantised(format) && tile < num_row_tiles(rows); ++tile) {
      const uint8_t* of_tile[kTileRows] = {};
      for (int64_t r = 0; r < kTileRows && tile * kTileRows + r < rows; ++r) {
        of_tile[r] = file.file.data() + (tile * kTileRows + r) * row_bytes;
      }
      pack_row_tile(type, of_tile, cols, packed.data() + tile * (cols / kTileCols) * quant_tile_bytes(format),
                    scales.data() + tile * (cols / kTileCols) * scale_tile_bytes(format));
    }
    weights_ = std::make_unique<DeviceArray<uint8_t>>(packed);
    if (!scales.empty()) scales_ = std::make_unique<DeviceArray<uint8_t>>(scales);
  }

  const void* weights() const { return weights_->data(); }
  const void* scales() const { return scales_ ? scales_->data() : nullptr; }
  // |d| (or |d| + |m| apart) of the block that column k of row n is in: what errors of offset sums are proportional to.
  double scale(int64_t n, int64_t k) const {
    if (!is_quantised(format)) return 0;
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
  const RandomMatrix file;
  std::vector<double> values;  // what the device computes with: plain types rounded to bf16

 private:
  std::unique_ptr<DeviceArray<uint8_t>> weights_;
  std::unique_ptr<DeviceArray<uint8_t>> scales_;
};

// x as bf16 numbers.
inline std::vector<float> bf16_normals(int64_t n, SeededTest& random) {
  std::vector<float> x = random.normals(n);
  for (float& v : x) v = ref::f32_of_bf16(ref::bf16_of_f32(v));
  return x;
}

// Rows of `cols` numbers as bf16, `stride` apart, what is between them NaN.
inline std::vector<uint16_t> strided_bf16(const std::vector<float>& x, int64_t cols, int64_t stride) {
  const int64_t rows = static_cast<int64_t>(x.size()) / cols;
  std::vector<uint16_t> out(static_cast<size_t>(rows * stride), 0x7fff);
  for (int64_t i = 0; i < static_cast<int64_t>(x.size()); ++i) {
    out[static_cast<size_t>(i / cols * stride + i % cols)] = ref::bf16_of_f32(x[static_cast<size_t>(i)]);
  }
  return out;
}

}  // namespace sextant::kernels::cuda
