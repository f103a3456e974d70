#include "kernels/cuda/norm.h"

#include <cmath>

#include "tests/kernels/cuda/cuda_test_support.h"
#include "tests/kernels/cuda/typed_array.h"

namespace sextant::kernels::cuda {
namespace {

class NormTest : public ::testing::TestWithParam<ElementType>, public SeededTest {};

TEST_P(NormTest, AddsTheResidualAndNormalises) {
  for (const int32_t cols : {8, 64, 576, 2056, 4096}) {
    const int32_t rows = 3;
    const std::vector<float> residual = normals(rows * cols);
    const std::vector<float> weight = normals(cols);
    std::vector<float> x = normals(rows * cols);
    const bool is_float = GetParam() == ElementType::kFloat32;
    if (!is_float) x = from_16_bit(to_16_bit(x, GetParam()), GetParam());
    under_thread_orders(seed(), [&] {
      DeviceArray<float> on_device(residual);
      DeviceArray<float> weights(weight);
      DeviceArray<float> x32(is_float ? x : std::vector<float>{});
      DeviceArray<uint16_t> x16(is_float ? std::vector<uint16_t>{} : to_16_bit(x, GetParam()));
      void* io = is_float ? static_cast<void*>(x32.data()) : x16.data();
      ASSERT_EQ(
          add_rms_norm({on_device.data(), cols, io, cols, weights.data(), 1e-5f, io, cols, rows, cols, GetParam()},
                       nullptr),
          0);
      const std::vector<float> sums = on_device.download();
      const std::vector<float> got = is_float ? x32.download() : from_16_bit(x16.download(), GetParam());
      for (int32_t t = 0; t < rows; ++t) {
        std::vector<float> sum(static_cast<size_t>(cols));
        for (int32_t i = 0; i < cols; ++i) {
          const auto at = static_cast<size_t>(t * cols + i);
          sum[static_cast<size_t>(i)] = residual[at] + x[at];
          ASSERT_EQ(sums[at], sum[static_cast<size_t>(i)]);
        }
        const std::vector<double> expected = ref::rms_norm(sum, weight, 1e-5);
        for (int32_t i = 0; i < cols; ++i) {
          // The mean of squares: cols / threads additions in a chain and a tree of 8; then a root, two products, a
          // rounding.
          const double bound =
              std::abs(expected[static_cast<size_t>(i)]) * ((cols / 256.0 + 20) * kEpsilon + epsilon(GetParam())) +
              (GetParam() == ElementType::kFloat16 ? 0x1p-25 : 0);  // half of the least subnormal
          ASSERT_NEAR(got[static_cast<size_t>(t * cols + i)], expected[static_cast<size_t>(i)], bound)
              << cols << " " << i;
        }
      }
    });
  }
}

TEST_P(NormTest, NormalisesHeadsInPlace) {
  for (const int32_t dim : {8, 32, 128, 264, 1032}) {
    const int32_t rows = 3, heads = 6, stride = heads * dim + 16;
    const std::vector<float> x = TypedArray(normals(rows * stride), GetParam()).download();
    const std::vector<float> weight = normals(dim);
    under_thread_orders(seed(), [&] {
      TypedArray on_device(x, GetParam());
      DeviceArray<float> weights(weight);
      ASSERT_EQ(
          rms_norm_heads({on_device.data(), stride, weights.data(), 1e-5f, rows, heads, dim, GetParam()}, nullptr), 0);
      const std::vector<float> got = on_device.download();
      for (int32_t t = 0; t < rows; ++t) {
        for (int32_t h = 0; h < heads; ++h) {
          const auto from = x.begin() + t * stride + h * dim;
          const std::vector<double> expected = ref::rms_norm(std::vector<float>(from, from + dim), weight, 1e-5);
          for (int32_t i = 0; i < dim; ++i) {
            // Additions of one lane in a chain, a tree of 5; then a root, two products, a rounding.
            const double bound =
                std::abs(expected[static_cast<size_t>(i)]) * ((dim / 32.0 + 20) * kEpsilon + epsilon(GetParam())) +
                (GetParam() == ElementType::kFloat16 ? 0x1p-25 : 0);
            ASSERT_NEAR(got[static_cast<size_t>(t * stride + h * dim + i)], expected[static_cast<size_t>(i)], bound)
                << dim << " " << h << " " << i;
          }
        }
        for (int32_t i = heads * dim; i < stride; ++i) {
          ASSERT_EQ(got[static_cast<size_t>(t * stride + i)], x[static_cast<size_t>(t * stride + i)]);
        }
      }
    });
  }
  DeviceArray<float> memory(64);
  EXPECT_NE(rms_norm_heads({memory.data(), 64, memory.data(), 1e-5f, 1, 5, 12, GetParam()}, nullptr), 0)
      << "12 columns";
  EXPECT_NE(rms_norm_heads({memory.data(), 8, memory.data(), 1e-5f, 1, 5, 8, GetParam()}, nullptr), 0)
      << "rows overlap";
  EXPECT_EQ(rms_norm_heads({nullptr, 64, nullptr, 1e-5f, 0, 5, 8, GetParam()}, nullptr), 0) << "no rows";
}

// Rows in any order, some twice, some never; the residual is left as it is.
TEST_P(NormTest, NormalisesGatheredRows) {
  for (const int32_t cols : {8, 72, 1032}) {
    const int32_t rows = 7;
    std::vector<float> residual = normals(rows * cols);
    const std::vector<float> weight = normals(cols);
    std::vector<float> x = TypedArray(normals(rows * cols), GetParam()).download();
    const std::vector<int32_t> indices = {6, 0, 6, 3};
    for (int32_t i = 0; i < cols; ++i) {  // a row that nobody asked for
      residual[static_cast<size_t>(cols + i)] = NAN;
      x[static_cast<size_t>(2 * cols + i)] = NAN;
    }
    for (const bool with_x : {true, false}) {
      for (const bool gathered : {true, false}) {
        under_thread_orders(seed(), [&] {
          DeviceArray<float> on_device(residual);
          DeviceArray<float> weights(weight);
          DeviceArray<int32_t> wanted(indices);
          TypedArray added(x, GetParam());
          TypedArray out(std::vector<float>(indices.size() * static_cast<size_t>(cols + 8), 0.0f), GetParam());
          ASSERT_EQ(rms_norm_rows({on_device.data(), cols, with_x ? added.data() : nullptr, cols,
                                   gathered ? wanted.data() : nullptr, weights.data(), 1e-5f, out.data(), cols + 8,
                                   gathered ? 4 : 1, cols, GetParam()},
                                  nullptr),
                    0);
          const std::vector<float> got = out.download();
          for (size_t r = 0; r < (gathered ? indices.size() : 1); ++r) {
            const auto from = static_cast<size_t>((gathered ? indices[r] : 0) * cols);
            std::vector<float> sum(residual.begin() + static_cast<std::ptrdiff_t>(from),
                                   residual.begin() + static_cast<std::ptrdiff_t>(from) + cols);
            for (size_t i = 0; i < sum.size() && with_x; ++i) sum[i] += x[from + i];
            const std::vector<double> expected = ref::rms_norm(sum, weight, 1e-5);
            for (size_t i = 0; i < sum.size(); ++i) {
              const double bound = std::abs(expected[i]) * ((cols / 256.0 + 20) * kEpsilon + epsilon(GetParam())) +
                                   (GetParam() == ElementType::kFloat16 ? 0x1p-25 : 0);
              ASSERT_NEAR(got[r * static_cast<size_t>(cols + 8) + i], expected[i], bound)
                  << cols << " " << r << " " << i;
            }
          }
        });
      }
    }
  }
}

TEST(NormLimits, AreChecked) {
  AddRmsNormArgs args = {};
  args.rows = 1;
  args.cols = 12;
  EXPECT_NE(add_rms_norm(args, nullptr), 0);
  RmsNormRowsArgs rows = {};
  rows.rows = 1;
  rows.cols = 12;
  EXPECT_NE(rms_norm_rows(rows, nullptr), 0);
  rows.cols = 65544;
  EXPECT_NE(rms_norm_rows(rows, nullptr), 0);
}

INSTANTIATE_TEST_SUITE_P(Types, NormTest,
                         ::testing::Values(ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16));

}  // namespace
}  // namespace sextant::kernels::cuda
