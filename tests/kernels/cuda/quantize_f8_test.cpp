// Activations in e4m3 with every way of scaling, against the reference's rounding.
#include "kernels/cuda/quantize_f8.h"

#include <cmath>

#include "tests/kernels/cuda/packed_matrix.h"

namespace sextant::kernels::cuda {
namespace {

class QuantizeF8Test : public testing::TestWithParam<std::tuple<F8Scaling, ElementType>>, public SeededTest {
 protected:
  static F8Scaling scaling() { return std::get<0>(GetParam()); }
  static ElementType x_type() { return std::get<1>(GetParam()); }
};

TEST_P(QuantizeF8Test, AgreesWithReference) {
  for (const int64_t cols : {16, 128, 272, 1184}) {
    for (const int32_t tokens : {1, 3, 20}) {
      std::vector<float> x = normals_of(x_type(), tokens * cols, *this);
      for (int64_t k = 0; k < cols; ++k) x[static_cast<size_t>(k)] *= 1024;  // rows of very different sizes
      if (tokens > 1) {
        for (int64_t k = 0; k < cols; ++k) x[static_cast<size_t>(cols + k)] = 0;  // and one of zeros
      }
      // What shares a scale: rows [first_row, last_row], columns [first, last], scale `at`.
      const int64_t blocks = (cols + 127) / 128, stride = tokens + 5;
      struct Shared {
        int64_t first_row, last_row, first, last, at;
      };
      std::vector<Shared> groups;
      for (int64_t t = 0; t < tokens; ++t) {
        if (scaling() == F8Scaling::kPerRow) groups.push_back({t, t, 0, cols - 1, t});
        for (int64_t b = 0; scaling() == F8Scaling::kPerBlock && b < blocks; ++b) {
          groups.push_back({t, t, b * 128, std::min(b * 128 + 127, cols - 1), b * stride + t});
        }
      }
      if (scaling() == F8Scaling::kPerTensor) groups.push_back({0, tokens - 1, 0, cols - 1, 0});
      under_thread_orders(seed(), [&] {
        DeviceArray<uint16_t> in(strided_16_bit(x_type(), x, cols, cols + 8));
        DeviceArray<uint8_t> out(std::vector<uint8_t>(static_cast<size_t>(tokens * cols), 0x7f));
        DeviceArray<float> scales(std::vector<float>(static_cast<size_t>(stride * blocks), NAN));
        DeviceArray<float> maxima(static_cast<size_t>(tokens));
        ASSERT_EQ(quantize_f8({scaling(), in.data(), cols + 8, x_type(), tokens, cols, out.data(), scales.data(),
                               stride, maxima.data()},
                              nullptr),
                  0);
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        const std::vector<uint8_t> got = out.download();
        const std::vector<float> got_scales = scales.download();
        for (const Shared& group : groups) {
          float largest = 0;
          for (int64_t t = group.first_row; t <= group.last_row; ++t) {
            for (int64_t k = group.first; k <= group.last; ++k) {
              largest = std::max(largest, std::fabs(x[static_cast<size_t>(t * cols + k)]));
            }
          }
          const float scale = got_scales[static_cast<size_t>(group.at)];
          ASSERT_EQ(scale, largest > 0 ? largest / 448 : 1.0f);
          for (int64_t t = group.first_row; t <= group.last_row; ++t) {
            for (int64_t k = group.first; k <= group.last; ++k) {
              const float value = x[static_cast<size_t>(t * cols + k)];
              const float quantized = ref::f32_of_e4m3(got[static_cast<size_t>(t * cols + k)]);
              ASSERT_EQ(quantized, ref::f32_of_e4m3(ref::e4m3_of_f32(largest > 0 ? value * (448 / largest) : 0)));
              // The contract's bound.
              ASSERT_LE(std::fabs(double{value} - double{quantized} * double{scale}),
                        (0x1p-4 + 0x1p-22) * std::fabs(double{value}) + 0x1p-10 * double{scale})
                  << t << " " << k;
            }
          }
        }
      });
    }
  }
}

TEST_P(QuantizeF8Test, LimitsAreChecked) {
  DeviceArray<uint16_t> x(256);
  DeviceArray<uint8_t> out(256);
  DeviceArray<float> scales(16), maxima(16);
  const QuantizeF8Args good{scaling(), x.data(), 64, x_type(), 2, 64, out.data(), scales.data(), 2, maxima.data()};
  const auto refused = [&](void (*change)(QuantizeF8Args&)) {
    QuantizeF8Args args = good;
    change(args);
    return quantize_f8(args, nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_EQ(quantize_f8(good, nullptr), 0);
  EXPECT_TRUE(refused([](QuantizeF8Args& a) { a.cols = 24; }));
  EXPECT_TRUE(refused([](QuantizeF8Args& a) { a.x_stride = 65; }));
  EXPECT_TRUE(refused([](QuantizeF8Args& a) { a.num_tokens = -1; }));
  EXPECT_TRUE(refused([](QuantizeF8Args& a) { a.scales = nullptr; }));
  EXPECT_TRUE(refused([](QuantizeF8Args& a) { a.x_type = ElementType::kFloat32; }));
  EXPECT_TRUE(refused([](QuantizeF8Args& a) { a.x = static_cast<const uint16_t*>(a.x) + 1; }));
  EXPECT_EQ(refused([](QuantizeF8Args& a) { a.row_maxima = nullptr; }), scaling() == F8Scaling::kPerTensor);
  EXPECT_EQ(refused([](QuantizeF8Args& a) { a.scale_stride = 1; }), scaling() == F8Scaling::kPerBlock);
}

std::string test_name(const testing::TestParamInfo<std::tuple<F8Scaling, ElementType>>& test) {
  const auto [scaling, type] = test.param;
  return std::string(scaling == F8Scaling::kPerRow     ? "rows"
                     : scaling == F8Scaling::kPerBlock ? "blocks"
                                                       : "tensor") +
         (type == ElementType::kFloat16 ? "_fp16" : "_bf16");
}
INSTANTIATE_TEST_SUITE_P(Scalings, QuantizeF8Test,
                         testing::Combine(testing::Values(F8Scaling::kPerRow, F8Scaling::kPerBlock,
                                                          F8Scaling::kPerTensor),
                                          testing::Values(ElementType::kBFloat16, ElementType::kFloat16)),
                         test_name);

}  // namespace
}  // namespace sextant::kernels::cuda
