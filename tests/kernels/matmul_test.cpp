// Matrix products on every instruction set and weight type against fp64, and their bitwise invariance.
#include "kernels/matmul.h"

#include <bit>
#include <cmath>
#include <map>
#include <tuple>

#include "tests/kernels/op_test_support.h"

namespace sextant::kernels {
namespace {

class MatmulTest : public testing::TestWithParam<std::tuple<const cpu::KernelTable*, PanelType>>, public SeededTest {
 protected:
  const cpu::KernelTable& kernels() const { return *std::get<0>(GetParam()); }
  PanelType type() const { return std::get<1>(GetParam()); }

  // x with row stride x_stride; out poisoned, so that an element not written is seen.
  std::vector<float> multiply(const RandomMatrix& w, const std::vector<float>& x, int64_t x_stride, int64_t tokens,
                              int64_t out_stride, int64_t panel_step) {
    std::vector<float> out(static_cast<size_t>(tokens * out_stride), NAN);
    const MatmulInputKind kind = matmul_input_kind(w.type);
    Scratch input(matmul_input_bytes(kind, w.cols, tokens) / 4);
    auto* to = reinterpret_cast<uint8_t*>(input.data());
    // In two calls where there are tokens enough.
    const int64_t cut = std::min<int64_t>(tokens, kMatmulTileMultiple);
    if (cut < tokens) kernels().matmul_input({kind, x.data(), x_stride, w.cols, tokens, cut, tokens, to});
    kernels().matmul_input({kind, x.data(), x_stride, w.cols, tokens, 0, cut, to});
    for (int64_t p = 0; p < num_panels(w.rows); p += panel_step) {
      kernels().matmul({w.type, w.panels.data(), w.rows, w.cols, p, std::min(p + panel_step, num_panels(w.rows)), to,
                        tokens, out.data(), out_stride});
    }
    return out;
  }
};

class Int8MatmulTest : public MatmulTest {};

// x as the type's recipe sees it.
std::vector<double> input_of(PanelType type, const std::vector<float>& x, int64_t tokens, int64_t cols) {
  if (matmul_input_kind(type) == MatmulInputKind::kInt8) return ref::quantized_activations(x, tokens, cols);
  return {x.begin(), x.end()};
}

// Error of one output against exact arithmetic on what the recipe sees, with u = 2^-24 and M = sum |x w| (where there are minimums the
// parts d q x and m x counted separately: w' = |d q| + |m|). Plain types: a block's chain of 32 fma (or multiply-add: one rounding
// more each) makes at most 33 u per product, the total's chain one per block. int8: the integer sums are exact; d e, X and
// their products make at most 3 u per product, the total's chain two per block. Hence |error| <= (33 + 5 + 2 + 2 * blocks) u
// M', and doubled for second-order terms and the reference's own rounding.
std::vector<double> sizes_of_row(const RandomMatrix& w, int64_t n) {
  const std::vector<double> minimums =
      ref::minimums_of_row(w.type, w.file.data() + n * file_row_bytes(w.type, w.cols), w.cols);
  std::vector<double> sizes;
  for (int64_t k = 0; k < w.cols; ++k) {
    const double m = minimums[static_cast<size_t>(k)];
    sizes.push_back(std::fabs(w.values[static_cast<size_t>(n * w.cols + k)] - m) + std::fabs(m));
  }
  return sizes;
}
double tolerance(const RandomMatrix& w, const std::vector<double>& sizes, const std::vector<double>& x, int64_t t) {
  double magnitude = 0;
  for (int64_t k = 0; k < w.cols; ++k)
    magnitude += std::fabs(x[static_cast<size_t>(t * w.cols + k)]) * sizes[static_cast<size_t>(k)];
  return 2 * (40.0 + 2.0 * static_cast<double>(num_panel_blocks(w.cols))) * kEpsilon * magnitude;
}

TEST_P(MatmulTest, AgreesWithReference) {
  for (int round = 0; round < 12; ++round) {
    const int64_t most = has_superblocks(type()) ? 3 : 9;
    const int64_t cols = has_blocks(type()) ? cols_of_blocks(type(), uniform(1, most)) : uniform(1, 300);
    const int64_t rows = uniform(1, 100), tokens = round == 0 ? kMatmulTokensPerPass : uniform(1, 30);
    const RandomMatrix w = random_matrix(type(), rows, cols, *this);
    const std::vector<float> x = normals(tokens * cols);
    const std::vector<float> out = multiply(w, x, cols, tokens, rows, num_panels(rows));
    const std::vector<double> seen = input_of(type(), x, tokens, cols);
    const ref::MatmulResult expected = ref::matmul(seen, w.values, tokens, rows, cols);
    for (int64_t n = 0; n < rows; ++n) {
      const std::vector<double> sizes = sizes_of_row(w, n);
      for (int64_t t = 0; t < tokens; ++t) {
        const auto i = static_cast<size_t>(t * rows + n);
        ASSERT_NEAR(out[i], expected.out[i], tolerance(w, sizes, seen, t))
            << "token " << t << " row " << n << " of T " << tokens << " N " << rows << " K " << cols << " seed "
            << seed();
      }
    }
  }
}

// Half a step of each block's scale, and what three roundings (of the scale, its inverse and the product) may add to 127 steps.
TEST(Int8Activations, AreWithinHalfAStep) {
  SeededTest random;
  const int64_t rows = 20, cols = 330;
  std::vector<float> x = random.normals(rows * cols);
  for (float& value : x) value *= std::exp(4 * random.normal());
  const std::vector<double> seen = ref::quantized_activations(x, rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < cols; ++k) {
      float top = 0;
      for (int64_t i = k / 32 * 32; i < std::min(k / 32 * 32 + 32, cols); ++i)
        top = std::max(top, std::fabs(x[static_cast<size_t>(r * cols + i)]));
      const auto at = static_cast<size_t>(r * cols + k);
      ASSERT_LE(std::fabs(seen[at] - x[at]), top / 127.0 * 0.5 * (1 + 0x1p-15)) << random.seed();
    }
  }
}

TEST_P(Int8MatmulTest, ExtremeActivations) {
  const int64_t cols = cols_of_blocks(type(), has_superblocks(type()) ? 1 : 4), rows = 20;
  const RandomMatrix w = random_matrix(type(), rows, cols, *this);
  // All at the ends of int8, of either sign: no partial sum may saturate.
  for (const float sign : {1.0f, -1.0f}) {
    std::vector<float> x(static_cast<size_t>(cols), sign * 3.0f);
    const std::vector<double> seen = input_of(type(), x, 1, cols);
    const std::vector<float> out = multiply(w, x, cols, 1, rows, num_panels(rows));
    const ref::MatmulResult expected = ref::matmul(seen, w.values, 1, rows, cols);
    for (int64_t n = 0; n < rows; ++n)
      ASSERT_NEAR(out[static_cast<size_t>(n)], expected.out[static_cast<size_t>(n)],
                  tolerance(w, sizes_of_row(w, n), seen, 0));
  }
  // Zeros and numbers too small for a scale are zeros.
  for (const float tiny : {0.0f, 0x1p-101f, 0x1p-140f}) {
    const std::vector<float> out =
        multiply(w, std::vector<float>(static_cast<size_t>(cols), tiny), cols, 1, rows, num_panels(rows));
    for (const float y : out) ASSERT_EQ(y, 0.0f);
  }
  // What is not a number does not become one.
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> x = normals(cols);
    x[static_cast<size_t>(uniform(0, cols - 1))] = bad;
    for (const float y : multiply(w, x, cols, 1, rows, num_panels(rows))) ASSERT_FALSE(std::isfinite(y)) << bad;
  }
}

// Quants and scales at the ends of their ranges beside inputs at the ends of int8: sums of integers stay exact, none saturates.
TEST_P(Int8MatmulTest, ExtremeWeights) {
  const int64_t cols = cols_of_blocks(type(), 1), rows = 16, row_bytes = file_row_bytes(type(), cols);
  RandomMatrix w{type(), rows, cols, {}, {}, std::vector<uint8_t>(static_cast<size_t>(panel_bytes(type(), cols)))};
  const uint8_t* of_panel[kPanelRows];
  w.file.resize(static_cast<size_t>(rows * row_bytes));
  for (int64_t r = 0; r < rows; ++r) {
    uint8_t* row = w.file.data() + r * row_bytes;
    const int quants[4] = {0x00, 0xff, 0x80, 0x7f}, scales[4] = {0x80, 0x7f, 0xff, 0x00};
    std::memset(row, quants[r % 4], static_cast<size_t>(row_bytes));
    if (type() == PanelType::kQ6K) std::memset(row + 192, scales[r / 4], 16);
    const uint16_t one = 0x3c00;
    std::memcpy(row + (type() == PanelType::kQ6K ? 208 : 0), &one, 2);
    if (has_superblocks(type()) && type() != PanelType::kQ6K) std::memcpy(row + 2, &one, 2);
    if (type() == PanelType::kQ4_1) std::memcpy(row + 2, &one, 2);
    of_panel[r] = row;
    const std::vector<double> values = ref::dequantize_row(type(), row, cols);
    w.values.insert(w.values.end(), values.begin(), values.end());
  }
  cpu::pack_panel(type(), of_panel, cols, w.panels.data());
  for (const int64_t tokens : {1, 4, 12}) {
    for (const int64_t alternate : {1, 2, 16, 64}) {  // signs of x
      std::vector<float> x(static_cast<size_t>(tokens * cols));
      for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<int64_t>(i) / alternate % 2 == 0 ? 127.0f : -127.0f;
      const std::vector<double> seen = input_of(type(), x, tokens, cols);
      const std::vector<float> out = multiply(w, x, cols, tokens, rows, 1);
      const ref::MatmulResult expected = ref::matmul(seen, w.values, tokens, rows, cols);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t n = 0; n < rows; ++n) {
          const auto i = static_cast<size_t>(t * rows + n);
          ASSERT_NEAR(out[i], expected.out[i], tolerance(w, sizes_of_row(w, n), seen, t)) << t << ", " << n;
        }
      }
    }
  }
}

TEST_P(Int8MatmulTest, TheSameBitsOnEveryInstructionSetWithFma) {
  const cpu::KernelTable* other = cpu::kernel_table(cpu::Isa::kAvx2);
  if (other == nullptr || kernels().isa == cpu::Isa::kGeneric) GTEST_SKIP() << "nothing to compare with";
  const int64_t cols = cols_of_blocks(type(), has_superblocks(type()) ? 2 : 5), rows = 53;
  const RandomMatrix w = random_matrix(type(), rows, cols, *this);
  for (const int64_t tokens : {1, 5, 6, 8, 12, 31}) {
    const std::vector<float> x = normals(tokens * cols);
    Scratch input(matmul_input_bytes(MatmulInputKind::kInt8, cols, tokens) / 4);
    auto* to = reinterpret_cast<uint8_t*>(input.data());
    std::vector<float> expected(static_cast<size_t>(tokens * rows), NAN);
    other->matmul_input({MatmulInputKind::kInt8, x.data(), cols, cols, tokens, 0, tokens, to});
    other->matmul({type(), w.panels.data(), rows, cols, 0, num_panels(rows), to, tokens, expected.data(), rows});
    ASSERT_EQ(multiply(w, x, cols, tokens, rows, 3), expected) << tokens << " tokens, seed " << seed();
  }
}

TEST_P(MatmulTest, RowIsTheSameAloneAndAtEveryPlaceOfEveryBatch) {
  const int64_t cols = has_superblocks(type()) ? 256 : has_blocks(type()) ? 96 : 101, rows = 75;
  const RandomMatrix w = random_matrix(type(), rows, cols, *this);
  const std::vector<float> row = normals(cols);
  const std::vector<float> alone = multiply(w, row, cols, 1, rows, num_panels(rows));
  for (int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 24, 49, 192}) {
    for (int64_t place = 0; place<tokens; place += tokens> 17 ? 5 : 1) {
      std::vector<float> x = normals(tokens * cols);
      std::copy(row.begin(), row.end(), x.begin() + place * cols);
      // Neighbours that are not numbers must not matter either; batches without them are brought in another way.
      for (int64_t t = 0; t < tokens; ++t) {
        if (place % 2 == 0 && t != place && t % 3 == 0) x[static_cast<size_t>(t * cols)] = NAN;
      }
      const std::vector<float> out = multiply(w, x, cols, tokens, rows, num_panels(rows));
      ASSERT_EQ(std::memcmp(out.data() + place * rows, alone.data(), static_cast<size_t>(rows) * 4), 0)
          << "place " << place << " of " << tokens << " seed " << seed();
    }
  }
}

TEST_P(MatmulTest, PanelRangesAndStridesDoNotMatter) {
  const int64_t cols = has_superblocks(type()) ? 512
                       : has_blocks(type())    ? 64
                                               : 77,
                rows = 150, tokens = 14, x_stride = cols + 5, out_stride = rows + 3;
  const RandomMatrix w = random_matrix(type(), rows, cols, *this);
  const std::vector<float> x = normals(tokens * x_stride);
  const std::vector<float> whole = multiply(w, x, x_stride, tokens, out_stride, num_panels(rows));
  for (int64_t step : {1, 2, 3, 7}) {
    const std::vector<float> out = multiply(w, x, x_stride, tokens, out_stride, step);
    for (int64_t t = 0; t < tokens; ++t) {
      ASSERT_EQ(std::memcmp(out.data() + t * out_stride, whole.data() + t * out_stride, static_cast<size_t>(rows) * 4),
                0)
          << step;
      for (int64_t n = rows; n < out_stride; ++n) {
        ASSERT_TRUE(std::isnan(out[static_cast<size_t>(t * out_stride + n)])) << "wrote past the row";
      }
    }
  }
}

// Integer sums and fused multiply-adds in one order leave no room: x86 and Arm give these very bits, which change with the
// recipe of matmul.h alone.
TEST_P(Int8MatmulTest, BitsAreThoseOfEveryInstructionSetWithFma) {
  if (kernels().isa == cpu::Isa::kGeneric) return;  // multiplies and adds
  const int64_t cols = has_superblocks(type()) ? 512 : 96, rows = 40, tokens = 7;
  std::mt19937_64 bits(7);  // its sequence is the same everywhere; distributions are not
  const auto number = [&] { return static_cast<float>(static_cast<int64_t>(bits() % 20001) - 10000) * 0x1p-12f; };
  RandomMatrix w{type(), rows, cols, {}, {}, {}};
  w.panels.resize(static_cast<size_t>(num_panels(rows) * panel_bytes(type(), cols)));
  std::vector<std::vector<uint8_t>> file(static_cast<size_t>(rows));
  for (auto& row : file) {
    for (int64_t b = 0; has_superblocks(type()) && b < cols / kPanelSuperblock; ++b) {
      const bool at_end = type() == PanelType::kQ6K;
      const int64_t numbers = at_end ? 2 : 4, others = file_row_bytes(type(), kPanelSuperblock) - numbers;
      for (int64_t i = 0; at_end && i < others; ++i) row.push_back(static_cast<uint8_t>(bits() >> 56));
      for (int64_t i = 0; i < numbers; i += 2) append_u16(row, ref::f16_of_f32(number()));
      for (int64_t i = 0; !at_end && i < others; ++i) row.push_back(static_cast<uint8_t>(bits() >> 56));
    }
    for (int64_t b = 0; !has_superblocks(type()) && b < cols / kPanelBlock; ++b) {
      append_u16(row, ref::f16_of_f32(number()));
      if (type() == PanelType::kQ4_1) append_u16(row, ref::f16_of_f32(number()));
      for (int i = 0; i < (type() == PanelType::kQ8_0 ? 32 : 16); ++i)
        row.push_back(static_cast<uint8_t>(bits() >> 56));
    }
  }
  for (int64_t p = 0; p < num_panels(rows); ++p) {
    const uint8_t* of_panel[kPanelRows] = {};
    for (int64_t r = 0; r < kPanelRows && p * kPanelRows + r < rows; ++r)
      of_panel[r] = file[static_cast<size_t>(p * kPanelRows + r)].data();
    cpu::pack_panel(type(), of_panel, cols, w.panels.data() + p * panel_bytes(type(), cols));
  }
  std::vector<float> x(static_cast<size_t>(tokens * cols));
  for (float& value : x) value = number();
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a over the results' 32-bit words
  for (const float y : multiply(w, x, cols, tokens, rows, num_panels(rows)))
    hash = (hash ^ std::bit_cast<uint32_t>(y)) * 0x100000001b3u;
  const std::map<PanelType, uint64_t> expected = {
      {PanelType::kQ8_0, 0x60a67711ba3fc9c4u}, {PanelType::kQ4_0, 0xa2d6fe0805cb8050u},
      {PanelType::kQ4_1, 0x69826ec9529593b3u}, {PanelType::kQ4K, 0xb531c35900a0edcau},
      {PanelType::kQ5K, 0x197c95b5f81a525bu},  {PanelType::kQ6K, 0xe02c548b9d702dbeu}};
  EXPECT_EQ(hash, expected.at(type())) << std::hex << hash;
}

// Inputs rounded to bf16, products of pairs: where the instruction set has them.
class Bf16MatmulTest : public testing::TestWithParam<const cpu::KernelTable*>, public SeededTest {
 protected:
  void SetUp() override {
    if (GetParam()->matmul_bf16 == nullptr) GTEST_SKIP() << "no products of bf16 pairs";
  }
  std::vector<float> multiply(const RandomMatrix& w, const std::vector<float>& x, int64_t x_stride, int64_t tokens,
                              int64_t out_stride, int64_t panel_step) {
    std::vector<float> out(static_cast<size_t>(tokens * out_stride), NAN);
    Scratch input(matmul_input_bytes(MatmulInputKind::kBf16, w.cols, tokens) / 4);
    auto* to = reinterpret_cast<uint8_t*>(input.data());
    const int64_t cut = std::min<int64_t>(tokens, kMatmulTileMultiple);
    for (const auto& [begin, end] : {std::pair{cut, tokens}, std::pair{int64_t{0}, cut}}) {
      GetParam()->matmul_bf16_input({MatmulInputKind::kBf16, x.data(), x_stride, w.cols, tokens, begin, end, to});
    }
    for (int64_t p = 0; p < num_panels(w.rows); p += panel_step) {
      GetParam()->matmul_bf16({w.type, w.panels.data(), w.rows, w.cols, p, std::min(p + panel_step, num_panels(w.rows)),
                               to, tokens, out.data(), out_stride});
    }
    return out;
  }
};

// Each pair rounds its sum twice, in either order: (K + 2) u of the magnitudes at most, doubled for second-order terms. What counts as 0
// is below 2^-126, each product with it below 2^-126 times the other factor.
TEST_P(Bf16MatmulTest, AgreesWithReferenceOnRoundedInputs) {
  for (int round = 0; round < 12; ++round) {
    const int64_t cols = uniform(1, 300), rows = uniform(1, 100);
    const int64_t tokens = round == 0 ? kMatmulTokensPerPass : uniform(1, 30);
    const RandomMatrix w = random_matrix(PanelType::kBF16, rows, cols, *this);
    const std::vector<float> x = normals(tokens * cols);
    std::vector<double> seen;
    seen.reserve(x.size());
    for (const float value : x) seen.push_back(ref::f32_of_bf16(ref::bf16_of_f32(value)));
    const std::vector<float> out = multiply(w, x, cols, tokens, rows, uniform(1, num_panels(rows)));
    const ref::MatmulResult expected = ref::matmul(seen, w.values, tokens, rows, cols);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t n = 0; n < rows; ++n) {
        double magnitude = 0, factors = 0;
        for (int64_t k = 0; k < cols; ++k) {
          const double a = std::fabs(seen[static_cast<size_t>(t * cols + k)]),
                       b = std::fabs(w.values[static_cast<size_t>(n * cols + k)]);
          magnitude += a * b;
          factors += a + b + 1;
        }
        const auto i = static_cast<size_t>(t * rows + n);
        ASSERT_NEAR(out[i], expected.out[i],
                    2 * static_cast<double>(cols + 2) * kEpsilon * magnitude + 0x1p-126 * factors)
            << "token " << t << " row " << n << " of T " << tokens << " N " << rows << " K " << cols << " seed "
            << seed();
      }
    }
  }
}

TEST_P(Bf16MatmulTest, RowIsTheSameAloneAndAtEveryPlaceOfEveryBatch) {
  const int64_t cols = 101, rows = 75, stride = cols + 3;
  const RandomMatrix w = random_matrix(PanelType::kBF16, rows, cols, *this);
  const std::vector<float> row = normals(cols);
  const std::vector<float> alone = multiply(w, row, cols, 1, rows, num_panels(rows));
  for (const int64_t tokens : {1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 24, 49}) {
    for (int64_t place = 0; place<tokens; place += tokens> 17 ? 5 : 1) {
      std::vector<float> x = normals(tokens * stride);
      std::copy(row.begin(), row.end(), x.begin() + place * stride);
      for (int64_t t = 0; t < tokens; ++t) {
        if (t != place && t % 3 == 0) x[static_cast<size_t>(t * stride)] = NAN;
      }
      const std::vector<float> out = multiply(w, x, stride, tokens, rows + 1, 1 + place % 4);
      ASSERT_EQ(std::memcmp(out.data() + place * (rows + 1), alone.data(), static_cast<size_t>(rows) * 4), 0)
          << "place " << place << " of " << tokens << " seed " << seed();
      ASSERT_TRUE(std::isnan(out[static_cast<size_t>(place * (rows + 1) + rows)])) << "wrote past the row";
    }
  }
}

// What is not a number does not become one, and what bf16 has no room for is infinite.
TEST_P(Bf16MatmulTest, ExtremeActivations) {
  const RandomMatrix w = random_matrix(PanelType::kBF16, 20, 70, *this);
  for (const float bad : {NAN, INFINITY, -INFINITY, 3.4e38f}) {
    std::vector<float> x = normals(70);
    x[static_cast<size_t>(uniform(0, 69))] = bad;
    for (const float y : multiply(w, x, 70, 1, 20, 2)) ASSERT_FALSE(std::isfinite(y)) << bad << " seed " << seed();
  }
  for (const float tiny : {0.0f, -0.0f, 0x1p-127f, 0x1p-149f}) {
    for (const float y : multiply(w, std::vector<float>(70, tiny), 70, 1, 20, 2)) ASSERT_EQ(y, 0.0f) << tiny;
  }
}

constexpr auto kParameterName = [](const auto& test) {
  return table_name(std::get<0>(test.param)) + "_" + type_name(std::get<1>(test.param));
};
INSTANTIATE_TEST_SUITE_P(All, MatmulTest,
                         testing::Combine(testing::ValuesIn(tables_under_test()), testing::ValuesIn(all_types())),
                         kParameterName);
INSTANTIATE_TEST_SUITE_P(All, Bf16MatmulTest, testing::ValuesIn(tables_under_test()),
                         [](const auto& test) { return table_name(test.param); });
INSTANTIATE_TEST_SUITE_P(All, Int8MatmulTest,
                         testing::Combine(testing::ValuesIn(tables_under_test()), testing::ValuesIn(block_types())),
                         kParameterName);

}  // namespace
}  // namespace sextant::kernels
