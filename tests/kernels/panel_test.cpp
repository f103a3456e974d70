// Packing into panels and reading rows back: no number changes.
#include "kernels/panel.h"

#include <cmath>

#include "tests/kernels/op_test_support.h"

namespace sextant::kernels {
namespace {

class PanelTest : public testing::TestWithParam<PanelType>, public SeededTest {};

TEST_P(PanelTest, UnpackedRowIsExact) {
  for (const int64_t rows : {1, 15, 16, 17, 37}) {
    const int64_t cols = has_superblocks(GetParam()) ? 768 : has_blocks(GetParam()) ? 160 : 131;
    const RandomMatrix w = random_matrix(GetParam(), rows, cols, *this);
    for (int64_t n = 0; n < rows; ++n) {
      std::vector<float> out(static_cast<size_t>(cols), NAN);
      cpu::unpack_row(GetParam(), w.panels.data() + n / kPanelRows * panel_bytes(GetParam(), cols),
                      static_cast<int>(n % kPanelRows), cols, out.data());
      for (int64_t k = 0; k < cols; ++k) {
        ASSERT_EQ(out[static_cast<size_t>(k)], static_cast<float>(w.values[static_cast<size_t>(n * cols + k)]))
            << n << ", " << k;
      }
    }
  }
}

TEST_P(PanelTest, RowsAndColumnsThatAreNotThereAreZero) {
  const int64_t cols = has_superblocks(GetParam()) ? 256 : has_blocks(GetParam()) ? 64 : 33, rows = 3;
  const RandomMatrix w = random_matrix(GetParam(), rows, cols, *this);
  std::vector<float> out(static_cast<size_t>(num_panel_blocks(cols) * kPanelBlock), NAN);
  cpu::unpack_row(GetParam(), w.panels.data(), 3, cols, out.data());
  for (int64_t k = 0; k < cols; ++k) ASSERT_EQ(out[static_cast<size_t>(k)], 0.0f);
  cpu::unpack_row(GetParam(), w.panels.data(), 0, static_cast<int64_t>(out.size()), out.data());
  for (size_t k = static_cast<size_t>(cols); k < out.size(); ++k) ASSERT_EQ(out[k], 0.0f);
}

INSTANTIATE_TEST_SUITE_P(All, PanelTest, testing::ValuesIn(all_types()),
                         [](const auto& test) { return type_name(test.param); });

// Hand-made blocks, so that the reference itself is held to the file's layout.
TEST(ReferenceEncodings, KnownBlocks) {
  std::vector<uint8_t> q4_1;
  append_u16(q4_1, 0x3800);  // d = 0.5
  append_u16(q4_1, 0xbc00);  // m = -1
  for (int i = 0; i < 16; ++i) q4_1.push_back(static_cast<uint8_t>(i | (15 - i) << 4));
  const std::vector<double> a = ref::dequantize_row(PanelType::kQ4_1, q4_1.data(), 32);
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(a[i], 0.5 * static_cast<double>(i) - 1);
    EXPECT_EQ(a[16 + i], 0.5 * static_cast<double>(15 - i) - 1);
  }
  std::vector<uint8_t> q4_0;
  append_u16(q4_0, 0x4000);  // d = 2
  for (int i = 0; i < 16; ++i) q4_0.push_back(static_cast<uint8_t>(0xf0 | i));
  const std::vector<double> b = ref::dequantize_row(PanelType::kQ4_0, q4_0.data(), 32);
  EXPECT_EQ(b[0], -16);
  EXPECT_EQ(b[15], 14);
  EXPECT_EQ(b[16], 14);
  std::vector<uint8_t> q8_0;
  append_u16(q8_0, 0x3c00);  // d = 1
  for (int i = 0; i < 32; ++i) q8_0.push_back(static_cast<uint8_t>(i - 16));
  const std::vector<double> c = ref::dequantize_row(PanelType::kQ8_0, q8_0.data(), 32);
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(c[i], static_cast<double>(i) - 16);
}

TEST(ReferenceEncodings, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const auto half = static_cast<uint16_t>(h);
    const float f = ref::f32_of_f16(half);
    if (!std::isnan(f)) {
      ASSERT_EQ(ref::f16_of_f32(f), half) << h;
    }
    const float g = ref::f32_of_bf16(half);
    if (!std::isnan(g)) {
      ASSERT_EQ(ref::bf16_of_f32(g), half) << h;
    }
  }
  EXPECT_EQ(ref::bf16_of_f32(1.00390625f), 0x3f80);  // halfway: to even, down
  EXPECT_EQ(ref::bf16_of_f32(1.01171875f), 0x3f82);  // halfway: to even, up
}

// Conversions inside the kernels: every half as the scale of a block, on every instruction set.
TEST(KernelEncodings, EveryHalfScaleIsExact) {
  for (const cpu::KernelTable* kernels : tables_under_test()) {
    // 127 is quantised as 127 with a scale of 1: the product with 1 is 127 d, which fp32 holds.
    std::vector<float> x(32, 0.0f);
    x[0] = 127.0f;
    Scratch input(matmul_input_bytes(MatmulInputKind::kInt8, 32, 1) / 4);
    auto* to = reinterpret_cast<uint8_t*>(input.data());
    kernels->matmul_input({MatmulInputKind::kInt8, x.data(), 32, 32, 1, 0, 1, to});
    for (uint32_t first = 0; first < 0x10000; first += 16) {
      std::vector<std::vector<uint8_t>> rows(16);
      const uint8_t* of_panel[kPanelRows];
      for (uint32_t r = 0; r < 16; ++r) {
        append_u16(rows[r], static_cast<uint16_t>(first + r));
        rows[r].resize(34, 0);
        rows[r][2] = 1;
        of_panel[r] = rows[r].data();
      }
      std::vector<uint8_t> panel(static_cast<size_t>(panel_bytes(PanelType::kQ8_0, 32)));
      cpu::pack_panel(PanelType::kQ8_0, of_panel, 32, panel.data());
      float out[16];
      kernels->matmul({PanelType::kQ8_0, panel.data(), 16, 32, 0, 1, to, 1, out, 16});
      for (uint32_t r = 0; r < 16; ++r) {
        const float expected = ref::f32_of_f16(static_cast<uint16_t>(first + r));
        if (std::isnan(expected)) {
          ASSERT_TRUE(std::isnan(out[r])) << table_name(kernels) << " " << first + r;
        } else {
          ASSERT_EQ(out[r], 127 * expected) << table_name(kernels) << " " << first + r;
        }
      }
    }
  }
}

}  // namespace
}  // namespace sextant::kernels
