// Scalar and obvious (reference.h).
#include "kernels/ref/reference.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/ref/superblocks.h"

namespace sextant::kernels::ref {
namespace {

uint16_t u16_at(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return h;
}

}  // namespace

float f32_of_f16(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  const double sign = h & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction != 0 ? std::nanf("") : static_cast<float>(sign * INFINITY);
  const double value = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return static_cast<float>(sign * value);
}

uint16_t f16_of_f32(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  if (std::isnan(x)) return sign | 0x7e00;
  const double a = std::fabs(static_cast<double>(x));
  if (a >= 65520) return sign | 0x7c00;
  if (a == 0) return sign;
  int exponent = 0;
  std::frexp(a, &exponent);                                   // a < 2^exponent
  const int unit = std::max(exponent - 11, -24);              // exponent of the last kept bit
  const double units = std::nearbyint(std::ldexp(a, -unit));  // ties to even
  // Adding the fraction to the exponent field carries into it when rounding reached the next power of two.
  if (unit == -24 && units < 1024) return static_cast<uint16_t>(sign | static_cast<uint16_t>(units));
  return static_cast<uint16_t>(sign | (((unit + 25) << 10) + static_cast<int>(units) - 1024));
}

float f32_of_bf16(uint16_t h) { return std::bit_cast<float>(uint32_t{h} << 16); }

uint16_t bf16_of_f32(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  const uint32_t below = bits & 0xffff, kept = bits >> 16;
  const bool up = below > 0x8000 || (below == 0x8000 && (kept & 1) != 0);
  return static_cast<uint16_t>(kept + (up ? 1 : 0));
}

float f32_of_e4m3(uint8_t bits) {
  const int exponent = bits >> 3 & 15, fraction = bits & 7;
  if (exponent == 15 && fraction == 7) return NAN;
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -9)
                                   : std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
  return bits >> 7 != 0 ? -size : size;
}

uint8_t e4m3_of_f32(float x) {
  const int sign = std::signbit(x) ? 0x80 : 0;
  if (std::isnan(x)) return static_cast<uint8_t>(sign | 0x7f);
  const float size = std::fabs(x);
  if (size == 0) return static_cast<uint8_t>(sign);
  if (size >= 448) return static_cast<uint8_t>(sign | 0x7e);
  // In units of the last place, exactly, then rounded once; a carry goes on into the exponent by itself.
  const int exponent = std::max(std::ilogb(size), -6);
  const auto units = static_cast<int>(std::nearbyint(std::ldexp(size, 3 - exponent)));
  return static_cast<uint8_t>(sign | ((exponent + 6) * 8 + units));
}

std::vector<double> minimums_of_row(PanelType type, const uint8_t* row, int64_t cols) {
  std::vector<double> out(static_cast<size_t>(cols));
  if (type == PanelType::kQ4_1) {
    for (int64_t k = 0; k < cols; ++k) out[static_cast<size_t>(k)] = f32_of_f16(u16_at(row + k / 32 * 20 + 2));
  }
  for (int64_t k = 0; has_superblocks(type) && k < cols; k += kPanelSuperblock) {
    const uint8_t* superblock = row + k / kPanelSuperblock * file_row_bytes(type, kPanelSuperblock);
    const Superblock numbers = dequantize_superblock(type, superblock);
    std::copy(numbers.minimums.begin(), numbers.minimums.end(), out.begin() + k);
  }
  return out;
}

std::vector<double> dequantize_row(PanelType type, const uint8_t* row, int64_t cols) {
  std::vector<double> out(static_cast<size_t>(cols));
  for (int64_t k = 0; has_superblocks(type) && k < cols; k += kPanelSuperblock) {
    const uint8_t* superblock = row + k / kPanelSuperblock * file_row_bytes(type, kPanelSuperblock);
    const Superblock numbers = dequantize_superblock(type, superblock);
    std::copy(numbers.values.begin(), numbers.values.end(), out.begin() + k);
  }
  if (has_superblocks(type)) return out;
  for (int64_t k = 0; k < cols; ++k) {
    double& value = out[static_cast<size_t>(k)];
    const int64_t b = k / 32, i = k % 32;
    switch (type) {
      case PanelType::kF32: {
        float x;
        std::memcpy(&x, row + k * 4, 4);
        value = x;
        break;
      }
      case PanelType::kF16: value = f32_of_f16(u16_at(row + k * 2)); break;
      case PanelType::kBF16: value = f32_of_bf16(u16_at(row + k * 2)); break;
      case PanelType::kQ8_0: {
        const uint8_t* block = row + b * 34;
        value = static_cast<double>(f32_of_f16(u16_at(block))) * static_cast<int8_t>(block[2 + i]);
        break;
      }
      case PanelType::kQ4_0: {
        const uint8_t* block = row + b * 18;
        const int q = i < 16 ? block[2 + i] & 15 : block[2 + i - 16] >> 4;
        value = static_cast<double>(f32_of_f16(u16_at(block))) * (q - 8);
        break;
      }
      case PanelType::kQ4_1: {
        const uint8_t* block = row + b * 20;
        const int q = i < 16 ? block[4 + i] & 15 : block[4 + i - 16] >> 4;
        value = static_cast<double>(f32_of_f16(u16_at(block))) * q + f32_of_f16(u16_at(block + 2));
        break;
      }
      default: break;
    }
  }
  return out;
}

MatmulResult matmul(std::span<const double> x, std::span<const double> w, int64_t tokens, int64_t rows, int64_t cols) {
  MatmulResult result;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t n = 0; n < rows; ++n) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < cols; ++k) {
        const double product = x[static_cast<size_t>(t * cols + k)] * w[static_cast<size_t>(n * cols + k)];
        sum += product;
        magnitude += std::fabs(product);
      }
      result.out.push_back(sum);
      result.magnitude.push_back(magnitude);
    }
  }
  return result;
}

MatmulResult matmul(std::span<const float> x, std::span<const double> w, int64_t tokens, int64_t rows, int64_t cols) {
  return matmul(std::vector<double>(x.begin(), x.end()), w, tokens, rows, cols);
}

std::vector<double> quantized_activations(std::span<const float> x, int64_t rows, int64_t cols) {
  std::vector<double> out(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t begin = 0; begin < cols; begin += kPanelBlock) {
      const auto at = static_cast<size_t>(r * cols + begin);
      const auto count = static_cast<size_t>(std::min<int64_t>(kPanelBlock, cols - begin));
      float top = 0;
      for (size_t i = 0; i < count; ++i) top = std::max(top, std::fabs(x[at + i]));
      const float scale = top >= 0x1p-100f ? 127.0f / top : 0.0f, e = top / 127.0f;
      for (size_t i = 0; i < count; ++i) out[at + i] = double{e} * std::nearbyint(x[at + i] * scale);
    }
  }
  return out;
}

std::vector<double> rms_norm(std::span<const float> x, std::span<const float> weight, double eps) {
  double squares = 0;
  for (const float v : x) squares += static_cast<double>(v) * v;
  const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  std::vector<double> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * weight[i];
  return out;
}

std::vector<double> reduce_add_rms_norm(std::span<const std::vector<float>> parts, std::span<float> residual,
                                        std::span<const float> weight, double eps) {
  for (size_t i = 0; i < residual.size(); ++i) {
    float sum = parts[0][i];
    for (size_t r = 1; r < parts.size(); ++r) sum += parts[r][i];
    residual[i] += sum;
  }
  return rms_norm(residual, weight, eps);
}

double silu(double x) { return x / (1 + std::exp(-x)); }

void rope(std::span<double> head, int64_t position, int64_t rotary_dim, double theta) {
  const auto half = static_cast<size_t>(rotary_dim / 2);
  for (size_t i = 0; i < half; ++i) {
    const double angle =
        static_cast<double>(position) * std::pow(theta, -static_cast<double>(i) / static_cast<double>(half));
    const double a = head[i], b = head[i + half];
    head[i] = a * std::cos(angle) - b * std::sin(angle);
    head[i + half] = b * std::cos(angle) + a * std::sin(angle);
  }
}

std::vector<double> attention(std::span<const double> q, std::span<const double> keys, std::span<const double> values,
                              int64_t position, const AttentionProblem& problem) {
  const size_t dim = q.size();
  const int64_t first = problem.window > 0 ? std::max<int64_t>(0, position - problem.window + 1) : 0;
  std::vector<double> scores;
  for (int64_t j = first; j <= position; ++j) {
    double score = 0;
    for (size_t d = 0; d < dim; ++d) score += q[d] * keys[static_cast<size_t>(j) * dim + d];
    score *= problem.scale;
    if (problem.softcap > 0) score = std::tanh(score / problem.softcap) * problem.softcap;
    scores.push_back(score);
  }
  const double top = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  std::vector<double> out(dim, 0.0);
  for (size_t i = 0; i < scores.size(); ++i) {
    const double p = std::exp(scores[i] - top);
    total += p;
    for (size_t d = 0; d < dim; ++d) out[d] += p * values[(static_cast<size_t>(first) + i) * dim + d];
  }
  for (double& v : out) v /= total;
  return out;
}

}  // namespace sextant::kernels::ref
