// exp, tanh, norms and element operations on every instruction set against fp64.
#include <bit>
#include <cmath>

#include "tests/kernels/op_test_support.h"

namespace sextant::kernels {
namespace {

class VectorOpTest : public testing::TestWithParam<const cpu::KernelTable*>, public SeededTest {
 protected:
  const cpu::KernelTable& kernels() const { return *GetParam(); }
};

// Distance in units in the last place of the fp32 number nearest to `exact`.
double ulps(float got, double exact) {
  const float nearest = static_cast<float>(exact);
  const double unit = static_cast<double>(std::nextafter(std::fabs(nearest), INFINITY)) - std::fabs(nearest);
  return std::fabs(got - exact) / unit;
}

TEST_P(VectorOpTest, ExpStaysWithinItsBound) {
  std::vector<float> x;
  // Every 1009th float of both signs covers all exponents; the range itself is in the contract.
  for (uint32_t bits = 0; bits < 0x7f800000; bits += 1009) {
    x.push_back(std::bit_cast<float>(bits));
    x.push_back(-std::bit_cast<float>(bits));
  }
  std::vector<float> y(x.size());
  kernels().exp(x.data(), y.data(), static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] < -87.33f) {
      ASSERT_EQ(y[i], 0.0f) << x[i];
    } else if (x[i] > 88.37f) {
      ASSERT_EQ(y[i], INFINITY) << x[i];
    } else {
      ASSERT_LE(ulps(y[i], std::exp(static_cast<double>(x[i]))), 2.0) << x[i];
    }
  }
}

TEST_P(VectorOpTest, ExpOfSpecialValues) {
  const std::vector<float> x = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, -NAN, 1000.0f, -1000.0f};
  std::vector<float> y(x.size());
  kernels().exp(x.data(), y.data(), static_cast<int64_t>(x.size()));
  EXPECT_EQ(y[0], 1.0f);
  EXPECT_EQ(y[1], 1.0f);
  EXPECT_EQ(y[2], INFINITY);
  EXPECT_EQ(y[3], 0.0f);
  EXPECT_TRUE(std::isnan(y[4]) && std::isnan(y[5]));
  EXPECT_EQ(y[6], INFINITY);
  EXPECT_EQ(y[7], 0.0f);
}

TEST_P(VectorOpTest, TanhStaysWithinItsBound) {
  std::vector<float> x;
  for (uint32_t bits = 0x00800000; bits < 0x7f800000; bits += 1009) {
    x.push_back(std::bit_cast<float>(bits));
    x.push_back(-std::bit_cast<float>(bits));
  }
  std::vector<float> y(x.size());
  kernels().tanh(x.data(), y.data(), static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) ASSERT_LE(ulps(y[i], std::tanh(static_cast<double>(x[i]))), 4.0) << x[i];
}

TEST_P(VectorOpTest, RmsNormAgreesWithReference) {
  for (const int64_t cols : {1, 7, 16, 63, 64, 65, 576, 1001}) {
    const int64_t rows = 3, stride = cols + 5;
    const std::vector<float> x = normals(rows * stride), weight = normals(cols);
    std::vector<float> out(static_cast<size_t>(rows * stride), NAN);
    kernels().rms_norm({nullptr, 0, x.data(), stride, weight.data(), 1e-5f, out.data(), stride, rows, cols});
    // Squares are positive: 64 chains of cols / 64 terms and a tree give a relative error of (cols / 64 + 9) u; half of that after
    // the root; root, division, mean, eps and two products one u each.
    const double relative = 2 * (static_cast<double>(cols) / 128 + 5 + 6) * kEpsilon;
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<double> expected =
          ref::rms_norm({x.data() + r * stride, static_cast<size_t>(cols)}, weight, 1e-5f);
      for (int64_t i = 0; i < cols; ++i) {
        const double e = expected[static_cast<size_t>(i)];
        ASSERT_NEAR(out[static_cast<size_t>(r * stride + i)], e, std::fabs(e) * relative) << cols << " seed " << seed();
      }
      for (int64_t i = cols; i < stride; ++i)
        ASSERT_TRUE(std::isnan(out[static_cast<size_t>(r * stride + i)])) << "wrote past the row";
    }
    std::vector<float> in_place = x;
    kernels().rms_norm(
        {nullptr, 0, in_place.data(), stride, weight.data(), 1e-5f, in_place.data(), stride, rows, cols});
    for (int64_t r = 0; r < rows; ++r) {
      ASSERT_EQ(std::memcmp(in_place.data() + r * stride, out.data() + r * stride, static_cast<size_t>(cols) * 4), 0);
    }
  }
}

TEST_P(VectorOpTest, AddRmsNormIsTheSumThenTheNorm) {
  for (const int64_t cols : {1, 15, 64, 100, 577}) {
    const int64_t rows = 2;
    const std::vector<float> x = normals(rows * cols), before = normals(rows * cols), weight = normals(cols);
    std::vector<float> residual = before, out(x.size()), sum(x.size()), expected(x.size());
    kernels().add_rms_norm({residual.data(), cols, x.data(), cols, weight.data(), 1e-6f, out.data(), cols, rows, cols});
    for (size_t i = 0; i < x.size(); ++i) sum[i] = before[i] + x[i];
    kernels().rms_norm({nullptr, 0, sum.data(), cols, weight.data(), 1e-6f, expected.data(), cols, rows, cols});
    ASSERT_EQ(residual, sum) << seed();
    ASSERT_EQ(out, expected) << seed();
  }
}

TEST_P(VectorOpTest, AddAndAddBiasAreExact) {
  const int64_t rows = 3, cols = 53;
  const std::vector<float> x = normals(rows * cols), y = normals(rows * cols);
  std::vector<float> sum = x, biased = x;
  kernels().add({sum.data(), cols, y.data(), cols, rows, cols});
  kernels().add_bias({biased.data(), cols, y.data(), 0, rows, cols});
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(sum[i], x[i] + y[i]);
    ASSERT_EQ(biased[i], x[i] + y[i % static_cast<size_t>(cols)]);
  }
}

TEST_P(VectorOpTest, SiluMulAgreesWithReference) {
  for (const int64_t cols : {1, 16, 31, 1536}) {
    const int64_t rows = 2, stride = 2 * cols + 1;
    std::vector<float> gate_up = normals(rows * stride);
    for (float& v : gate_up) v *= 8;
    gate_up[0] = -200.0f;  // exp(200) is beyond fp32
    std::vector<float> out(static_cast<size_t>(rows * cols), NAN);
    kernels().silu_mul({out.data(), cols, gate_up.data(), stride, rows, cols});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < cols; ++i) {
        const double gate = gate_up[static_cast<size_t>(r * stride + i)],
                     up = gate_up[static_cast<size_t>(r * stride + cols + i)];
        const double expected = ref::silu(gate) * up;
        // exp within 2 ulp (4 u), sum, quotient and product one u each: 7 u, doubled. Below e^-88 the answer is 0 within 1e-35.
        ASSERT_NEAR(out[static_cast<size_t>(r * cols + i)], expected, std::fabs(expected) * 14 * kEpsilon + 1e-35)
            << gate;
      }
    }
  }
}

TEST_P(VectorOpTest, GeluTanhMulAgreesWithReference) {
  for (const int64_t cols : {1, 16, 31, 1536}) {
    const int64_t rows = 2, stride = 2 * cols + 1;
    std::vector<float> gate_up = normals(rows * stride);
    for (float& v : gate_up) v *= 4;
    gate_up[0] = -200.0f;  // exp is beyond fp32
    std::vector<float> out(static_cast<size_t>(rows * cols), NAN);
    kernels().gelu_tanh_mul({out.data(), cols, gate_up.data(), stride, rows, cols});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < cols; ++i) {
        const double g = gate_up[static_cast<size_t>(r * stride + i)];
        const double up = gate_up[static_cast<size_t>(r * stride + cols + i)];
        const double twice_z = 2 * std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g);
        const double expected = g / (1 + std::exp(-twice_z)) * up;
        // The argument of exp: g^2, its product with a constant rounded itself, a sum, a product, each one u or two: 6 u of it, which
        // move exp by so much relatively; exp, sum, quotient, product as of silu.
        const double relative = (6 * std::fabs(twice_z) + 14) * kEpsilon;
        ASSERT_NEAR(out[static_cast<size_t>(r * cols + i)], expected, std::fabs(expected) * relative + 1e-35) << g;
      }
    }
  }
}

TEST_P(VectorOpTest, SoftcapAgreesWithReference) {
  for (const int64_t cols : {1, 16, 31, 1536}) {
    const int64_t rows = 2, stride = cols + 3;
    std::vector<float> x = normals(rows * stride);
    for (float& v : x) v *= 50;
    x[0] = 1e30f;
    std::vector<float> capped = x;
    kernels().softcap({capped.data(), stride, rows, cols, 30.0f});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < stride; ++i) {
        const auto at = static_cast<size_t>(r * stride + i);
        if (i >= cols) {
          ASSERT_EQ(capped[at], x[at]) << "wrote past the row";
          continue;
        }
        const double expected = 30 * std::tanh(static_cast<double>(x[at]) / 30);
        // A quotient, tanh within 4 units in the last place (8 u), a product.
        ASSERT_NEAR(capped[at], expected, std::fabs(expected) * 12 * kEpsilon) << x[at];
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, VectorOpTest, testing::ValuesIn(tables_under_test()),
                         [](const auto& test) { return table_name(test.param); });

TEST(KernelTable, GenericIsAlwaysThereAndTheBestIsAvailable) {
  ASSERT_NE(cpu::kernel_table(cpu::Isa::kGeneric), nullptr);
  const cpu::Isa best = cpu::best_kernel_table().isa;
  EXPECT_EQ(cpu::kernel_table(best), &cpu::best_kernel_table());
  for (int wider = static_cast<int>(best) + 1; wider < cpu::kNumIsas; ++wider) {
    EXPECT_EQ(cpu::kernel_table(static_cast<cpu::Isa>(wider)), nullptr);
  }
}

TEST(KernelTable, IsFoundByItsNameAlone) {
  for (int i = 0; i < cpu::kNumIsas; ++i) {
    const auto isa = static_cast<cpu::Isa>(i);
    EXPECT_EQ(cpu::kernel_table_named(cpu::isa_name(isa)), cpu::kernel_table(isa)) << cpu::isa_name(isa);
  }
  for (const char* name : {"", "sse9", "Generic", "generic ", "generic, avx2", "neon_", "unknown"})
    EXPECT_EQ(cpu::kernel_table_named(name), nullptr) << name;
}

TEST(KernelTable, NamesWhatThisCpuHas) {
  std::string expected;
  for (const cpu::KernelTable* table : available_tables())
    expected += (expected.empty() ? "" : ", ") + std::string(cpu::isa_name(table->isa));
  EXPECT_EQ(cpu::available_isas(), expected);
  // Under an emulator that is told which CPU to be, what that is comes from outside.
  if (const char* given = std::getenv("SEXTANT_EXPECTED_ISAS")) {
    EXPECT_EQ(cpu::available_isas(), given);
  }
}

}  // namespace
}  // namespace sextant::kernels
