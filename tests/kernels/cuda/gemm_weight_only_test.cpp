// Tensor-core products with block-quantised weights against fp64: every shape of block, ragged N, T and K.
#include "kernels/cuda/gemm_weight_only.h"

#include <cmath>

#include "tests/kernels/cuda/packed_matrix.h"
#include "tests/kernels/cuda/typed_array.h"

namespace sextant::kernels::cuda {
namespace {

class GemmWeightOnlyTest : public testing::TestWithParam<ProductTypes>, public SeededTest {
 protected:
  static FileType file_type() { return std::get<0>(GetParam()); }
  static ElementType x_type() { return std::get<1>(GetParam()); }
  std::vector<float> multiply(const PackedMatrix& w, const std::vector<float>& x, int32_t tokens, ElementType out_type,
                              int64_t out_stride) {
    const int64_t cols = w.file.cols, x_stride = cols + 8;
    DeviceArray<uint16_t> on_device(strided_16_bit(x_type(), x, cols, x_stride));
    const auto count = static_cast<size_t>(tokens * out_stride);
    DeviceArray<float> out32(std::vector<float>(out_type == ElementType::kFloat32 ? count : 0, NAN));
    DeviceArray<uint16_t> out16(std::vector<uint16_t>(out_type == ElementType::kFloat32 ? 0 : count, 0x7fff));
    DeviceArray<uint8_t> workspace(
        std::vector<uint8_t>(static_cast<size_t>(gemm_weight_only_workspace_bytes(w.format, tokens, cols)), 0xff));
    void* out = out_type == ElementType::kFloat32 ? static_cast<void*>(out32.data()) : out16.data();
    EXPECT_EQ(gemm_weight_only({w.format, w.weights(), w.scales(), w.file.rows, cols, on_device.data(), x_stride,
                                x_type(), tokens, out, out_stride, out_type, workspace.data()},
                               nullptr),
              0);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return out_type == ElementType::kFloat32 ? out32.download() : from_16_bit(out16.download(), out_type);
  }

  void check(int64_t rows, int64_t cols, int32_t tokens, bool in_several_orders) {
    const PackedMatrix w(file_type(), rows, cols, *this, x_type());
    const std::vector<float> x = normals_of(x_type(), tokens * cols, *this);
    const ref::MatmulResult expected = ref::matmul(x, w.values, tokens, rows, cols);
    const ElementType out_type = (rows + tokens) % 2 == 0 ? ElementType::kFloat32 : x_type();
    const int64_t out_stride = rows + 5;
    const auto run = [&] {
      const std::vector<float> out = multiply(w, x, tokens, out_type, out_stride);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t n = 0; n < rows; ++n) {
          const double want = expected.out[static_cast<size_t>(t * rows + n)];
          // The bound of the contract: |d q| <= |value| + |m|.
          double magnitude = expected.magnitude[static_cast<size_t>(t * rows + n)];
          for (int64_t k = 0; w.format == WeightFormat::kQ4_1 && k < cols; ++k) {
            magnitude += 2 * std::fabs(x[static_cast<size_t>(t * cols + k)]) * w.minimum(n, k);
          }
          const double bound = kEpsilon * magnitude * (80 + static_cast<double>(cols) / 16);
          const double rounding = out_type != ElementType::kFloat32
                                      ? epsilon(out_type) * (std::fabs(want) + bound) + subnormal_half(out_type)
                                      : 0;
          ASSERT_NEAR(out[static_cast<size_t>(t * out_stride + n)], want, bound + rounding)
              << "token " << t << " row " << n << " of T " << tokens << " N " << rows << " K " << cols;
        }
        for (int64_t n = rows; n < out_stride; ++n) {
          ASSERT_TRUE(std::isnan(out[static_cast<size_t>(t * out_stride + n)])) << "wrote past the row";
        }
      }
    };
    if (in_several_orders) {
      under_thread_orders(seed(), run);
    } else {
      run();
    }
  }
};

TEST_P(GemmWeightOnlyTest, AgreesWithReference) {
  for (const int32_t tokens : {1, 2, 3, 5, 8, 17, 64, 130}) {
    check(33, 96, tokens, tokens <= 17);
    check(tokens <= 17 ? 70 : 130, 288, tokens, false);
  }
}

// A ring of stages that goes round many times, and one whose last stage is a single block.
TEST_P(GemmWeightOnlyTest, LongRows) {
  check(7, 2048, 5, false);
  check(31, 1056, 9, true);
  check(150, 416, 4, false);
  check(65, 544, 20, false);
  check(1, 32, 1, true);
}

// Enough rows and tokens for blocks of 128 x 64, and for two groups of runs of tokens.
TEST_P(GemmWeightOnlyTest, ManyBlocks) {
  check(128 * 63 + 1, 32, 66, false);
  check(5, 32, 600, false);
}

TEST_P(GemmWeightOnlyTest, LimitsAreChecked) {
  const PackedMatrix w(file_type(), 4, 64, *this, x_type());
  DeviceArray<uint16_t> x(512);
  DeviceArray<float> out(32), workspace(1024);
  const GemmWeightOnlyArgs good{
      w.format, w.weights(),           w.scales(),      4, 64, x.data(), 64, x_type(), 4, out.data(),
      4,        ElementType::kFloat32, workspace.data()};
  const auto refused = [&](void (*change)(GemmWeightOnlyArgs&)) {
    GemmWeightOnlyArgs args = good;
    change(args);
    return gemm_weight_only(args, nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_EQ(gemm_weight_only(good, nullptr), 0);
  EXPECT_TRUE(refused([](GemmWeightOnlyArgs& a) { a.format = WeightFormat::kBFloat16; }));
  EXPECT_TRUE(refused([](GemmWeightOnlyArgs& a) { a.cols = 48; }));
  EXPECT_TRUE(refused([](GemmWeightOnlyArgs& a) { a.x_stride = 68; }));
  EXPECT_TRUE(refused([](GemmWeightOnlyArgs& a) { a.out_stride = 3; }));
  EXPECT_TRUE(refused([](GemmWeightOnlyArgs& a) { a.num_tokens = -1; }));
  EXPECT_TRUE(refused([](GemmWeightOnlyArgs& a) { a.x_type = ElementType::kFloat32; }));
  EXPECT_EQ(refused([](GemmWeightOnlyArgs& a) { a.out_type = ElementType::kFloat16; }),
            x_type() == ElementType::kBFloat16);
  EXPECT_EQ(refused([](GemmWeightOnlyArgs& a) { a.workspace = nullptr; }), w.format == WeightFormat::kQ4_1);
}

INSTANTIATE_TEST_SUITE_P(Types, GemmWeightOnlyTest,
                         testing::Combine(testing::ValuesIn(quantised_file_types()),
                                          testing::Values(ElementType::kBFloat16, ElementType::kFloat16)),
                         product_types_name);

}  // namespace
}  // namespace sextant::kernels::cuda
