#include "kernels/cuda/reduce_norm.h"

#include <cmath>
#include <cstring>
#include <memory>

#include "tests/kernels/cuda/cuda_test_support.h"
#include "tests/kernels/cuda/typed_array.h"

namespace sextant::kernels::cuda {
namespace {

class ReduceNormTest : public ::testing::TestWithParam<ElementType>, public SeededTest {};

TEST_P(ReduceNormTest, AddsPartsInOrderThenTheResidualAndNormalises) {
  for (const int32_t num_parts : {1, 2, 3, 8}) {
    for (const int32_t cols : {8, 576, 2056}) {
      const int32_t rows = 3, stride = cols + 8;
      const std::vector<float> residual = normals(rows * cols);
      const std::vector<float> weight = normals(cols);
      std::vector<std::vector<float>> parts;
      for (int32_t r = 0; r < num_parts; ++r) {
        parts.push_back(rounded(normals(rows * stride), GetParam()));
        for (int32_t t = 0; t < rows; ++t) {  // between rows
          for (int32_t i = cols; i < stride; ++i) parts.back()[static_cast<size_t>(t * stride + i)] = NAN;
        }
      }
      under_thread_orders(seed(), [&] {
        DeviceArray<float> on_device(residual);
        DeviceArray<float> weights(weight);
        std::vector<std::unique_ptr<TypedArray>> arrays;
        ReduceAddRmsNormArgs args = {};
        for (int32_t r = 0; r < num_parts; ++r) {
          arrays.push_back(std::make_unique<TypedArray>(parts[static_cast<size_t>(r)], GetParam()));
          args.parts[r] = arrays.back()->data();
        }
        args.num_parts = num_parts;
        args.part_stride = stride;
        args.residual = on_device.data();
        args.residual_stride = cols;
        args.weight = weights.data();
        args.eps = 1e-5f;
        args.out = arrays[0]->data();  // out may be a part
        args.out_stride = stride;
        args.rows = rows;
        args.cols = cols;
        args.type = GetParam();
        ASSERT_EQ(reduce_add_rms_norm(args, nullptr), 0);
        const std::vector<float> sums = on_device.download();
        const std::vector<float> got = arrays[0]->download();
        for (int32_t t = 0; t < rows; ++t) {
          std::vector<std::vector<float>> of_row;
          for (const std::vector<float>& part : parts) {
            of_row.emplace_back(part.begin() + t * stride, part.begin() + t * stride + cols);
          }
          std::vector<float> sum(residual.begin() + t * cols, residual.begin() + (t + 1) * cols);
          const std::vector<double> expected = ref::reduce_add_rms_norm(of_row, sum, weight, 1e-5);
          for (int32_t i = 0; i < cols; ++i) {
            // In the order that the contract states, so to the bit.
            ASSERT_EQ(sums[static_cast<size_t>(t * cols + i)], sum[static_cast<size_t>(i)]);
            // As in norm_test.cpp: a chain of cols / threads additions, a tree of 8, a root, two products, a rounding.
            const double bound =
                std::abs(expected[static_cast<size_t>(i)]) * ((cols / 256.0 + 20) * kEpsilon + epsilon(GetParam())) +
                subnormal_half(GetParam());
            ASSERT_NEAR(got[static_cast<size_t>(t * stride + i)], expected[static_cast<size_t>(i)], bound)
                << num_parts << " parts, " << cols << " " << i;
          }
        }
      });
    }
  }
}

#if defined(SEXTANT_SIMT)
// The kernel after may start, and ask for its weights (gemv_test.cpp), while this one sums: it says so before it reads any part.
TEST_P(ReduceNormTest, LetsTheNextKernelStartBeforeItSums) {
  constexpr int32_t kCols = 576, kParts = 3;
  const std::vector<float> part = rounded(normals(kCols), GetParam()), residual = normals(kCols);
  under_thread_orders(seed(), [&] {
    DeviceArray<float> on_device(residual), weights(std::vector<float>(kCols, 1.0f));
    TypedArray not_yet(std::vector<float>(kCols, NAN), GetParam()), out(part, GetParam()), source(part, GetParam());
    ReduceAddRmsNormArgs args = {};
    for (int32_t r = 0; r < kParts; ++r) args.parts[r] = not_yet.data();
    args.num_parts = kParts;
    args.part_stride = kCols;
    args.residual = on_device.data();
    args.residual_stride = kCols;
    args.weight = weights.data();
    args.out = out.data();
    args.out_stride = kCols;
    args.rows = 1;
    args.cols = kCols;
    args.type = GetParam();
    const size_t bytes = kCols * (GetParam() == ElementType::kFloat32 ? 4 : 2);
    simt::set_dependency_effects(
        {.at_wait = {}, .at_launch = [&] { std::memcpy(not_yet.data(), source.data(), bytes); }});
    EXPECT_EQ(reduce_add_rms_norm(args, nullptr), 0);
    const std::vector<float> sums = on_device.download();
    simt::set_dependency_effects({});
    for (size_t i = 0; i < sums.size(); ++i) {
      const float of_parts = part[i] + part[i] + part[i];
      ASSERT_EQ(sums[i], residual[i] + of_parts) << i;
    }
  });
}
#endif

TEST(ReduceNormLimits, AreChecked) {
  ReduceAddRmsNormArgs args = {};
  args.rows = 1;
  args.cols = 16;
  args.part_stride = 16;
  for (const int32_t num_parts : {0, -1, kMaxReducedParts + 1}) {
    args.num_parts = num_parts;
    EXPECT_NE(reduce_add_rms_norm(args, nullptr), 0);
  }
  args.num_parts = 2;
  args.cols = 12;
  EXPECT_NE(reduce_add_rms_norm(args, nullptr), 0);
  args.cols = 24;  // beyond the stride
  EXPECT_NE(reduce_add_rms_norm(args, nullptr), 0);
  args.rows = 0;
  EXPECT_EQ(reduce_add_rms_norm(args, nullptr), 0);
}

INSTANTIATE_TEST_SUITE_P(Types, ReduceNormTest,
                         ::testing::Values(ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16));

}  // namespace
}  // namespace sextant::kernels::cuda
