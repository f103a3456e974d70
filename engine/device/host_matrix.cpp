#include "engine/device/host_matrix.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <string>

namespace sextant {
namespace {

using kernels::PanelType;

constexpr int64_t kMaxCols = int64_t{1} << 24;
constexpr int64_t kMaxRows = int64_t{1} << 40;
constexpr int64_t kScaleBlock = 128;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

Status check_scales(const HostMatrix& part, const std::string& shape) {
  if (part.type != WeightType::kF8E4M3) {
    if (!part.scales.empty()) return invalid_argument(shape + " has scales, which its type does not take");
    return ok_status();
  }
  const int64_t rows = part.scale_block_rows, cols = part.scale_block_cols;
  if (part.scales.empty() || rows < 1 || cols < 1) return invalid_argument(shape + " has no scales");
  const bool known =
      (cols >= part.cols && (rows >= part.rows || rows == 1)) || (rows == kScaleBlock && cols == kScaleBlock);
  const std::string of_blocks = " of blocks of " + std::to_string(rows) + " x " + std::to_string(cols);
  if (!known)
    return unsupported(shape + " has scales" + of_blocks +
                       "; known: of the tensor, of each row, of blocks of 128 x 128");
  const int64_t wanted = ceil_div(part.rows, rows) * ceil_div(part.cols, cols);
  if (static_cast<int64_t>(part.scales.size()) != wanted) {
    return data_loss(shape + " has " + std::to_string(part.scales.size()) + " scales" + of_blocks + ", not " +
                     std::to_string(wanted));
  }
  for (const float scale : part.scales) {
    if (!std::isfinite(scale)) return data_loss(shape + " has a scale that is no finite number");
  }
  return ok_status();
}

// OCP 8-bit Floating Point Specification, E4M3: bias 7, no infinity, one NaN of each sign.
float f32_of_e4m3(int bits) {
  const int exponent = bits >> 3 & 15, fraction = bits & 7;
  if (exponent == 15 && fraction == 7) return NAN;
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                   : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
  return bits >> 7 != 0 ? -size : size;
}

uint16_t round_to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace

std::optional<PanelType> panel_type_of(WeightType type) {
  switch (type) {
    case WeightType::kF32: return PanelType::kF32;
    case WeightType::kF16: return PanelType::kF16;
    case WeightType::kBF16: return PanelType::kBF16;
    case WeightType::kQ8_0: return PanelType::kQ8_0;
    case WeightType::kQ4_0: return PanelType::kQ4_0;
    case WeightType::kQ4_1: return PanelType::kQ4_1;
    default: return std::nullopt;
  }
}

bool is_computable(WeightType type) { return type == WeightType::kF8E4M3 || panel_type_of(type).has_value(); }

Status check_host_matrix(const HostMatrix& part, int64_t cols, std::string_view backend) {
  const std::string type(weight_type_name(part.type));
  if (!is_computable(part.type))
    return unsupported("the " + std::string(backend) + " backend does not compute with weights of type " + type);
  const std::string shape =
      "a " + type + " matrix of " + std::to_string(part.rows) + " rows and " + std::to_string(part.cols) + " columns";
  if (part.rows < 1 || part.rows > kMaxRows || part.cols < 1 || part.cols > kMaxCols)
    return unsupported("no room for " + shape);
  if (part.cols != cols)
    return invalid_argument(shape + " cannot be stacked with one of " + std::to_string(cols) + " columns");
  if (part.cols % block_geometry(part.type).elements != 0) {
    return unsupported(shape + " does not have whole blocks: the columns must be a multiple of " +
                       std::to_string(block_geometry(part.type).elements));
  }
  const auto bytes = encoded_bytes(part.type, static_cast<uint64_t>(part.rows), static_cast<uint64_t>(part.cols));
  if (!bytes || *bytes != part.data.size()) {
    return data_loss(shape + " takes " + (bytes ? std::to_string(*bytes) : "too many") + " bytes, not " +
                     std::to_string(part.data.size()));
  }
  return check_scales(part, shape);
}

std::vector<uint16_t> dequantize_f8(const HostMatrix& part, ThreadPool& pool) {
  std::array<float, 256> values;
  for (int bits = 0; bits < 256; ++bits) values[static_cast<size_t>(bits)] = f32_of_e4m3(bits);
  std::vector<uint16_t> out(part.data.size());
  const int64_t scales_per_row = ceil_div(part.cols, part.scale_block_cols);
  pool.parallel_for(part.rows, std::max<int64_t>(1, (int64_t{1} << 16) / part.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* scales = part.scales.data() + r / part.scale_block_rows * scales_per_row;
      for (int64_t c = 0; c < part.cols; ++c) {
        const auto at = static_cast<size_t>(r * part.cols + c);
        out[at] = round_to_bf16(values[static_cast<size_t>(part.data[at])] * scales[c / part.scale_block_cols]);
      }
    }
  });
  return out;
}

}  // namespace sextant
