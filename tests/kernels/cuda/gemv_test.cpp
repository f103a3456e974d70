// The product of few tokens with every weight format against fp64; rows that do not depend on their neighbours.
#include "kernels/cuda/gemv.h"

#include <cmath>
#include <cstring>

#include "tests/kernels/cuda/packed_matrix.h"
#include "tests/kernels/cuda/typed_array.h"

namespace sextant::kernels::cuda {
namespace {

class GemvTest : public testing::TestWithParam<ProductTypes>, public SeededTest {
 protected:
  static FileType file_type() { return std::get<0>(GetParam()); }
  static ElementType x_type() { return std::get<1>(GetParam()); }
  // Out poisoned: what is not written is seen.
  std::vector<float> multiply(const PackedMatrix& w, const std::vector<float>& x, int32_t tokens, ElementType out_type,
                              int64_t out_stride) {
    const int64_t cols = w.file.cols, x_stride = cols + 16;
    DeviceArray<uint16_t> on_device(strided_16_bit(x_type(), x, cols, x_stride));
    const auto count = static_cast<size_t>(tokens * out_stride);
    DeviceArray<float> out32(std::vector<float>(out_type == ElementType::kFloat32 ? count : 0, NAN));
    DeviceArray<uint16_t> out16(std::vector<uint16_t>(out_type == ElementType::kFloat32 ? 0 : count, 0x7fff));
    void* out = out_type == ElementType::kFloat32 ? static_cast<void*>(out32.data()) : out16.data();
    EXPECT_EQ(gemv({w.format, w.weights(), w.scales(), w.file.rows, cols, on_device.data(), x_stride, x_type(), tokens,
                    out, out_stride, out_type},
                   nullptr),
              0);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return out_type == ElementType::kFloat32 ? out32.download() : from_16_bit(out16.download(), out_type);
  }
};

// The bound of gemv.h, before the output is rounded. M' = sum |x| (|d q| + |m|), A = sum |x d|, u = 2^-24.
// bf16: products are exact; a lane adds its columns in a chain, then come five levels at most.
// Quantised: s is a chain of 8 over numbers up to e = offset + q, the sum that is taken off one of 9 roundings (a product that
// is not exact, 8 additions) over the offset: u A (8 e + 9 offset). Then the difference, the product with d, the lane's chain
// over blocks, 2 exchanges and 16 warps; kQ4_1 has two terms a block, and 8 additions in its sum of x.
// One hundredth more for the terms of second order.
double bound(const PackedMatrix& w, const float* x, int64_t n) {
  const int64_t cols = w.file.cols;
  double magnitude = 0, scaled = 0;
  for (int64_t k = 0; k < cols; ++k) {
    const double size = std::fabs(x[k]), m = w.minimum(n, k);
    const double value = w.values[static_cast<size_t>(n * cols + k)];
    magnitude += size * (m > 0 ? std::fabs(value) + 2 * m : std::fabs(value));  // |d q| <= |value| + |m|
    scaled += size * w.scale(n, k);
  }
  const auto blocks = static_cast<double>(cols) / 32;
  if (is_f8_row_major(w.format)) return 1.01 * kEpsilon * (static_cast<double>(cols) / 16 + 40) * magnitude;
  if (!is_tiled(w.format)) {
    const double lanes = cols >= 1024 ? 32 : 8;
    return 1.01 * kEpsilon * (8 * std::ceil(static_cast<double>(cols) / 8 / lanes) + 5) * magnitude;
  }
  const double offset = w.format == WeightFormat::kQ8_0 ? 384 : 264, e = w.format == WeightFormat::kQ8_0 ? 511 : 271;
  // e4m3: `scaled` is 0, there is no offset; a chain of 8 instead.
  return 1.01 * kEpsilon * ((8 * e + 9 * offset) * scaled + (2 * blocks + 2 + 16 + 10) * magnitude);
}

TEST_P(GemvTest, AgreesWithReference) {
  for (const int64_t cols : {32, 96, 576, 1536, 2048}) {
    for (const int64_t rows : {1, 7, 33, 130}) {
      if (rows > 33 && cols > 600) continue;
      const PackedMatrix w(file_type(), rows, cols, *this, x_type());
      for (int32_t tokens = 1; tokens <= max_gemv_tokens(w.format); ++tokens) {
        const ElementType out_type = (rows + tokens) % 2 == 0 ? ElementType::kFloat32 : x_type();
        const std::vector<float> x = normals_of(x_type(), tokens * cols, *this);
        const ref::MatmulResult expected = ref::matmul(x, w.values, tokens, rows, cols);
        const int64_t out_stride = rows + 3;
        const auto check = [&] {
          const std::vector<float> out = multiply(w, x, tokens, out_type, out_stride);
          for (int64_t t = 0; t < tokens; ++t) {
            for (int64_t n = 0; n < rows; ++n) {
              const double want = expected.out[static_cast<size_t>(t * rows + n)];
              const double before = bound(w, x.data() + t * cols, n);
              const double rounding = out_type != ElementType::kFloat32
                                          ? epsilon(out_type) * (std::fabs(want) + before) + subnormal_half(out_type)
                                          : 0;
              ASSERT_NEAR(out[static_cast<size_t>(t * out_stride + n)], want, before + rounding)
                  << "token " << t << " row " << n << " of T " << tokens << " N " << rows << " K " << cols;
            }
            for (int64_t n = rows; n < out_stride; ++n) {
              ASSERT_TRUE(std::isnan(out[static_cast<size_t>(t * out_stride + n)])) << "wrote past the row";
            }
          }
        };
        if (rows <= 33 && cols <= 576) {
          under_thread_orders(seed(), check);
        } else {
          check();
        }
      }
    }
  }
}

TEST_P(GemvTest, RowIsTheSameAloneAndInABatch) {
  for (const int64_t cols : {96, 1056}) {
    const int64_t rows = 45;
    const PackedMatrix w(file_type(), rows, cols, *this, x_type());
    const std::vector<float> row = normals_of(x_type(), cols, *this);
    const std::vector<float> alone = multiply(w, row, 1, ElementType::kFloat32, rows);
    for (int32_t tokens = 2; tokens <= max_gemv_tokens(w.format); ++tokens) {
      for (int64_t place = 0; place < tokens; ++place) {
        std::vector<float> x = normals_of(x_type(), tokens * cols, *this);
        x[static_cast<size_t>((place + 1) % tokens * cols + 5)] = NAN;  // a neighbour that is not a number
        std::copy(row.begin(), row.end(), x.begin() + place * cols);
        const std::vector<float> out = multiply(w, x, tokens, ElementType::kFloat32, rows);
        ASSERT_EQ(std::memcmp(out.data() + place * rows, alone.data(), static_cast<size_t>(rows) * 4), 0)
            << "place " << place << " of " << tokens << " K " << cols;
      }
    }
  }
}

#if defined(SEXTANT_SIMT)
// What overlaps with the kernel before, which after an all-reduce is the one that sums its parts (reduce_norm.h): nothing of x is read
// before the wait, and all loads of weights that are under way by then have been asked for: the matrix is gone afterwards.
TEST_P(GemvTest, AsksForItsWeightsBeforeItWaitsForTheKernelBefore) {
  const int64_t rows = 8, cols = 64;  // one block, all of it in a thread's first loads
  const PackedMatrix w(file_type(), rows, cols, *this, x_type());
  const int32_t tokens = max_gemv_tokens(w.format);
  const std::vector<float> x = normals_of(x_type(), tokens * cols, *this);
  const std::vector<uint16_t> there = to_16_bit(x, x_type());
  DeviceArray<uint16_t> on_device(there.size());
  DeviceArray<float> out(static_cast<size_t>(tokens * rows));
  const GemvArgs args{w.format, w.weights(), w.scales(), rows,       cols, on_device.data(),
                      cols,     x_type(),    tokens,     out.data(), rows, ElementType::kFloat32};
  on_device.upload(there);
  ASSERT_EQ(gemv(args, nullptr), 0);
  const std::vector<float> expected = out.download();
  under_thread_orders(seed(), [&] {
    std::vector<std::byte> weights(static_cast<size_t>(weight_bytes(w.format, rows, cols)));
    ASSERT_EQ(cudaMemcpy(weights.data(), w.weights(), weights.size(), cudaMemcpyDeviceToHost), cudaSuccess);
    on_device.upload(std::vector<uint16_t>(there.size(), 0x7fff));  // not a number
    simt::set_dependency_effects({.at_wait =
                                      [&] {
                                        std::memcpy(on_device.data(), there.data(), there.size() * sizeof(uint16_t));
                                        std::memset(const_cast<void*>(w.weights()), 0xff, weights.size());
                                      },
                                  .at_launch = {}});
    EXPECT_EQ(gemv(args, nullptr), 0);
    const std::vector<float> got = out.download();
    simt::set_dependency_effects({});
    EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0);
    ASSERT_EQ(cudaMemcpy(const_cast<void*>(w.weights()), weights.data(), weights.size(), cudaMemcpyHostToDevice),
              cudaSuccess);
  });
}
#endif

TEST_P(GemvTest, LimitsAreChecked) {
  const PackedMatrix w(file_type(), 4, 64, *this, x_type());
  DeviceArray<uint16_t> x(512);
  DeviceArray<float> out(32);
  const GemvArgs good{w.format, w.weights(), w.scales(), 4,          64, x.data(),
                      64,       x_type(),    1,          out.data(), 4,  ElementType::kFloat32};
  const auto refused = [&](void (*change)(GemvArgs&)) {
    GemvArgs args = good;
    change(args);
    return gemv(args, nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_EQ(gemv(good, nullptr), 0);
  EXPECT_TRUE(refused([](GemvArgs& a) { a.num_tokens = max_gemv_tokens(a.format) + 1; }));
  EXPECT_TRUE(refused([](GemvArgs& a) { a.cols = 60; }));
  EXPECT_TRUE(refused([](GemvArgs& a) { a.rows = 0; }));
  EXPECT_TRUE(refused([](GemvArgs& a) { a.x_stride = 65; }));
  EXPECT_TRUE(refused([](GemvArgs& a) { a.out_stride = 3; }));
  EXPECT_TRUE(refused([](GemvArgs& a) { a.x = static_cast<const uint16_t*>(a.x) + 1; }));
  // Types: x of 16 bits, out of x's type or fp32, plain weights of x's type.
  EXPECT_TRUE(refused([](GemvArgs& a) { a.x_type = ElementType::kFloat32; }));
  const ElementType other = x_type() == ElementType::kFloat16 ? ElementType::kBFloat16 : ElementType::kFloat16;
  GemvArgs mixed = good;
  mixed.out_type = other;
  EXPECT_EQ(gemv(mixed, nullptr), cudaErrorInvalidValue);
  mixed.x_type = other;
  EXPECT_EQ(gemv(mixed, nullptr) == cudaErrorInvalidValue, is_plain(w.format));
}

INSTANTIATE_TEST_SUITE_P(Types, GemvTest,
                         testing::Combine(testing::ValuesIn(all_file_types()),
                                          testing::Values(ElementType::kBFloat16, ElementType::kFloat16)),
                         product_types_name);

}  // namespace
}  // namespace sextant::kernels::cuda
