#include "kernels/cuda/gather.h"

#include <bit>

#include "tests/kernels/cuda/typed_array.h"

namespace sextant::kernels::cuda {
namespace {

class GatherRowsTest : public SeededTest, public ::testing::Test {};

TEST_F(GatherRowsTest, CopiesBitsOfTheRowsNamed) {
  for (const int32_t cols : {1, 8, 13, 576}) {
    for (const int32_t padding : {0, 3, 8}) {
      const int32_t rows = 9;
      const int64_t stride = cols + padding;
      std::vector<float> x = normals(rows * stride);
      x[0] = std::bit_cast<float>(0x7fc01234u);  // a NaN keeps its payload
      std::vector<uint16_t> halves(x.size());
      for (uint16_t& h : halves) h = static_cast<uint16_t>(uniform(0, 65535));
      const std::vector<int32_t> indices = {8, 0, 3, 3, 1, 8, 0};
      under_thread_orders(seed(), [&] {
        DeviceArray<float> in(x), out(indices.size() * static_cast<size_t>(stride));
        DeviceArray<uint16_t> in16(halves), out16(indices.size() * static_cast<size_t>(stride));
        DeviceArray<int32_t> wanted(indices);
        const auto count = static_cast<int32_t>(indices.size());
        ASSERT_EQ(
            gather_rows({in.data(), stride, wanted.data(), out.data(), stride, count, cols, ElementType::kFloat32},
                        nullptr),
            0);
        ASSERT_EQ(
            gather_rows({in16.data(), stride, wanted.data(), out16.data(), stride, count, cols, ElementType::kBFloat16},
                        nullptr),
            0);
        const std::vector<float> got = out.download();
        const std::vector<uint16_t> got16 = out16.download();
        for (size_t r = 0; r < indices.size(); ++r) {
          for (int32_t i = 0; i < cols; ++i) {
            const size_t to = r * static_cast<size_t>(stride) + static_cast<size_t>(i);
            const auto from = static_cast<size_t>(indices[r] * stride + i);
            ASSERT_EQ(std::bit_cast<uint32_t>(got[to]), std::bit_cast<uint32_t>(x[from])) << cols << " row " << r;
            ASSERT_EQ(got16[to], halves[from]) << cols << " row " << r;
          }
        }
      });
    }
  }
}

TEST(GatherRowsLimits, AreChecked) {
  DeviceArray<float> memory(64);
  DeviceArray<int32_t> index(std::vector<int32_t>{0});
  const auto status = [&](int32_t rows, int32_t cols, int64_t stride) {
    return gather_rows(
        {memory.data(), stride, index.data(), memory.data() + 32, stride, rows, cols, ElementType::kFloat32}, nullptr);
  };
  EXPECT_EQ(status(0, 8, 8), 0);
  EXPECT_EQ(status(1, 8, 8), 0);
  EXPECT_NE(status(-1, 8, 8), 0);
  EXPECT_NE(status(1, 0, 8), 0);
  EXPECT_NE(status(1, 8, 7), 0);
}

}  // namespace
}  // namespace sextant::kernels::cuda
