#include "kernels/cuda/activation.h"

#include <cmath>
#include <tuple>

#include "tests/kernels/cuda/typed_array.h"

namespace sextant::kernels::cuda {
namespace {

double activated(Activation activation, double g) {
  switch (activation) {
    case Activation::kSilu: return ref::silu(g);
    case Activation::kGeluTanh:  // not 1 + tanh: it cancels for negative g
      return g / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
    case Activation::kGeluErf: return 0.5 * g * std::erfc(-g / std::sqrt(2.0));
  }
  return NAN;
}
// How far a relative error of the argument of f's exponential moves f, relatively: |argument|, plus 1 for the factor g.
double condition(Activation activation, double g) {
  switch (activation) {
    case Activation::kSilu: return std::fabs(g) + 1;
    case Activation::kGeluTanh:
      return 2 * std::sqrt(2 / M_PI) * (std::fabs(g) + 0.044715 * std::pow(std::fabs(g), 3)) + 1;
    case Activation::kGeluErf: return g * g + 2;  // erfc(x) ~ exp(-x^2) / x
  }
  return NAN;
}

class ActivationTest : public ::testing::TestWithParam<std::tuple<ElementType, Activation>>, public SeededTest {};

TEST_P(ActivationTest, GatesTheOtherHalf) {
  const auto type = std::get<0>(GetParam());
  const auto activation = std::get<1>(GetParam());
  struct Shape {
    int32_t rows, cols, padding;
  };
  for (const Shape& shape : {Shape{3, 64, 0}, {2, 1536, 8}, {5, 13, 0}, {1, 1, 1}, {4, 24, 3}}) {
    const int64_t stride = 2 * shape.cols + shape.padding, out_stride = shape.cols + shape.padding;
    std::vector<float> gate_up = normals(shape.rows * stride);
    for (float& g : gate_up) g *= static_cast<float>(uniform(1, 6));
    if (shape.cols > 8) {  // the far ends
      gate_up[0] = 40;
      gate_up[1] = -40;
      gate_up[2] = 0;
      gate_up[3] = -8;
    }
    gate_up = rounded(gate_up, type);
    under_thread_orders(seed(), [&] {
      TypedArray in(gate_up, type);
      TypedArray out(std::vector<float>(static_cast<size_t>(shape.rows * out_stride), 7.0f), type);
      ASSERT_EQ(activation_mul({in.data(), stride, out.data(), out_stride, shape.rows, shape.cols, type, activation},
                               nullptr),
                0);
      const std::vector<float> got = out.download();
      for (int32_t t = 0; t < shape.rows; ++t) {
        for (int32_t i = 0; i < shape.padding; ++i) {
          ASSERT_EQ(got[static_cast<size_t>(t * out_stride + shape.cols + i)], 7.0f);
        }
        for (int32_t i = 0; i < shape.cols; ++i) {
          const double g = gate_up[static_cast<size_t>(t * stride + i)];
          const double up = gate_up[static_cast<size_t>(t * stride + shape.cols + i)];
          const double expected = activated(activation, g) * up;
          // The argument: 5 roundings at most; exp: 2 units in the last place of fp32 (2^-22 relative, hardware or
          // library); erfc:
          // 7 units; sum, quotient (2 units for the hardware's), product: 5 more.
          const double relative = condition(activation, g) * 5 * kEpsilon + 20 * kEpsilon + epsilon(type);
          // f(g) below 2^-126 |g| may be 0: the quotient's divisor is past what the hardware divides by.
          const double bound = std::fabs(expected) * relative + 0x1p-126 * ((std::fabs(g) + 1) * std::fabs(up) + 1) +
                               subnormal_half(type);
          ASSERT_NEAR(got[static_cast<size_t>(t * out_stride + i)], expected, bound) << "g " << g << " up " << up;
        }
      }
    });
  }
}

TEST(ActivationLimits, AreChecked) {
  DeviceArray<float> memory(64);
  const auto status = [&](int32_t rows, int32_t cols, int64_t stride, int64_t out_stride) {
    return activation_mul(
        {memory.data(), stride, memory.data() + 32, out_stride, rows, cols, ElementType::kFloat32, Activation::kSilu},
        nullptr);
  };
  EXPECT_EQ(status(0, 8, 16, 8), 0);
  EXPECT_NE(status(-1, 8, 16, 8), 0);
  EXPECT_NE(status(1, 0, 16, 8), 0);
  EXPECT_NE(status(1, 8, 15, 8), 0);
  EXPECT_NE(status(1, 8, 16, 7), 0);
}

INSTANTIATE_TEST_SUITE_P(
    Types, ActivationTest,
    ::testing::Combine(::testing::Values(ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16),
                       ::testing::Values(Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf)));

}  // namespace
}  // namespace sextant::kernels::cuda
