// Every weight format read back row by row, exactly; and by that, that packing loses nothing.
#include "kernels/cuda/embed.h"

#include <cmath>

#include "tests/kernels/cuda/packed_matrix.h"

namespace sextant::kernels::cuda {
namespace {

class EmbedTest : public testing::TestWithParam<ProductTypes>, public SeededTest {};

TEST_P(EmbedTest, ReadsEveryRowExactly) {
  for (const int64_t cols : {32, 96, 1120}) {
    const int64_t rows = 71, stride = cols + 4, first_row = 1000;
    const PackedMatrix w(std::get<0>(GetParam()), rows, cols, *this, std::get<1>(GetParam()));
    std::vector<int32_t> ids;
    for (int32_t id = 0; id < rows; ++id) ids.push_back(static_cast<int32_t>(first_row + rows - 1 - id));
    ids.push_back(999);   // of another part of the table
    ids.push_back(1071);  // likewise
    const auto tokens = static_cast<int32_t>(ids.size());
    under_thread_orders(seed(), [&] {
      DeviceArray<int32_t> on_device(ids);
      DeviceArray<float> out(std::vector<float>(static_cast<size_t>(tokens * stride), NAN));
      ASSERT_EQ(embed({w.format, w.weights(), w.scales(), first_row, rows, cols, on_device.data(), tokens, out.data(),
                       stride},
                      nullptr),
                0);
      const std::vector<float> got = out.download();
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t k = 0; k < stride; ++k) {
          const float value = got[static_cast<size_t>(t * stride + k)];
          if (t >= rows || k >= cols) {
            ASSERT_TRUE(std::isnan(value)) << t << " " << k;
            continue;
          }
          // d q + m: the reference's fp64 is exact or, where d and m are far apart, 29 bits finer than the one rounding.
          ASSERT_EQ(value, static_cast<float>(w.values[static_cast<size_t>((rows - 1 - t) * cols + k)]))
              << t << " " << k;
        }
      }
    });
  }
}

TEST(EmbedLimits, AreChecked) {
  DeviceArray<float> out(64);
  DeviceArray<uint8_t> table(4096);
  DeviceArray<int32_t> ids(std::vector<int32_t>{0});
  const EmbedArgs good{WeightFormat::kBFloat16, table.data(), nullptr, 0, 2, 32, ids.data(), 1, out.data(), 32};
  EXPECT_EQ(embed(good, nullptr), 0);
  EmbedArgs args = good;
  args.cols = 28;
  EXPECT_EQ(embed(args, nullptr), cudaErrorInvalidValue);
  args = good;
  args.out_stride = 33;
  EXPECT_EQ(embed(args, nullptr), cudaErrorInvalidValue);
  args = good;
  args.format = WeightFormat::kQ4_0;
  args.cols = 40;
  EXPECT_EQ(embed(args, nullptr), cudaErrorInvalidValue);
}

// The activations' type matters to plain weights alone.
std::vector<ProductTypes> tables() {
  std::vector<ProductTypes> types;
  for (const FileType type : all_file_types()) types.emplace_back(type, ElementType::kBFloat16);
  for (const FileType type : {FileType::kF32, FileType::kF16, FileType::kBF16}) {
    types.emplace_back(type, ElementType::kFloat16);
  }
  return types;
}
INSTANTIATE_TEST_SUITE_P(Types, EmbedTest, testing::ValuesIn(tables()), product_types_name);

}  // namespace
}  // namespace sextant::kernels::cuda
