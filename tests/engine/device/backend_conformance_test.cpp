// Backend's ops on every backend against kernels/ref: one suite, whatever the device. Tolerances follow from the type
// in which the backend holds activations and from the length of sums; inputs are numbers that this type holds exactly.
// Long because every op of Backend has its case here, and each derives its own bound.
#include <tuple>

#include "tests/engine/device/conformance_support.h"

namespace sextant {
namespace {

namespace ref = kernels::ref;

class BackendConformance : public ConformanceTest {
 protected:
  static constexpr AttentionParams kAnyAttention = {.num_heads = 2, .num_kv_heads = 1, .head_dim = 32, .scale = 0.2f};

  // A step of `tokens` tokens of one sequence, for ops that need only ids and indices.
  void plan_rows(const std::vector<int32_t>& token_ids, const std::vector<int32_t>& logits_indices) {
    const auto tokens = static_cast<int32_t>(token_ids.size());
    ScatteredSequences sequences({tokens}, random_);
    step_ = sequences.advance({{0, tokens}});
    step_.token_ids = token_ids;
    step_.logits_indices = logits_indices;
    backend_->plan(step_.inputs(), kAnyAttention);
  }
  void expect_near(const HostRows& got, int64_t r, int64_t c, double expected, double bound) const {
    EXPECT_NEAR(got.at(r, c), expected, bound) << "row " << r << " column " << c << " seed " << seed_;
  }

 private:
  ScatteredSequences::Step step_;
};

// --- weights ---------------------------------------------------------------------------------------------------------

// A matrix as a file holds it, its exact numbers, and per number the most that its parts can be: |d| q_max + |m|.
struct FileMatrix {
  WeightType type;
  int64_t rows, cols;
  std::vector<uint8_t> bytes;
  std::vector<double> values;
  std::vector<double> parts;
  std::vector<float> scales;  // of F8_E4M3
  int64_t block_rows = 0, block_cols = 0;

  HostMatrix host() const {
    return {type, rows, cols, std::as_bytes(std::span(bytes)), scales, block_rows, block_cols};
  }
};

const std::vector<std::pair<WeightType, kernels::PanelType>> kWeightTypes = {
    {WeightType::kF32, kernels::PanelType::kF32},   {WeightType::kF16, kernels::PanelType::kF16},
    {WeightType::kBF16, kernels::PanelType::kBF16}, {WeightType::kQ8_0, kernels::PanelType::kQ8_0},
    {WeightType::kQ4_0, kernels::PanelType::kQ4_0}, {WeightType::kQ4_1, kernels::PanelType::kQ4_1}};
// After them e4m3, with one scale for the tensor, for each row, for each block of 128 x 128.
constexpr size_t kNumF8Types = 3;

FileMatrix f8_matrix(size_t kind, int64_t rows, int64_t cols, std::mt19937_64& random) {
  FileMatrix m{WeightType::kF8E4M3, rows, cols, {}, {}, {}, {}, 0, 0};
  m.block_rows = kind == 0 ? rows : kind == 1 ? 1 : 128;
  m.block_cols = kind == 2 ? 128 : cols;
  const int64_t scales_per_row = (cols + m.block_cols - 1) / m.block_cols;
  std::uniform_real_distribution<float> scale(0.001f, 0.02f);
  for (int64_t i = 0; i < (rows + m.block_rows - 1) / m.block_rows * scales_per_row; ++i) {
    m.scales.push_back(scale(random));
  }
  for (int64_t i = 0; i < rows * cols; ++i) {
    m.bytes.push_back(static_cast<uint8_t>(random()));
    if ((m.bytes.back() & 0x7f) == 0x7f) --m.bytes.back();  // no NaN
    const auto at = static_cast<size_t>(i / cols / m.block_rows * scales_per_row + i % cols / m.block_cols);
    m.values.push_back(double{ref::f32_of_e4m3(m.bytes.back())} * double{m.scales[at]});
    m.parts.push_back(std::fabs(m.values.back()));
  }
  return m;
}

FileMatrix file_matrix(size_t type, int64_t rows, int64_t cols, std::mt19937_64& random) {
  if (type >= kWeightTypes.size()) return f8_matrix(type - kWeightTypes.size(), rows, cols, random);
  FileMatrix m{kWeightTypes[type].first, rows, cols, {}, {}, {}, {}, 0, 0};
  std::normal_distribution<float> normal;
  const auto append = [&](const void* from, size_t n) {
    const auto* bytes = static_cast<const uint8_t*>(from);
    m.bytes.insert(m.bytes.end(), bytes, bytes + n);
  };
  for (int64_t i = 0; i < rows * cols; ++i) {
    const float x = normal(random);
    uint16_t half = 0;
    switch (m.type) {
      case WeightType::kF32: append(&x, 4); break;
      case WeightType::kF16:
        half = ref::f16_of_f32(x);
        append(&half, 2);
        break;
      case WeightType::kBF16:
        half = ref::bf16_of_f32(x);
        append(&half, 2);
        break;
      default: {
        if (i % 32 != 0) break;
        half = ref::f16_of_f32(x * 0.1f);
        append(&half, 2);
        if (m.type == WeightType::kQ4_1) {
          half = ref::f16_of_f32(normal(random));
          append(&half, 2);
        }
        for (int k = 0; k < (m.type == WeightType::kQ8_0 ? 32 : 16); ++k) {
          m.bytes.push_back(static_cast<uint8_t>(random()));
        }
      }
    }
  }
  const size_t row_bytes = m.bytes.size() / static_cast<size_t>(rows);
  for (int64_t n = 0; n < rows; ++n) {
    const uint8_t* row = m.bytes.data() + static_cast<size_t>(n) * row_bytes;
    const std::vector<double> values = ref::dequantize_row(kWeightTypes[type].second, row, cols);
    for (int64_t k = 0; k < cols; ++k) {
      double part = std::fabs(values[static_cast<size_t>(k)]);
      if (is_block_quantized(m.type)) {
        const uint8_t* block = row + static_cast<size_t>(k / 32) * block_geometry(m.type).bytes;
        const auto half_at = [&](size_t i) {
          return std::fabs(static_cast<double>(ref::f32_of_f16(static_cast<uint16_t>(block[i] | block[i + 1] << 8))));
        };
        part = half_at(0) * (m.type == WeightType::kQ8_0 ? 128 : 16) + (m.type == WeightType::kQ4_1 ? half_at(2) : 0);
      }
      m.values.push_back(values[static_cast<size_t>(k)]);
      m.parts.push_back(part);
    }
  }
  return m;
}

// What keeping each weight in the backend's form may change: a backend of 16-bit activations keeps plain weights so; one
// of fp32 activations, the CPU's, keeps e4m3 in bf16.
std::vector<double> weight_roundings(const FileMatrix& file, DType act) {
  std::vector<double> out(file.values.size(), 0.0);
  const WeightType own = act == DType::kFloat16 ? WeightType::kF16 : WeightType::kBF16;
  const bool is_f8 = file.type == WeightType::kF8E4M3, is_f32 = act == DType::kFloat32;
  if (is_f8 ? !is_f32 : is_f32 || is_block_quantized(file.type) || file.type == own) return out;
  std::transform(file.values.begin(), file.values.end(), out.begin(),
                 [&](double value) { return rounding(is_f32 ? DType::kBFloat16 : act, value); });
  return out;
}

struct LoadedMatrix {
  FileMatrix file;
  std::unique_ptr<WeightMatrix> matrix;
};

class WeightConformance : public BackendConformance {
 protected:
  std::vector<LoadedMatrix> load_all_types(const std::vector<std::pair<int64_t, int64_t>>& shapes) {
    std::vector<LoadedMatrix> loaded;
    for (size_t type = 0; type < kWeightTypes.size() + kNumF8Types; ++type) {
      for (const auto& [rows, cols] : shapes) {
        FileMatrix file = file_matrix(type, rows, cols, random_);
        const HostMatrix host = file.host();
        Result<std::unique_ptr<WeightMatrix>> matrix = backend_->make_matrix({&host, 1});
        EXPECT_TRUE(matrix.ok()) << matrix.status().message();
        if (matrix.ok()) loaded.push_back({std::move(file), std::move(matrix).value()});
      }
    }
    return loaded;
  }
};

TEST_P(WeightConformance, EmbedReadsRowsOfEveryWeightType) {
  const int64_t rows = 71, cols = 96;
  const std::vector<LoadedMatrix> tables = load_all_types({{rows, cols}});
  reserve(64, 4, kAnyAttention);
  for (const auto& [file, table] : tables) {
    const std::vector<int32_t> ids = {70, 0, 16, 16, 15, 33, 1};
    plan_rows(ids, {});
    const Tensor out = poisoned(static_cast<int64_t>(ids.size()), cols, DType::kFloat32);
    const Tensor scaled = poisoned(static_cast<int64_t>(ids.size()), cols, DType::kFloat32);
    backend_->embed(*table, 1, out);
    backend_->embed(*table, 7.3f, scaled);
    const HostRows got = read(out), got_scaled = read(scaled);
    const std::vector<double> roundings = weight_roundings(file, act());
    for (size_t t = 0; t < ids.size(); ++t) {
      for (int64_t c = 0; c < cols; ++c) {
        const auto at = static_cast<size_t>(ids[t] * cols + c);
        // A product and a sum.
        const double bound = 2 * kUnit * file.parts[at] + roundings[at];
        expect_near(got, static_cast<int64_t>(t), c, file.values[at], bound);
        const auto token = static_cast<int64_t>(t);
        ASSERT_EQ(got_scaled.at(token, c), got.at(token, c) * 7.3f);
      }
    }
  }
}

TEST_P(WeightConformance, MatmulOfEveryWeightTypeAndNumberOfTokens) {
  const std::vector<LoadedMatrix> matrices = load_all_types({{33, 64}, {140, 288}, {9, 1056}});
  reserve(256, 4, kAnyAttention);
  for (const auto& [file, w] : matrices) {
    const int64_t rows = file.rows, cols = file.cols;
    for (const int64_t tokens : {1, 2, 3, 7, 17, 65}) {
      const HostRows x = random_rows(tokens, cols, act());
      const Tensor in = on_device(x, act());
      const std::vector<double> seen = seen_by(GetParam(), file.type, x);
      const ref::MatmulResult expected = ref::matmul(seen, file.values, tokens, rows, cols);
      const ref::MatmulResult parts = ref::matmul(seen, file.parts, tokens, rows, cols);
      const ref::MatmulResult kept = ref::matmul(seen, weight_roundings(file, act()), tokens, rows, cols);
      for (const DType out_type : {DType::kFloat32, act()}) {
        const Tensor out = poisoned(tokens, rows, out_type);
        backend_->matmul(*w, in, out);
        const HostRows got = read(out);
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t n = 0; n < rows; ++n) {
            const auto at = static_cast<size_t>(t * rows + n);
            // A chain over K at worst, and the offsets by which kernels turn small integers into floats (300 times the
            // largest).
            const double sum = (static_cast<double>(cols) + 300) * kUnit * parts.magnitude[at] + kept.magnitude[at];
            expect_near(got, t, n, expected.out[at], 1.01 * (sum + rounding(out_type, expected.out[at])));
          }
        }
        if (HasFailure()) FAIL() << weight_type_name(file.type) << " [" << rows << ", " << cols << "] x " << tokens;
      }
    }
  }
}

TEST_P(WeightConformance, MatmulOfStackedPartsIsTheirProductsSideBySide) {
  const int64_t cols = 96, tokens = 5;
  std::vector<FileMatrix> files;
  std::vector<HostMatrix> hosts;
  int64_t rows = 0;
  for (const auto& [type, n] :
       std::vector<std::pair<size_t, int64_t>>{{5, 40}, {3, 33}, {7, 19}, {8, 30}, {2, 21}, {4, 16}}) {
    files.push_back(file_matrix(type, n, cols, random_));
    rows += n;
  }
  for (const FileMatrix& file : files) hosts.push_back(file.host());
  const auto stacked = backend_->make_matrix(hosts);
  ASSERT_TRUE(stacked.ok()) << stacked.status().message();
  ASSERT_EQ((*stacked)->rows(), rows);
  reserve(64, 4, kAnyAttention);
  const HostRows x = random_rows(tokens, cols, act());
  const Tensor in = on_device(x, act()), out = poisoned(tokens, rows, DType::kFloat32);
  backend_->matmul(**stacked, in, out);
  const HostRows got = read(out);
  int64_t first = 0;
  for (const FileMatrix& file : files) {
    const std::vector<double> seen = seen_by(GetParam(), file.type, x);
    const ref::MatmulResult expected = ref::matmul(seen, file.values, tokens, file.rows, cols);
    const ref::MatmulResult parts = ref::matmul(seen, file.parts, tokens, file.rows, cols);
    const ref::MatmulResult kept = ref::matmul(seen, weight_roundings(file, act()), tokens, file.rows, cols);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t n = 0; n < file.rows; ++n) {
        const auto at = static_cast<size_t>(t * file.rows + n);
        const double sum = (cols + 300) * kUnit * parts.magnitude[at];
        expect_near(got, t, first + n, expected.out[at], sum + kept.magnitude[at]);
      }
    }
    first += file.rows;
  }
}

// --- rows ------------------------------------------------------------------------------------------------------------

TEST_P(BackendConformance, RmsNormWithAndWithoutTheSumBefore) {
  reserve(64, 4, kAnyAttention);
  for (const int64_t cols : {8, 72, 576, 4104}) {
    const int64_t rows = 5;
    const HostRows residual = random_rows(rows, cols, DType::kFloat32), x = random_rows(rows, cols, act());
    const std::vector<float> weight = normals(cols);
    const float* weight_on_device = floats_on_device(weight);
    for (const bool adds : {false, true}) {
      const Tensor sum = on_device(residual, DType::kFloat32), added = on_device(x, act()),
                   out = poisoned(rows, cols, act());
      if (adds) {
        backend_->add_rms_norm(sum, added, weight_on_device, 1e-5f, out);
      } else {
        backend_->rms_norm(sum, weight_on_device, 1e-5f, out);
      }
      const HostRows got = read(out), kept = read(sum);
      for (int64_t r = 0; r < rows; ++r) {
        std::vector<float> row = residual.row(r);
        for (int64_t c = 0; c < cols; ++c) {
          if (adds) row[static_cast<size_t>(c)] += x.at(r, c);
          ASSERT_EQ(kept.at(r, c), row[static_cast<size_t>(c)]);
        }
        const std::vector<double> expected = ref::rms_norm(row, weight, 1e-5);
        for (int64_t c = 0; c < cols; ++c) {
          // Squares and their sum: a chain at worst; half of its relative error after the root; the root, two products.
          const double value = expected[static_cast<size_t>(c)];
          const double bound = std::fabs(value) * (static_cast<double>(cols) / 2 + 8) * kUnit;
          expect_near(got, r, c, value, bound + 1.01 * rounding(act(), value));
        }
      }
    }
  }
}

// Some heads of wider rows; what lies beside them stays.
TEST_P(BackendConformance, RmsNormOfHeads) {
  reserve(64, 4, kAnyAttention);
  for (const int64_t head_dim : {8, 64, 128, 264, 520}) {
    const int64_t rows = 3, heads = 5, beside = 2 * head_dim, cols = heads * head_dim + beside;
    const HostRows x = random_rows(rows, cols, act());
    const std::vector<float> weight = normals(head_dim);
    const Tensor all = on_device(x, act());
    const Tensor some = {all.data, all.dtype, rows, heads * head_dim, all.row_stride};
    backend_->rms_norm_heads(some, head_dim, floats_on_device(weight), 1e-5f);
    const HostRows got = read(all);
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<float> row = x.row(r);
      for (int64_t h = 0; h < heads; ++h) {
        const std::vector<float> head(row.begin() + h * head_dim, row.begin() + (h + 1) * head_dim);
        const std::vector<double> expected = ref::rms_norm(head, weight, 1e-5);
        for (int64_t i = 0; i < head_dim; ++i) {
          const double value = expected[static_cast<size_t>(i)];
          const double bound = std::fabs(value) * (static_cast<double>(head_dim) / 2 + 8) * kUnit;
          expect_near(got, r, h * head_dim + i, value, bound + 1.01 * rounding(act(), value));
        }
      }
      for (int64_t c = heads * head_dim; c < cols; ++c) ASSERT_EQ(got.at(r, c), x.at(r, c));
    }
  }
}

TEST_P(BackendConformance, AddAndAddBiasAreOneSum) {
  reserve(64, 4, kAnyAttention);
  for (const int64_t cols : {8, 40, 1160}) {
    const int64_t rows = 3;
    const HostRows residual = random_rows(rows, cols, DType::kFloat32), x = random_rows(rows, cols, act());
    const std::vector<float> bias = normals(cols);
    const Tensor sum = on_device(residual, DType::kFloat32), biased = on_device(x, act());
    backend_->add(sum, on_device(x, act()));
    backend_->add_bias(biased, floats_on_device(bias));
    const HostRows got_sum = read(sum), got_biased = read(biased);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        ASSERT_EQ(got_sum.at(r, c), residual.at(r, c) + x.at(r, c)) << seed_;
        ASSERT_EQ(got_biased.at(r, c), rounded_to(act(), x.at(r, c) + bias[static_cast<size_t>(c)])) << seed_;
      }
    }
  }
}

TEST_P(BackendConformance, RoundIsOneRounding) {
  reserve(64, 4, kAnyAttention);
  for (const int64_t cols : {8, 40, 1160}) {
    const HostRows x = random_rows(3, cols, DType::kFloat32);
    const Tensor out = poisoned(3, cols, act());
    backend_->round(on_device(x, DType::kFloat32), out);
    const HostRows got = read(out);
    for (int64_t r = 0; r < 3; ++r) {
      for (int64_t c = 0; c < cols; ++c) ASSERT_EQ(got.at(r, c), rounded_to(act(), x.at(r, c))) << seed_;
    }
  }
}

TEST_P(BackendConformance, SoftcapBoundsLogits) {
  reserve(64, 4, kAnyAttention);
  const float cap = 30;
  for (const int64_t cols : {8, 13, 1544}) {
    HostRows x = random_rows(3, cols, DType::kFloat32);
    for (float& value : x.values) value *= 64;  // from the straight part to the flat one
    x.values[0] = 1e30f;
    x.values[1] = 0;
    const Tensor logits = on_device(x, DType::kFloat32);
    backend_->softcap(logits, cap);
    const HostRows got = read(logits);
    for (int64_t r = 0; r < 3; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const double value = cap * std::tanh(static_cast<double>(x.at(r, c)) / cap);
        // A quotient, tanh within 4 units in the last place (8 u), a product.
        expect_near(got, r, c, value, std::fabs(value) * 12 * kUnit);
      }
    }
  }
}

TEST_P(BackendConformance, GeluTanhMul) {
  reserve(64, 4, kAnyAttention);
  for (const int64_t cols : {8, 40, 1544}) {
    const int64_t rows = 3;
    HostRows gate_up = random_rows(rows, 2 * cols, act());
    for (float& g : gate_up.values) g *= 2;  // exact
    const Tensor out = poisoned(rows, cols, act());
    backend_->activation_mul(on_device(gate_up, act()), Activation::kGeluTanh, out);
    const HostRows got = read(out);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const double g = gate_up.at(r, c), up = gate_up.at(r, cols + c);
        const double twice_z = 2 * std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g);
        const double value = g / (1 + std::exp(-twice_z)) * up;
        // The argument: 5 roundings; exp, a sum, a quotient (2 units), two products. f(g) past 2^-126 may be 0.
        const double bound = std::fabs(value) * (5 * std::fabs(twice_z) + 20) * kUnit + 0x1p-126 * (std::fabs(up) + 1);
        expect_near(got, r, c, value, bound + 1.01 * rounding(act(), value));
      }
    }
  }
}

TEST_P(BackendConformance, SiluMul) {
  reserve(64, 4, kAnyAttention);
  for (const int64_t cols : {8, 40, 1544}) {
    const int64_t rows = 3;
    HostRows gate_up = random_rows(rows, 2 * cols, act());
    for (float& g : gate_up.values) g *= 4;  // exact
    const Tensor out = poisoned(rows, cols, act());
    backend_->activation_mul(on_device(gate_up, act()), Activation::kSilu, out);
    const HostRows got = read(out);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const double g = gate_up.at(r, c), value = ref::silu(g) * gate_up.at(r, cols + c);
        // exp of a rounded argument, 2 units in the last place; a sum, a quotient (2 units), a product.
        const double bound = std::fabs(value) * (2 * std::fabs(g) + 16) * kUnit;
        expect_near(got, r, c, value, bound + 1.01 * rounding(act(), value));
      }
    }
  }
}

TEST_P(BackendConformance, GatherLogitsRowsCopiesTheRowsOfThePlan) {
  reserve(64, 4, kAnyAttention);
  for (const DType dtype : {DType::kFloat32, act()}) {
    HostRows x = random_rows(9, 72, dtype);
    for (int64_t c = 0; c < x.cols; ++c) x.values[static_cast<size_t>(4 * x.cols + c)] = NAN;  // nobody asks for row 4
    const std::vector<int32_t> indices = {0, 2, 3, 8};
    plan_rows(std::vector<int32_t>(9, 0), indices);
    const Tensor out = poisoned(4, 72, dtype);
    backend_->gather_logits_rows(on_device(x, dtype), out);
    const HostRows got = read(out);
    for (size_t r = 0; r < indices.size(); ++r) {
      for (int64_t c = 0; c < x.cols; ++c) ASSERT_EQ(got.at(static_cast<int64_t>(r), c), x.at(indices[r], c));
    }
  }
}

// --- what fp16 cannot hold ---

// Beyond 65504 a result is infinity and its neighbours are what they would be without it; a type as wide as fp32 holds it.
TEST_P(BackendConformance, ResultsBeyondTheTypeAreInfinities) {
  const int64_t cols = 64, rows = 8;
  FileMatrix w{WeightType::kF32, rows, cols, {}, std::vector<double>(rows * cols, 0.0), {}, {}, 0, 0};
  for (int64_t n = 0; n < rows; ++n) w.values[static_cast<size_t>(n * cols + n)] = n == 3 ? 512 : 2;
  for (const double value : w.values) {
    const auto x = static_cast<float>(value);
    const auto* bytes = reinterpret_cast<const uint8_t*>(&x);
    w.bytes.insert(w.bytes.end(), bytes, bytes + 4);
  }
  const HostMatrix host = w.host();
  const auto matrix = backend_->make_matrix({&host, 1});
  ASSERT_TRUE(matrix.ok()) << matrix.status().message();
  reserve(64, 4, kAnyAttention);
  const auto expected_as = [&](DType type, double value) {
    return type == DType::kFloat16 && value > 65519 ? HUGE_VALF : static_cast<float>(value);
  };
  for (const int64_t tokens : {1, 3, 12}) {
    const Tensor x = on_device({tokens, cols, std::vector<float>(static_cast<size_t>(tokens * cols), 256)}, act());
    for (const DType type : {act(), DType::kFloat32}) {
      const Tensor out = poisoned(tokens, rows, type);
      backend_->matmul(**matrix, x, out);
      const HostRows got = read(out);
      for (int64_t n = 0; n < rows; ++n) ASSERT_EQ(got.at(tokens - 1, n), expected_as(type, n == 3 ? 131072 : 512));
    }
  }
  // 60000 + 40000 and 256 * 300 in 16 bits of bf16 are rounded; powers of two are not.
  const Tensor biased = on_device({1, 8, std::vector<float>(8, 32768)}, act());
  backend_->add_bias(biased, floats_on_device({0, 32768, 0, 0, 0, 0, 0, 98304}));
  const HostRows sums = read(biased);
  ASSERT_EQ(sums.row(0), (std::vector<float>{32768, expected_as(act(), 65536), 32768, 32768, 32768, 32768, 32768,
                                             expected_as(act(), 131072)}));
  HostRows gate_up{1, 16, std::vector<float>(16, 512)};
  gate_up.values[1] = 64;
  const Tensor gated = poisoned(1, 8, act());
  backend_->activation_mul(on_device(gate_up, act()), Activation::kSilu, gated);
  const HostRows products = read(gated);
  ASSERT_EQ(products.at(0, 0), expected_as(act(), 262144));
  ASSERT_EQ(products.at(0, 1), 32768);
  // The residual stream is fp32 whatever the activations are: it goes beyond, and comes back through the norm.
  const Tensor residual = on_device({1, 8, std::vector<float>(8, 60000)}, DType::kFloat32);
  const Tensor normed = poisoned(1, 8, act());
  backend_->add_rms_norm(residual, on_device({1, 8, std::vector<float>(8, 32768)}, act()),
                         floats_on_device(std::vector<float>(8, 1)), 1e-5f, normed);
  ASSERT_EQ(read(residual).row(0), std::vector<float>(8, 92768));
  for (const float value : read(normed).row(0)) ASSERT_NEAR(value, 1, unit_of(act()) + 16 * kUnit);
}

// --- attention -------------------------------------------------------------------------------------------------------

// Steps of random chunks of several sequences: rotations are held to the reference; attention to the reference over the
// very queries, keys and values that the backend rotated and rounded, so that its bound is that of attention alone.
class AttentionConformance : public BackendConformance {
 protected:
  // Of several kinds, layer i attends as the i-th does; layers take turns, and come back.
  void run(const AttentionKinds& kinds, DType cache_type, const std::vector<int32_t>& lengths) {
    const AttentionParams& params = kinds[0];
    const std::vector<int32_t> layers = kinds.size() == 1 ? std::vector<int32_t>{1} : std::vector<int32_t>{0, 1, 0};
    const int64_t dim = params.head_dim, heads = params.num_heads, kv_heads = params.num_kv_heads;
    const int64_t width = (heads + 2 * kv_heads) * dim;
    ScatteredSequences sequences(lengths, random_);
    const int64_t num_slots = int64_t{sequences.num_blocks()} * kBlockSize;
    reserve(num_slots, static_cast<int64_t>(lengths.size()), kinds);
    const auto cache = backend_->make_kv_cache(
        {2, sequences.num_blocks(), kBlockSize, params.num_kv_heads, params.head_dim, cache_type});
    ASSERT_TRUE(cache.ok()) << cache.status().message();
    make_rope_table(params.head_dim, num_slots);
    poison(kinds, **cache, sequences.num_blocks(), width);

    history_.assign(lengths.size(), HostRows{0, width, {}});
    std::vector<int32_t> rest = lengths;
    while (std::accumulate(rest.begin(), rest.end(), 0) > 0) {
      std::vector<ScatteredSequences::Chunk> chunks;
      for (size_t s = 0; s < rest.size(); ++s) {
        const int64_t most = uniform(0, 2) == 0 ? 1 : uniform(1, 60);
        const auto tokens = static_cast<int32_t>(uniform(0, std::min<int64_t>(rest[s], most)));
        if (tokens > 0) chunks.push_back({s, tokens});
        rest[s] -= tokens;
      }
      if (chunks.empty()) continue;
      const ScatteredSequences::Step step = sequences.advance(chunks);
      backend_->plan(step.inputs(), kinds);
      const HostRows qkv = random_rows(step.num_tokens(), width, act());
      const Tensor on_dev = on_device(qkv, act());
      if (kinds.size() > 1) backend_->rope_and_cache(on_device(qkv, act()), rope_, params, **cache, 0);
      backend_->rope_and_cache(on_dev, rope_, params, **cache, 1);
      const HostRows rotated = read(on_dev);
      expect_rotated(qkv, rotated, step.positions, params);
      std::vector<Tensor> outs;
      for (const int32_t layer : layers) {
        outs.push_back(poisoned(step.num_tokens(), heads * dim, act()));
        const AttentionParams& kind = kinds[static_cast<size_t>(layer) % kinds.size()];
        backend_->attention(on_dev, kind, **cache, layer, outs.back());
      }
      std::vector<HostRows> got;
      for (const Tensor& out : outs) got.push_back(read(out));
      for (size_t c = 0; c < chunks.size(); ++c) {
        HostRows& past = history_[chunks[c].sequence];
        for (int32_t row = step.cu[c]; row < step.cu[c + 1]; ++row) {
          const std::vector<float> values = rotated.row(row);
          past.values.insert(past.values.end(), values.begin(), values.end());
          ++past.rows;
          for (size_t i = 0; i < layers.size(); ++i) {
            expect_attended(past, cache_type, kinds[static_cast<size_t>(layers[i]) % kinds.size()], got[i], row);
          }
          if (HasFailure())
            FAIL() << "sequence " << chunks[c].sequence << " position " << past.rows - 1 << " seed " << seed_;
        }
      }
    }
  }

  // Sequences grow by one token a step; the attention of both kinds is one record, replayed each time.
  void replay(const AttentionKinds& kinds, const std::vector<int32_t>& first_lengths) {
    constexpr int32_t kSteps = 40;
    const AttentionParams& params = kinds[0];
    const int64_t width = int64_t{params.num_heads + 2 * params.num_kv_heads} * params.head_dim;
    std::vector<int32_t> lengths = first_lengths;
    for (int32_t& length : lengths) length += kSteps;
    ScatteredSequences sequences(lengths, random_);
    const int64_t num_slots = int64_t{sequences.num_blocks()} * kBlockSize;
    reserve(num_slots, 2, kinds);
    const auto cache = backend_->make_kv_cache(
        {2, sequences.num_blocks(), kBlockSize, params.num_kv_heads, params.head_dim, default_cache_type()});
    ASSERT_TRUE(cache.ok()) << cache.status().message();
    make_rope_table(params.head_dim, num_slots);
    poison(kinds, **cache, sequences.num_blocks(), width);
    std::vector<HostRows> history(2, HostRows{0, width, {}});
    const auto write = [&](const ScatteredSequences::Step& step) {
      backend_->plan(step.inputs(), kinds);
      const HostRows qkv = random_rows(step.num_tokens(), width, act());
      HostRows rotated;
      for (const int32_t layer : {0, 1}) {
        const Tensor on_dev = on_device(qkv, act());
        backend_->rope_and_cache(on_dev, rope_, params, **cache, layer);
        rotated = read(on_dev);
      }
      for (size_t s = 0; s < 2; ++s) {
        for (int32_t row = step.cu[s]; row < step.cu[s + 1]; ++row) {
          const std::vector<float> values = rotated.row(row);
          history[s].values.insert(history[s].values.end(), values.begin(), values.end());
          ++history[s].rows;
        }
      }
    };
    write(sequences.advance({{0, first_lengths[0]}, {1, first_lengths[1]}}));
    const HostRows queries = random_rows(2, width, act());
    const Tensor q = on_device(queries, act());
    const Tensor outs[2] = {poisoned(2, int64_t{params.num_heads} * params.head_dim, act()),
                            poisoned(2, int64_t{params.num_heads} * params.head_dim, act())};
    for (int32_t i = 0; i < kSteps; ++i) {
      const ScatteredSequences::Step step = sequences.advance({{0, 1}, {1, 1}});
      write(step);
      StepInputs inputs = step.inputs();
      inputs.recorded = true;
      backend_->plan(inputs, kinds);
      backend_->run_recorded([&] {
        for (const size_t layer : {size_t{0}, size_t{1}}) {
          backend_->attention(q, kinds[layer], **cache, static_cast<int32_t>(layer), outs[layer]);
        }
      });
      for (const size_t layer : {size_t{0}, size_t{1}}) {
        const HostRows got = read(outs[layer]);
        for (size_t s = 0; s < 2; ++s) {
          HostRows past = history[s];
          std::copy_n(queries.values.begin() + static_cast<int64_t>(s) * width, params.num_heads * params.head_dim,
                      past.values.end() - width);
          expect_attended(past, default_cache_type(), kinds[layer], got, static_cast<int64_t>(s));
        }
        if (HasFailure()) FAIL() << "step " << i << " layer " << layer << " seed " << seed_;
      }
    }
  }

 private:
  void make_rope_table(int32_t dim, int64_t num_positions) {
    std::vector<float> cosines, sines;
    for (int64_t p = 0; p < num_positions; ++p) {
      for (int32_t i = 0; i < dim / 2; ++i) {
        const double angle = static_cast<double>(p) * std::pow(10000.0, -2.0 * i / dim);
        cosines.push_back(static_cast<float>(std::cos(angle)));
        sines.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    rope_ = {dim, num_positions, floats_on_device(cosines), floats_on_device(sines)};
  }

  // NaN into every slot of both layers, through the op that writes slots: no result may show what was not written
  // since.
  void poison(const AttentionKinds& kinds, KvCache& cache, int32_t num_blocks, int64_t width) {
    const int64_t num_slots = int64_t{num_blocks} * kBlockSize;
    ScatteredSequences::Step step;
    step.max_blocks = num_blocks;
    step.token_ids.assign(static_cast<size_t>(num_slots), 0);
    step.positions.resize(static_cast<size_t>(num_slots));
    std::iota(step.positions.begin(), step.positions.end(), 0);
    step.slots.assign(step.positions.begin(), step.positions.end());
    step.tables.resize(static_cast<size_t>(num_blocks));
    std::iota(step.tables.begin(), step.tables.end(), 0);
    step.cu.push_back(static_cast<int32_t>(num_slots));
    step.seq_lens.push_back(static_cast<int32_t>(num_slots));
    const AttentionParams& params = kinds[0];
    backend_->plan(step.inputs(), kinds);
    const Tensor nothing = poisoned(num_slots, width, act());
    for (const int32_t layer : {0, 1}) backend_->rope_and_cache(nothing, rope_, params, cache, layer);
    ASSERT_TRUE(backend_->synchronize().ok());
  }

  void expect_rotated(const HostRows& before, const HostRows& after, const std::vector<int32_t>& positions,
                      const AttentionParams& params) {
    const int64_t dim = params.head_dim, rotated_heads = params.num_heads + params.num_kv_heads;
    for (int64_t r = 0; r < before.rows; ++r) {
      for (int64_t h = 0; h < rotated_heads; ++h) {
        std::vector<double> head = before.part(r, h * dim, dim), expected = head;
        ref::rope(expected, positions[static_cast<size_t>(r)], dim, 10000.0);
        for (int64_t i = 0; i < dim; ++i) {
          // The table's rounding, two products, a sum.
          const double parts =
              std::fabs(head[static_cast<size_t>(i)]) + std::fabs(head[static_cast<size_t>((i + dim / 2) % dim)]);
          const double value = expected[static_cast<size_t>(i)];
          expect_near(after, r, h * dim + i, value, 3 * kUnit * parts + 1.01 * rounding(act(), value));
        }
      }
      for (int64_t c = rotated_heads * dim; c < before.cols; ++c) ASSERT_EQ(after.at(r, c), before.at(r, c));
    }
  }

  // The newest row of `past` at row `row` of what attention gave.
  void expect_attended(const HostRows& past, DType cache_type, const AttentionParams& params, const HostRows& got,
                       int64_t row) {
    const int64_t dim = params.head_dim, position = past.rows - 1, group = params.num_heads / params.num_kv_heads;
    // What q and the weights meet keys and values in.
    const bool in_pairs = meets_in_pairs() && cache_type != DType::kFloat32;
    const DType met = in_pairs ? DType::kBFloat16 : act();
    const double of_int8 = cache_type == DType::kInt8 ? kUnit : 0;  // the product with a scale
    for (int64_t kv = 0; kv < params.num_kv_heads; ++kv) {
      std::vector<double> keys, values, magnitudes;
      for (int64_t p = 0; p <= position; ++p) {
        for (const double x : kept(cache_type, past.part(p, (params.num_heads + kv) * dim, dim))) keys.push_back(x);
        for (const double x :
             kept(cache_type, past.part(p, (params.num_heads + params.num_kv_heads + kv) * dim, dim))) {
          values.push_back(x);
          magnitudes.push_back(std::fabs(x));
        }
      }
      for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
        std::vector<double> q = past.part(position, h * dim, dim);
        for (double& x : q) x = rounded_to(met, static_cast<float>(x));
        const ref::AttentionProblem problem{params.scale, params.logit_softcap, params.sliding_window};
        const auto expected = ref::attention(q, keys, values, position, problem);
        const auto magnitude = ref::attention(q, keys, magnitudes, position, problem);
        double largest_score = 0;  // of sums of |q k|, before the cap
        for (int64_t p = 0; p <= position; ++p) {
          double score = 0;
          for (int64_t i = 0; i < dim; ++i) {
            score += std::fabs(q[static_cast<size_t>(i)] * keys[static_cast<size_t>(p * dim + i)]);
          }
          largest_score = std::max(largest_score, score * params.scale);
        }
        // A score: a chain over d, the scale, the cap (4 units), the base of the exponential. A weight: the exponential
        // of a difference of two scores, 4 roundings (2^-18 where products are of bf16 pairs), and one to the type in which it meets v. Numerator and
        // denominator: chains over positions, each weight's error in both.
        const double score_error = largest_score * ((static_cast<double>(dim) + 12) * kUnit + of_int8);
        const double weight_error = 2 * score_error + 8 * kUnit + of_int8 + (in_pairs ? 0x1p-18 : 0);
        const double relative = 2 * weight_error + unit_of(met) + 2 * (static_cast<double>(position) + 16) * kUnit;
        for (int64_t i = 0; i < dim; ++i) {
          const double value = expected[static_cast<size_t>(i)];
          expect_near(got, row, h * dim + i, value,
                      1.01 * (magnitude[static_cast<size_t>(i)] * relative + rounding(act(), value)));
        }
      }
    }
  }

  bool meets_in_pairs() const { return GetParam() == "avx512_bf16"; }

  // What a cache of the type keeps of a key or value, in real numbers (int8: kernels/kv_layout.h).
  std::vector<double> kept(DType cache_type, std::vector<double> row) const {
    if (cache_type != DType::kInt8) {
      for (double& x : row) x = rounded_to(cache_type, static_cast<float>(x));
      return row;
    }
    float largest = 0;
    for (const double x : row) largest = std::max(largest, std::fabs(static_cast<float>(x)));
    const float scale = largest / 127.0f, inverse = largest >= 0x1p-100f ? 127.0f / largest : 0;
    for (double& x : row) {
      double exact = x * double{inverse};                                                   // of two 24-bit numbers
      if (GetParam() == "generic") exact = static_cast<double>(static_cast<float>(exact));  // no fma
      x = double{scale} * std::nearbyint(exact);
    }
    return row;
  }

  RopeTable rope_;
  std::vector<HostRows> history_;  // per sequence, as rotated
};

struct AttentionCase {
  AttentionParams params;
  const char* what;
};
const std::vector<AttentionCase> kAttentionCases = {
    {{.num_heads = 6, .num_kv_heads = 2, .head_dim = 64, .scale = 0.125f}, "groups of three"},
    {{.num_heads = 3, .num_kv_heads = 3, .head_dim = 48, .scale = 0.2f, .logit_softcap = 2.0f}, "a soft-cap"},
    {{.num_heads = 8, .num_kv_heads = 1, .head_dim = 128, .scale = 0.09f, .sliding_window = 20}, "a window"},
    {{.num_heads = 2, .num_kv_heads = 1, .head_dim = 16, .scale = 0.5f, .logit_softcap = 5.0f, .sliding_window = 33},
     "both"},
};

TEST_P(AttentionConformance, RaggedStepsOverScatteredBlocks) {
  for (const AttentionCase& attention_case : kAttentionCases) {
    SCOPED_TRACE(attention_case.what);
    int num_cache_types = 0;
    for (const DType cache_type : {DType::kBFloat16, DType::kFloat16, DType::kFloat32, DType::kInt8}) {
      BackendNeeds needs;
      needs.attention = attention_case.params;
      needs.kv_cache_dtype = cache_type;
      if (!backend_->supports(needs).ok()) continue;
      ++num_cache_types;
      make_backend_anew();
      run(attention_case.params, cache_type, {1, 17, 150, 70});
      if (HasFatalFailure()) return;
    }
    EXPECT_GE(num_cache_types, 1);
  }
}

// Local and global layers of one model, in one step.
TEST_P(AttentionConformance, LayersOfTwoWindowsTakeTurns) {
  const AttentionParams global = {.num_heads = 4, .num_kv_heads = 2, .head_dim = 32, .scale = 0.2f};
  AttentionParams local = global;
  local.sliding_window = 21;
  run(AttentionKinds({local, global}), default_cache_type(), {1, 17, 150, 70});
}

// The same while a recorded step is replayed, where there are records: what one holds does not depend on the lengths.
TEST_P(AttentionConformance, LayersOfTwoWindowsAreReplayed) {
  AttentionParams local = {.num_heads = 4, .num_kv_heads = 2, .head_dim = 32, .scale = 0.2f}, global = local;
  local.sliding_window = 21;
  replay(AttentionKinds({local, global}), {90, 35});
}

const auto kName = [](const auto& test) {
  std::string name = test.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
};
INSTANTIATE_TEST_SUITE_P(All, WeightConformance, testing::ValuesIn(available_backends()), kName);
INSTANTIATE_TEST_SUITE_P(All, BackendConformance, testing::ValuesIn(available_backends()), kName);
INSTANTIATE_TEST_SUITE_P(All, AttentionConformance, testing::ValuesIn(available_backends()), kName);

}  // namespace
}  // namespace sextant
