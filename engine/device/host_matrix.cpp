#include "engine/device/host_matrix.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "engine/base/block_values.h"
#include "engine/base/check.h"
#include "engine/base/float16.h"

namespace sextant {
namespace {

using kernels::PanelType;

constexpr int64_t kMaxCols = int64_t{1} << 24;
constexpr int64_t kMaxRows = int64_t{1} << 40;
constexpr int64_t kScaleBlock = 128;

// What the kernels of a backend do not read as the file has it, and what that backend holds instead. A type that becomes native to a
// backend holds itself in its column; one that is native to both is taken out. Native ones have a line in panel_type_of().
struct Held {
  WeightType type;
  WeightType cpu;
  WeightType cuda;
};
constexpr std::array kHeld = {
    Held{WeightType::kF8E4M3, WeightType::kBF16, WeightType::kF8E4M3},
    Held{WeightType::kQ5_0, WeightType::kQ8_0, WeightType::kQ8_0},
    Held{WeightType::kQ5_1, WeightType::kF16, WeightType::kF16},
    Held{WeightType::kQ2K, WeightType::kF16, WeightType::kF16},
    Held{WeightType::kQ3K, WeightType::kF16, WeightType::kF16},
    Held{WeightType::kQ4K, WeightType::kQ4K, WeightType::kF16},
    Held{WeightType::kQ5K, WeightType::kQ5K, WeightType::kF16},
    Held{WeightType::kQ6K, WeightType::kQ6K, WeightType::kF16},
    Held{WeightType::kIQ4NL, WeightType::kQ8_0, WeightType::kQ8_0},
    Held{WeightType::kIQ4XS, WeightType::kF16, WeightType::kF16},
    Held{WeightType::kMXFP4, WeightType::kF16, WeightType::kF16},
};

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

std::array<float, 256> all_of_e4m3() {
  std::array<float, 256> values;
  for (int bits = 0; bits < 256; ++bits) values[static_cast<size_t>(bits)] = f32_of_e4m3(bits);
  return values;
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
    case WeightType::kQ4K: return PanelType::kQ4K;
    case WeightType::kQ5K: return PanelType::kQ5K;
    case WeightType::kQ6K: return PanelType::kQ6K;
    default: return std::nullopt;
  }
}

std::optional<WeightType> held_type(WeightType type, HeldBy backend) {
  for (const Held& held : kHeld) {
    if (held.type == type) return backend == HeldBy::kCpu ? held.cpu : held.cuda;
  }
  return panel_type_of(type) ? std::optional(type) : std::nullopt;
}

bool is_computable(WeightType type) { return held_type(type, HeldBy::kCpu) && held_type(type, HeldBy::kCuda); }

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

bool decode_row(const HostMatrix& part, int64_t row, float* out) {
  const auto row_bytes = static_cast<int64_t>(part.data.size()) / part.rows;
  const auto* data = reinterpret_cast<const uint8_t*>(part.data.data()) + row * row_bytes;
  if (part.type == WeightType::kF8E4M3) {
    static const std::array<float, 256> kValues = all_of_e4m3();
    const float* scales = part.scales.data() + row / part.scale_block_rows * ceil_div(part.cols, part.scale_block_cols);
    for (int64_t c = 0; c < part.cols; ++c) out[c] = kValues[data[c]] * scales[c / part.scale_block_cols];
  } else {
    decode_row(part.type, data, part.cols, out);
  }
  bool is_finite = true;
  for (int64_t c = 0; c < part.cols; ++c) is_finite = is_finite && std::isfinite(out[c]);
  return is_finite;
}

bool recode_row(const HostMatrix& part, int64_t row, WeightType held, float* values, uint8_t* out) {
  if (held == WeightType::kQ8_0) {
    const auto row_bytes = static_cast<int64_t>(part.data.size()) / part.rows;
    const auto* data = reinterpret_cast<const uint8_t*>(part.data.data());
    recode_row_as_q8_0(part.type, data + row * row_bytes, part.cols, out);
    return true;
  }
  CHECK(held == WeightType::kF16 || held == WeightType::kBF16) << weight_type_name(held);
  bool fits = decode_row(part, row, values);
  const uint16_t infinity = held == WeightType::kF16 ? 0x7c00 : 0x7f80;
  for (int64_t c = 0; c < part.cols; ++c) {
    const uint16_t value = held == WeightType::kF16 ? f16_of_f32(values[c]) : round_to_bf16(values[c]);
    fits = fits && (value & 0x7fffu) < infinity;
    std::memcpy(out + c * 2, &value, 2);
  }
  return fits;
}

Status does_not_hold(WeightType type, WeightType held) {
  const std::string name(weight_type_name(type)), of(weight_type_name(held));
  return unsupported("a matrix of type " + name + " is held as " + of +
                     ", and one of its weights is no finite number or beyond the largest that " + of + " has");
}

}  // namespace sextant
