#include "kernels/cuda/elementwise.h"

#include <cmath>

#include "tests/kernels/cuda/typed_array.h"

namespace sextant::kernels::cuda {
namespace {

struct Shape {
  int32_t rows, cols, padding, offset;  // offset: elements from an aligned address
};
// Whole vectors; less than one; odd strides and addresses, which force single elements.
const std::vector<Shape> kShapes = {{3, 64, 0, 0}, {1, 8, 8, 0},  {5, 576, 8, 8},
                                    {7, 13, 0, 0}, {2, 24, 3, 0}, {3, 16, 8, 1}};

class ElementwiseTest : public ::testing::TestWithParam<ElementType>, public SeededTest {};

TEST_P(ElementwiseTest, AddIsOneSum) {
  for (const Shape& shape : kShapes) {
    const int64_t stride = shape.cols + shape.padding;
    const int64_t count = shape.offset + shape.rows * stride;
    const std::vector<float> residual = normals(count);
    const std::vector<float> x = rounded(normals(count), GetParam());
    under_thread_orders(seed(), [&] {
      DeviceArray<float> sums(residual);
      TypedArray added(x, GetParam());
      ASSERT_EQ(
          add({sums.data() + shape.offset, stride, added.at(shape.offset), stride, shape.rows, shape.cols, GetParam()},
              nullptr),
          0);
      std::vector<float> expected = residual;
      for (int32_t t = 0; t < shape.rows; ++t) {
        for (int32_t i = 0; i < shape.cols; ++i) {
          const auto at = static_cast<size_t>(shape.offset + t * stride + i);
          expected[at] = residual[at] + x[at];
        }
      }
      ASSERT_EQ(sums.download(), expected) << shape.rows << " x " << shape.cols;  // what lies between rows included
    });
  }
}

TEST_P(ElementwiseTest, AddBiasIsOneSumAndOneRounding) {
  for (const Shape& shape : kShapes) {
    const int64_t stride = shape.cols + shape.padding;
    const int64_t count = shape.offset + shape.rows * stride;
    const std::vector<float> x = rounded(normals(count), GetParam());
    const std::vector<float> bias = normals(shape.cols + shape.offset);
    under_thread_orders(seed(), [&] {
      DeviceArray<float> biases(bias);
      TypedArray io(x, GetParam());
      ASSERT_EQ(
          add_bias({io.at(shape.offset), stride, biases.data() + shape.offset, shape.rows, shape.cols, GetParam()},
                   nullptr),
          0);
      std::vector<float> expected = x;
      for (int32_t t = 0; t < shape.rows; ++t) {
        for (int32_t i = 0; i < shape.cols; ++i) {
          expected[static_cast<size_t>(shape.offset + t * stride + i)] += bias[static_cast<size_t>(shape.offset + i)];
        }
      }
      ASSERT_EQ(io.download(), rounded(expected, GetParam())) << shape.rows << " x " << shape.cols;
    });
  }
}

TEST_P(ElementwiseTest, RoundIsOneRounding) {
  for (const Shape& shape : kShapes) {
    const int64_t stride = shape.cols + shape.padding;
    const int64_t count = shape.offset + shape.rows * stride;
    const std::vector<float> residual = normals(count), before = rounded(normals(count), GetParam());
    under_thread_orders(seed(), [&] {
      DeviceArray<float> from(residual);
      TypedArray out(before, GetParam());
      ASSERT_EQ(
          round({from.data() + shape.offset, stride, out.at(shape.offset), stride, shape.rows, shape.cols, GetParam()},
                nullptr),
          0);
      const std::vector<float> values = rounded(residual, GetParam());
      std::vector<float> expected = before;
      for (int32_t t = 0; t < shape.rows; ++t) {
        const auto at = static_cast<size_t>(shape.offset + t * stride);
        std::copy_n(values.begin() + static_cast<int64_t>(at), shape.cols, expected.begin() + static_cast<int64_t>(at));
      }
      ASSERT_EQ(out.download(), expected) << shape.rows << " x " << shape.cols;
    });
  }
}

TEST_P(ElementwiseTest, SoftcapIsBoundedByItsCap) {
  if (GetParam() != ElementType::kFloat32) GTEST_SKIP() << "logits are fp32";
  for (const Shape& shape : kShapes) {
    const int64_t stride = shape.cols + shape.padding;
    std::vector<float> logits = normals(shape.offset + shape.rows * stride);
    for (float& x : logits) x *= 20;
    under_thread_orders(seed(), [&] {
      DeviceArray<float> io(logits);
      ASSERT_EQ(softcap({io.data() + shape.offset, stride, shape.rows, shape.cols, 15.0f}, nullptr), 0);
      const std::vector<float> got = io.download();
      std::vector<bool> is_capped(logits.size());
      for (int32_t t = 0; t < shape.rows; ++t) {
        for (int32_t i = 0; i < shape.cols; ++i) is_capped[static_cast<size_t>(shape.offset + t * stride + i)] = true;
      }
      for (size_t i = 0; i < logits.size(); ++i) {
        const double expected = is_capped[i] ? 15 * std::tanh(static_cast<double>(logits[i]) / 15) : logits[i];
        // A quotient, tanh (2 units in the last place), a product.
        ASSERT_NEAR(got[i], expected, is_capped[i] ? std::fabs(expected) * 6 * kEpsilon : 0);
      }
    });
  }
}

TEST(ElementwiseLimits, AreChecked) {
  DeviceArray<float> memory(64);
  const auto add_status = [&](int32_t rows, int32_t cols, int64_t stride) {
    return add({memory.data(), stride, memory.data(), stride, rows, cols, ElementType::kFloat32}, nullptr);
  };
  EXPECT_EQ(add_status(0, 8, 8), 0);
  EXPECT_NE(add_status(-1, 8, 8), 0);
  EXPECT_NE(add_status(1, 0, 8), 0);
  EXPECT_NE(add_status(2, 8, 7), 0);
  EXPECT_NE(add_status(1 << 16, 1 << 15, 1 << 15), 0);
  EXPECT_NE(round({memory.data(), 7, memory.data(), 8, 2, 8, ElementType::kFloat32}, nullptr), 0);
  EXPECT_NE(round({memory.data(), 8, memory.data(), 7, 2, 8, ElementType::kFloat32}, nullptr), 0);
  EXPECT_NE(softcap({memory.data(), 7, 2, 8, 30}, nullptr), 0);
  EXPECT_NE(softcap({memory.data(), 8, 2, 8, 0}, nullptr), 0);
  EXPECT_NE(add_bias({memory.data(), 7, memory.data(), 2, 8, ElementType::kFloat32}, nullptr), 0);
  EXPECT_NE(add_bias({memory.data(), 8, memory.data(), -2, 8, ElementType::kFloat32}, nullptr), 0);
}

INSTANTIATE_TEST_SUITE_P(Types, ElementwiseTest,
                         ::testing::Values(ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16));

}  // namespace
}  // namespace sextant::kernels::cuda
