// Weight matrices on the device, and products with them by every path, against fp64.
#include "engine/device/cuda_matrix.h"

#include <gmock/gmock.h>

#include <cmath>

#include "engine/device/cuda_gemm.h"
#include "tests/kernels/cuda/cuda_test_support.h"
#include "tests/kernels/cuda/packed_matrix.h"

namespace sextant {
namespace {

using kernels::file_row_bytes;
using kernels::PanelType;
using kernels::RandomMatrix;
using kernels::cuda::DeviceArray;
using testing::HasSubstr;
namespace ref = kernels::ref;

WeightType weight_type_of(PanelType type) {
  constexpr WeightType kTypes[] = {WeightType::kF32,  WeightType::kF16,  WeightType::kBF16,
                                   WeightType::kQ8_0, WeightType::kQ4_0, WeightType::kQ4_1};
  return kTypes[static_cast<int>(type)];
}
HostMatrix host_matrix(const RandomMatrix& m) {
  return {weight_type_of(m.type), m.rows, m.cols, std::as_bytes(std::span(m.file))};
}

class CudaMatrixTest : public testing::Test, public kernels::SeededTest {
 protected:
  // What x is, and plain weights with it. Tests that say nothing are in bf16.
  DType act_ = DType::kBFloat16;
  kernels::cuda::ElementType element() const {
    return act_ == DType::kFloat16 ? kernels::cuda::ElementType::kFloat16 : kernels::cuda::ElementType::kBFloat16;
  }
  kernels::cuda::WeightFormat plain() const { return kernels::cuda::plain_format(element()); }
  double unit() const { return act_ == DType::kFloat16 ? 0x1p-11 : 0x1p-8; }

  struct Stack {
    std::vector<RandomMatrix> parts;
    std::vector<double> values;  // what the device computes with
    std::vector<double> spread;  // per value: what errors of quantised sums are proportional to
    int64_t rows = 0, cols = 0;
    std::unique_ptr<CudaMatrix> matrix;
  };
  Stack stack(const std::vector<std::pair<PanelType, int64_t>>& types_and_rows, int64_t cols) {
    Stack s;
    s.cols = cols;
    std::vector<HostMatrix> host;
    for (const auto& [type, rows] : types_and_rows) s.parts.push_back(random_matrix(type, rows, cols, *this));
    for (const RandomMatrix& part : s.parts) {
      host.push_back(host_matrix(part));
      s.rows += part.rows;
      for (int64_t i = 0; i < part.rows * cols; ++i) {
        double value = part.values[static_cast<size_t>(i)];
        if (!has_blocks(part.type)) value = kernels::cuda::rounded_to(element(), static_cast<float>(value));
        s.values.push_back(value);
        s.spread.push_back(0);
        if (!has_blocks(part.type)) continue;
        const uint8_t* block = part.file.data() + i / 32 * file_row_bytes(part.type, 32);
        uint16_t d = 0, m = 0;
        std::memcpy(&d, block, 2);
        if (part.type == PanelType::kQ4_1) std::memcpy(&m, block + 2, 2);
        // gemv.h: e |d|; 2 |m| for |d q| <= |value| + |m|, in units of that header's (K / 16 + 28), here of 2 K.
        const double e = part.type == PanelType::kQ8_0 ? 7544 : 4544;
        s.spread.back() =
            e * std::fabs(ref::f32_of_f16(d)) + 4 * static_cast<double>(cols) * std::fabs(ref::f32_of_f16(m));
      }
    }
    auto made = CudaMatrix::create(host, pool_, F8Products::kNone, plain());
    EXPECT_TRUE(made.ok()) << made.status().message();
    s.matrix = std::move(*made);
    return s;
  }

  // All paths' bounds in one: (2 K + 80) u M for the sums (cuBLASLt and mma may truncate at each addition), u times `spread`.
  void expect_product(const Stack& s, const std::vector<float>& x, const std::vector<float>& out, int64_t tokens,
                      int64_t out_stride, DType out_type) {
    const ref::MatmulResult expected = ref::matmul(x, s.values, tokens, s.rows, s.cols);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t n = 0; n < s.rows; ++n) {
        const auto i = static_cast<size_t>(t * s.rows + n);
        double bound = (2.0 * static_cast<double>(s.cols) + 80) * expected.magnitude[i];
        for (int64_t k = 0; k < s.cols; ++k) {
          bound += std::fabs(x[static_cast<size_t>(t * s.cols + k)]) * s.spread[static_cast<size_t>(n * s.cols + k)];
        }
        bound *= 1.01 * kernels::kEpsilon;
        if (out_type != DType::kFloat32) bound += unit() * (std::fabs(expected.out[i]) + bound) + 0x1p-25;
        ASSERT_NEAR(out[static_cast<size_t>(t * out_stride + n)], expected.out[i], bound)
            << "token " << t << " of " << tokens << " row " << n;
      }
    }
  }

  // x on the device in `act`, out poisoned with NaN.
  struct Operands {
    kernels::cuda::ElementType element;
    std::vector<float> x;
    DeviceArray<uint16_t> x_device;
    DeviceArray<uint32_t> out_device;  // enough for f32
    Tensor x_tensor, out_tensor;

    Operands(const std::vector<float>& values, int64_t tokens, const Stack& s, DType out_type, int64_t out_stride,
             DType act = DType::kBFloat16)
        : element(act == DType::kFloat16 ? kernels::cuda::ElementType::kFloat16
                                         : kernels::cuda::ElementType::kBFloat16),
          x(values),
          x_device(kernels::cuda::to_16_bit(x, element)),
          out_device(std::vector<uint32_t>(static_cast<size_t>(tokens * out_stride), 0xffffffffu)),
          x_tensor{x_device.data(), act, tokens, s.cols, s.cols},
          out_tensor{out_device.data(), out_type, tokens, s.rows, out_stride} {}
    std::vector<float> out() {
      const std::vector<uint32_t> words = out_device.download();
      std::vector<float> values(words.size());
      if (out_tensor.dtype == DType::kFloat32) {
        std::memcpy(values.data(), words.data(), words.size() * 4);
        return values;
      }
      std::vector<uint16_t> halves(words.size() * 2);
      std::memcpy(halves.data(), words.data(), words.size() * 4);
      return kernels::cuda::from_16_bit(halves, element);
    }
  };
  std::vector<float> numbers(int64_t n) { return kernels::cuda::normals_of(element(), n, *this); }

  ThreadPool pool_{2};
};

TEST_F(CudaMatrixTest, MultipliesPartsOfEveryTypeByEveryPath) {
  for (const DType act : {DType::kBFloat16, DType::kFloat16}) {
    act_ = act;
    const Stack s = stack({{PanelType::kQ8_0, 33},
                           {PanelType::kQ4_1, 5},
                           {PanelType::kBF16, 7},
                           {PanelType::kF32, 3},
                           {PanelType::kF16, 2},
                           {PanelType::kQ4_0, 40}},
                          320);
    ASSERT_EQ(s.matrix->rows(), 90);
    ASSERT_EQ(s.matrix->runs().size(), 4u);  // the three plain types are one run
    auto gemm = CudaGemm::create(64, 320);
    ASSERT_TRUE(gemm.ok()) << gemm.status().message();
    for (const int64_t tokens : {1, 2, 3, 4, 5, 8, 17, 40}) {
      for (const DType out_type : {DType::kFloat32, act}) {
        const int64_t out_stride = s.rows + 7;
        Operands operands(numbers(tokens * s.cols), tokens, s, out_type, out_stride, act);
        const Status status = (*gemm)->multiply(*s.matrix, operands.x_tensor, operands.out_tensor, nullptr);
        ASSERT_TRUE(status.ok()) << status.message();
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        const std::vector<float> out = operands.out();
        expect_product(s, operands.x, out, tokens, out_stride, out_type);
        ASSERT_TRUE(std::isnan(out[static_cast<size_t>(s.rows)])) << "wrote past the row";
      }
    }
  }
}

TEST_F(CudaMatrixTest, PartsOfOneFormatShareTiles) {
  const Stack s = stack({{PanelType::kQ4_0, 13}, {PanelType::kQ4_0, 30}, {PanelType::kQ4_0, 1}}, 64);
  ASSERT_EQ(s.matrix->runs().size(), 1u);
  EXPECT_EQ(s.matrix->size_bytes(), 2u * 2 * 512 + 2 * 2 * 64);
  auto gemm = CudaGemm::create(8, 64);
  ASSERT_TRUE(gemm.ok());
  Operands operands(numbers(s.cols), 1, s, DType::kFloat32, s.rows);
  ASSERT_TRUE((*gemm)->multiply(*s.matrix, operands.x_tensor, operands.out_tensor, nullptr).ok());
  expect_product(s, operands.x, operands.out(), 1, s.rows, DType::kFloat32);
}

// Matrices of several pieces of staging memory: rows read back on both sides of each seam.
TEST_F(CudaMatrixTest, LargeMatricesArriveWhole) {
  for (const PanelType type : {PanelType::kF32, PanelType::kQ8_0, PanelType::kQ4_1}) {
    const int64_t cols = 4096, rows = type == PanelType::kF32 ? 4500 : 9001, row_bytes = file_row_bytes(type, cols);
    std::vector<uint8_t> file(static_cast<size_t>(rows * row_bytes));
    std::mt19937_64 random(seed());
    if (type == PanelType::kF32) {
      for (int64_t i = 0; i < rows * cols; ++i) {
        const auto x = static_cast<float>(static_cast<int64_t>(random() % 4096) - 2048);
        std::memcpy(file.data() + i * 4, &x, 4);
      }
    } else {
      for (int64_t i = 0; i + 8 <= rows * row_bytes; i += 8) {
        const uint64_t word = random() & 0xbfffbfffbfffbfffull;  // as fp16: finite
        std::memcpy(file.data() + i, &word, 8);
      }
    }
    const HostMatrix part{weight_type_of(type), rows, cols, std::as_bytes(std::span(file))};
    auto matrix = CudaMatrix::create({&part, 1}, pool_);
    ASSERT_TRUE(matrix.ok()) << matrix.status().message();
    ASSERT_GT((*matrix)->size_bytes(), static_cast<size_t>(CudaMatrix::kStagingBytes));
    std::vector<int32_t> ids = {0, 1, static_cast<int32_t>(rows - 1)};
    for (int32_t id = 31; id < rows; id += 32) ids.insert(ids.end(), {id, static_cast<int32_t>((id + 1) % rows)});
    DeviceArray<int32_t> ids_on_device(ids);
    DeviceArray<float> out(ids.size() * static_cast<size_t>(cols));
    const auto tokens = static_cast<int64_t>(ids.size());
    const Status status =
        embed_rows(**matrix, 0, ids_on_device.data(), 1, {out.data(), DType::kFloat32, tokens, cols, cols}, nullptr);
    ASSERT_TRUE(status.ok()) << status.message();
    const std::vector<float> got = out.download();
    for (size_t t = 0; t < ids.size(); ++t) {
      const std::vector<double> want = ref::dequantize_row(type, file.data() + ids[t] * row_bytes, cols);
      for (int64_t k = 0; k < cols; ++k) {
        auto value = static_cast<float>(want[static_cast<size_t>(k)]);
        if (type == PanelType::kF32) value = ref::f32_of_bf16(ref::bf16_of_f32(value));
        ASSERT_EQ(got[t * static_cast<size_t>(cols) + static_cast<size_t>(k)], value) << ids[t] << " " << k;
      }
    }
  }
}

TEST_F(CudaMatrixTest, AlgorithmsAreChosenOncePerBucketOfTokens) {
  const Stack s = stack({{PanelType::kBF16, 24}}, 256);
  auto gemm = CudaGemm::create(64, 256);
  ASSERT_TRUE(gemm.ok());
  const auto multiply = [&](int64_t tokens) {
    Operands operands(numbers(tokens * s.cols), tokens, s, DType::kFloat32, s.rows);
    ASSERT_TRUE((*gemm)->multiply(*s.matrix, operands.x_tensor, operands.out_tensor, nullptr).ok());
    expect_product(s, operands.x, operands.out(), tokens, s.rows, DType::kFloat32);
  };
  multiply(4);
  EXPECT_EQ((*gemm)->num_algorithms(), 0u) << "few tokens are not cuBLASLt's";
  multiply(5);
  multiply(8);
  EXPECT_EQ((*gemm)->num_algorithms(), 1u);
  for (int64_t tokens = 9; tokens <= 16; ++tokens) multiply(tokens);
  EXPECT_EQ((*gemm)->num_algorithms(), 2u);
  multiply(17);
  EXPECT_EQ((*gemm)->num_algorithms(), 3u);
}

TEST_F(CudaMatrixTest, ProductsMayBeCaptured) {
  const Stack s = stack({{PanelType::kBF16, 24}, {PanelType::kQ4_1, 24}}, 256);
  auto gemm = CudaGemm::create(64, 256);
  ASSERT_TRUE(gemm.ok());
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  for (const int64_t tokens : {1, 12}) {
    Operands operands(numbers(tokens * s.cols), tokens, s, DType::kFloat32, s.rows);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    const Status status = (*gemm)->multiply(*s.matrix, operands.x_tensor, operands.out_tensor, stream);
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
    const std::vector<float> later = numbers(tokens * s.cols);
    operands.x_device.upload(kernels::cuda::to_16_bit(later, kernels::cuda::ElementType::kBFloat16));
    ASSERT_EQ(cudaGraphLaunch(replay, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    expect_product(s, later, operands.out(), tokens, s.rows, DType::kFloat32);
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
  }
  cudaStreamDestroy(stream);
}

#if defined(SEXTANT_SIMT)
// e4m3 with every kind of scale on every compute capability, by every path. Where x is quantised, |x - x'| is bounded by
// quantize_f8.h, and by that the product's error by the sum of |x - x'| |w|.
class F8ProductsTest : public CudaMatrixTest, public testing::WithParamInterface<int> {
 protected:
  F8ProductsTest() {
    simt::Machine machine;
    machine.profile = GetParam() == 80   ? simt::profile_sm_80()
                      : GetParam() == 89 ? simt::profile_sm_89()
                                         : simt::profile_sm_90();
    simt::set_machine(machine);
  }
  ~F8ProductsTest() override { simt::set_machine(simt::machine_from_environment()); }

  // The largest of what shares a scale with x[t, k] when a batch of `tokens` is quantised.
  double largest(const std::vector<float>& x, int64_t tokens, int64_t cols, int64_t t, int64_t k,
                 bool by_blocks) const {
    int64_t first_row = t, last_row = t, first = 0, last = cols;
    if (GetParam() == 89) first_row = 0, last_row = tokens - 1;
    if (by_blocks) first = k / 128 * 128, last = std::min(first + 128, cols);
    double found = 0;
    for (int64_t r = first_row; r <= last_row; ++r) {
      for (int64_t c = first; c < last; ++c) {
        found = std::max(found, std::fabs(double{x[static_cast<size_t>(r * cols + c)]}));
      }
    }
    return found;
  }
};
INSTANTIATE_TEST_SUITE_P(ComputeCapability, F8ProductsTest, testing::Values(80, 89, 90));

TEST_P(F8ProductsTest, AgreeWithReferenceByEveryPath) {
  using kernels::cuda::F8Matrix;
  using kernels::cuda::FileType;
  using kernels::cuda::WeightFormat;
  const F8Products products = f8_products_of(GetParam());
  const int64_t cols = 288;
  for (const FileType type : {FileType::kF8Tensor, FileType::kF8Rows, FileType::kF8Blocks}) {
    // Parts as of q, k, v: the second has other scales, the third does not end on a tile and is followed by one that
    // begins where cuBLASLt would find no 16 bytes.
    const std::vector<int64_t> part_rows = {128, 48, 24, 32};
    std::vector<F8Matrix> parts;
    std::vector<HostMatrix> host;
    std::vector<double> values;
    for (const int64_t rows : part_rows) parts.emplace_back(type, rows, cols, *this);
    for (size_t i = 0; i < parts.size(); ++i) {
      host.push_back({WeightType::kF8E4M3, part_rows[i], cols, std::as_bytes(std::span(parts[i].bytes)),
                      parts[i].scales, parts[i].block_rows, parts[i].block_cols});
      values.insert(values.end(), parts[i].values.begin(), parts[i].values.end());
    }
    const auto matrix = CudaMatrix::create(host, pool_, products);
    ASSERT_TRUE(matrix.ok()) << matrix.status().message();
    const bool is_row_major =
        products == F8Products::kAllScales || (products == F8Products::kTensorScales && type == FileType::kF8Tensor);
    const WeightFormat row_major = type == FileType::kF8Blocks ? WeightFormat::kF8Blocks : WeightFormat::kF8Rows;
    EXPECT_EQ((*matrix)->runs()[0].format, is_row_major ? row_major : WeightFormat::kF8Tiles);
    EXPECT_EQ((*matrix)->runs().back().format, WeightFormat::kF8Tiles) << "rows that begin at 200";
    const int64_t rows = (*matrix)->rows();
    auto gemm = CudaGemm::create(24, cols, products);
    ASSERT_TRUE(gemm.ok()) << gemm.status().message();
    for (const int64_t tokens : {1, 2, 4, 5, 8, 19, 24}) {
      // Types of x and of out: each with each in turn.
      for (const auto& [act, out_type] :
           {std::pair{DType::kBFloat16, DType::kFloat32}, std::pair{DType::kBFloat16, DType::kBFloat16},
            std::pair{DType::kFloat16, DType::kFloat16}}) {
        act_ = act;
        const int64_t out_stride = rows + 8;
        Stack shape;
        shape.rows = rows;
        shape.cols = cols;
        Operands operands(numbers(tokens * cols), tokens, shape, out_type, out_stride, act);
        const Status status = (*gemm)->multiply(**matrix, operands.x_tensor, operands.out_tensor, nullptr);
        ASSERT_TRUE(status.ok()) << status.message();
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess) << simt::last_report();
        const std::vector<float> out = operands.out(), &x = operands.x;
        const ref::MatmulResult expected = ref::matmul(x, values, tokens, rows, cols);
        bool rounds_x = false;
        for (int64_t t = 0; t < tokens; ++t) {
          std::vector<double> x_error(static_cast<size_t>(cols));
          for (int64_t k = 0; k < cols; ++k) {
            const double scale = largest(x, tokens, cols, t, k, type == FileType::kF8Blocks) / 448;
            x_error[static_cast<size_t>(k)] =
                (0x1p-4 + 0x1p-22) * std::fabs(double{x[static_cast<size_t>(t * cols + k)]}) + 0x1p-10 * scale;
          }
          for (int64_t n = 0; n < rows; ++n) {
            const auto at = static_cast<size_t>(t * rows + n);
            const double sums = (2.0 * static_cast<double>(cols) + 80) * kernels::kEpsilon * expected.magnitude[at];
            const bool is_quantised = is_row_major && tokens > 4 && n < 176;
            double of_x = 0;
            for (int64_t k = 0; is_quantised && k < cols; ++k) {
              of_x += x_error[static_cast<size_t>(k)] * std::fabs(values[static_cast<size_t>(n * cols + k)]);
            }
            double bound = 1.1 * sums + of_x;
            const double got = out[static_cast<size_t>(t * out_stride + n)];
            rounds_x = rounds_x || (is_quantised && std::fabs(got - expected.out[at]) > 1e-3 * expected.magnitude[at]);
            if (out_type != DType::kFloat32) bound += unit() * (std::fabs(expected.out[at]) + bound) + 0x1p-25;
            ASSERT_NEAR(got, expected.out[at], bound) << "token " << t << " of " << tokens << " row " << n;
          }
          ASSERT_TRUE(std::isnan(out[static_cast<size_t>(t * out_stride + rows)])) << "wrote past the row";
        }
        EXPECT_EQ(rounds_x, is_row_major && tokens > 4) << "whether cuBLASLt's product in e4m3 was used";
      }
    }
  }
}

// Where an output lies so that cuBLASLt would refuse it, few tokens at a time.
TEST_P(F8ProductsTest, AnOddOutputIsComputedToo) {
  kernels::cuda::F8Matrix f8(kernels::cuda::FileType::kF8Rows, 32, 64, *this);
  const HostMatrix host{WeightType::kF8E4M3, 32, 64, std::as_bytes(std::span(f8.bytes)), f8.scales, 1, 64};
  const auto matrix = CudaMatrix::create({&host, 1}, pool_, f8_products_of(GetParam()));
  ASSERT_TRUE(matrix.ok());
  auto gemm = CudaGemm::create(16, 64, f8_products_of(GetParam()));
  ASSERT_TRUE(gemm.ok());
  Stack shape;
  shape.rows = 32;
  shape.cols = 64;
  Operands operands(numbers(10 * 64), 10, shape, DType::kFloat32, 33);
  ASSERT_TRUE((*gemm)->multiply(**matrix, operands.x_tensor, operands.out_tensor, nullptr).ok());
  const ref::MatmulResult expected = ref::matmul(operands.x, f8.values, 10, 32, 64);
  const std::vector<float> out = operands.out();
  for (int64_t t = 0; t < 10; ++t) {
    for (int64_t n = 0; n < 32; ++n) {
      const auto at = static_cast<size_t>(t * 32 + n);
      ASSERT_NEAR(out[static_cast<size_t>(t * 33 + n)], expected.out[at],
                  (2 * 64 + 80) * kernels::kEpsilon * expected.magnitude[at]);
    }
  }
}
#endif

TEST_F(CudaMatrixTest, RefusesWhatItCannotHold) {
  const std::vector<std::byte> bytes(1 << 16);
  const auto message = [&](std::vector<HostMatrix> parts) {
    const auto made = CudaMatrix::create(parts, pool_);
    return made.ok() ? std::string("made") : made.status().message();
  };
  const auto part = [&](WeightType type, int64_t rows, int64_t cols, size_t size) {
    return HostMatrix{type, rows, cols, std::span(bytes).first(size)};
  };
  EXPECT_THAT(message({}), HasSubstr("at least one part"));
  EXPECT_THAT(message({part(WeightType::kIQ2XS, 1, 256, 74)}),
              HasSubstr("the CUDA backend does not compute with weights of type IQ2_XS"));
  EXPECT_THAT(message({part(WeightType::kBF16, 2, 12, 48)}), HasSubstr("multiple of 8"));
  EXPECT_THAT(message({part(WeightType::kF32, 2, 16, 127)}), HasSubstr("takes 128 bytes, not 127"));
  EXPECT_THAT(message({part(WeightType::kF32, 2, 16, 128), part(WeightType::kF32, 2, 8, 64)}),
              HasSubstr("cannot be stacked"));
  EXPECT_THAT(message({part(WeightType::kQ4_0, 2, 40, 45)}), HasSubstr("whole blocks"));
}

// fp16 ends at 65504: what rounds to more is refused, by name of the setting; infinities of the file are not ours to judge.
TEST_F(CudaMatrixTest, WeightsBeyondFloat16AreRefused) {
  const auto made = [&](WeightType type, std::vector<std::byte> bytes, kernels::cuda::WeightFormat plain) {
    const HostMatrix part{type, 1, 8, bytes};
    return CudaMatrix::create({&part, 1}, pool_, F8Products::kNone, plain).status();
  };
  const auto f32 = [](float last) {
    std::vector<float> values(8, 65504.0f);
    values[7] = last;
    const auto bytes = std::as_bytes(std::span(values));
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  using kernels::cuda::WeightFormat;
  EXPECT_TRUE(made(WeightType::kF32, f32(-65519.0f), WeightFormat::kFloat16).ok()) << "rounds to -65504";
  EXPECT_TRUE(made(WeightType::kF32, f32(INFINITY), WeightFormat::kFloat16).ok());
  const Status beyond = made(WeightType::kF32, f32(-65520.0f), WeightFormat::kFloat16);
  EXPECT_THAT(beyond.message(), HasSubstr("beyond 65504, the largest number of float16: use --dtype bfloat16"));
  EXPECT_EQ(beyond.param(), "dtype");
  EXPECT_TRUE(made(WeightType::kF32, f32(3e38f), WeightFormat::kBFloat16).ok());
  EXPECT_THAT(made(WeightType::kF32, f32(3.4e38f), WeightFormat::kBFloat16).message(), HasSubstr("bfloat16"));
  std::vector<std::byte> bf16(16, std::byte{0});
  bf16[15] = std::byte{0x47};  // 0x4780 is 65536
  bf16[14] = std::byte{0x80};
  EXPECT_FALSE(made(WeightType::kBF16, bf16, WeightFormat::kFloat16).ok());
  bf16[15] = std::byte{0x46};  // 0x4680 is 16384
  EXPECT_TRUE(made(WeightType::kBF16, bf16, WeightFormat::kFloat16).ok());
}

TEST_F(CudaMatrixTest, RefusesProductsOfTheWrongShape) {
  const Stack s = stack({{PanelType::kQ4_1, 8}}, 64);
  auto gemm = CudaGemm::create(8, 64);
  ASSERT_TRUE(gemm.ok());
  Operands operands(numbers(2 * 64), 2, s, DType::kFloat32, 8);
  Tensor x = operands.x_tensor;
  x.cols = 32;
  EXPECT_EQ((*gemm)->multiply(*s.matrix, x, operands.out_tensor, nullptr).code(), StatusCode::kInternal);
  x = operands.x_tensor;
  x.dtype = DType::kFloat32;
  EXPECT_EQ((*gemm)->multiply(*s.matrix, x, operands.out_tensor, nullptr).code(), StatusCode::kInternal);
  Tensor out = operands.out_tensor;
  out.dtype = DType::kFloat16;
  EXPECT_EQ((*gemm)->multiply(*s.matrix, operands.x_tensor, out, nullptr).code(), StatusCode::kInternal);
  const Stack plain_weights = stack({{PanelType::kBF16, 8}}, 64);
  x = operands.x_tensor;
  x.dtype = DType::kFloat16;
  EXPECT_EQ((*gemm)->multiply(*plain_weights.matrix, x, operands.out_tensor, nullptr).code(), StatusCode::kInternal);
  out = operands.out_tensor;
  out.rows = 1;
  EXPECT_EQ((*gemm)->multiply(*s.matrix, operands.x_tensor, out, nullptr).code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace sextant
