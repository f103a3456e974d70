// Types of GGUF that a backend holds as others (host_matrix.h): on every backend, the values of each are those of its blocks, rounded
// once to what it is held as, and products are those of these values. What the blocks stand for is block_values_test.cpp's.
#include <algorithm>
#include <cmath>

#include "engine/device/host_matrix.h"
#include "tests/engine/device/conformance_support.h"
#include "tests/support/block_rows.h"

namespace sextant {
namespace {

namespace ref = kernels::ref;
using testing_support::random_blocks;
using testing_support::re_encoded_block_types;
using testing_support::values_of_blocks;

struct BlockMatrix {
  WeightType type;
  WeightType held;  // what the backend says
  int64_t rows, cols;
  std::vector<uint8_t> bytes;
  std::vector<double> values;  // as held
  std::vector<double> parts;   // the most that each can be before sums cancel: what errors are in proportion to

  HostMatrix host() const { return {type, rows, cols, std::as_bytes(std::span(bytes))}; }
};

class BlockTypes : public ConformanceTest {
 protected:
  static constexpr AttentionParams kAnyAttention = {.num_heads = 2, .num_kv_heads = 1, .head_dim = 32, .scale = 0.2f};

  bool is_cuda() const { return GetParam().starts_with("cuda"); }

  // Those of the types that this backend holds as others; native ones are judged with their kernels.
  std::vector<WeightType> types() const {
    std::vector<WeightType> of_backend = re_encoded_block_types();
    std::erase_if(of_backend, [&](WeightType type) { return backend_->held_type(type) == type; });
    return of_backend;
  }

  BlockMatrix block_matrix(WeightType type, int64_t rows, int64_t cols) {
    BlockMatrix m{type, backend_->held_type(type), rows, cols, random_blocks(type, rows, cols, random_), {}, {}};
    const std::vector<float> values = values_of_blocks(type, m.bytes);
    for (size_t i = 0; i < values.size(); ++i) {
      const DType rounded = m.held == WeightType::kF16    ? DType::kFloat16
                            : m.held == WeightType::kBF16 ? DType::kBFloat16
                                                          : DType::kFloat32;
      m.values.push_back(rounded_to(rounded, values[i]));
      m.parts.push_back(std::fabs(m.values.back()));
      if (m.held != WeightType::kQ8_0) continue;
      // 128 times the block's scale, which is the file's.
      const uint8_t* block = m.bytes.data() + i / 32 * block_geometry(type).bytes;
      m.parts.back() = std::fabs(f32_of_f16(static_cast<uint16_t>(block[0] | block[1] << 8))) * 128;
    }
    return m;
  }
  std::unique_ptr<WeightMatrix> make(const std::vector<HostMatrix>& parts) {
    Result<std::unique_ptr<WeightMatrix>> matrix = backend_->make_matrix(parts);
    EXPECT_TRUE(matrix.ok()) << matrix.status().message();
    return matrix.ok() ? std::move(matrix).value() : nullptr;
  }
  void plan_rows(const std::vector<int32_t>& token_ids) {
    const auto tokens = static_cast<int32_t>(token_ids.size());
    ScatteredSequences sequences({tokens}, random_);
    step_ = sequences.advance({{0, tokens}});
    step_.token_ids = token_ids;
    backend_->plan(step_.inputs(), kAnyAttention);
  }

  // Columns [first, first + m.rows) of `got` against x times m.
  void expect_product(const BlockMatrix& m, const HostRows& x, const HostRows& got, int64_t first) {
    const std::vector<double> seen = seen_by(GetParam(), m.held, x);
    const ref::MatmulResult expected = ref::matmul(seen, m.values, x.rows, m.rows, m.cols);
    const ref::MatmulResult parts = ref::matmul(seen, m.parts, x.rows, m.rows, m.cols);
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t n = 0; n < m.rows; ++n) {
        const auto at = static_cast<size_t>(t * m.rows + n);
        // A chain over K at worst, and the offsets by which kernels turn small integers into floats.
        const double bound = 1.01 * (static_cast<double>(m.cols) + 300) * kUnit * parts.magnitude[at];
        ASSERT_NEAR(got.at(t, first + n), expected.out[at], bound)
            << weight_type_name(m.type) << " token " << t << " row " << n << " seed " << seed_;
      }
    }
  }

 private:
  ScatteredSequences::Step step_;
};

TEST_P(BlockTypes, AreHeldAsTheBackendSays) {
  for (const WeightType type : types()) {
    SCOPED_TRACE(weight_type_name(type));
    const bool is_exact = type == WeightType::kQ5_0 || type == WeightType::kIQ4NL;
    const WeightType held = backend_->held_type(type);
    if (is_exact) {
      EXPECT_EQ(held, WeightType::kQ8_0);
    } else if (is_cuda()) {
      EXPECT_EQ(held, act() == DType::kFloat16 ? WeightType::kF16 : WeightType::kBF16);
    } else {
      EXPECT_EQ(held, WeightType::kF16);
    }
    for (const int64_t rows : {1, 40}) {
      const BlockMatrix m = block_matrix(type, rows, 512);
      const auto matrix = make({m.host()});
      ASSERT_NE(matrix, nullptr);
      EXPECT_EQ(matrix->size_bytes(), backend_->matrix_bytes(type, rows, 512));
      EXPECT_EQ(matrix->size_bytes(), backend_->matrix_bytes(held, rows, 512));
    }
    EXPECT_TRUE(
        backend_->supports({.weight_types = {type}, .attention = kAnyAttention, .kv_cache_dtype = default_cache_type()})
            .ok());
  }
  EXPECT_EQ(backend_->held_type(WeightType::kQ4_1), WeightType::kQ4_1);
  EXPECT_EQ(backend_->held_type(WeightType::kF8E4M3), is_cuda() ? WeightType::kF8E4M3 : WeightType::kBF16);
}

TEST_P(BlockTypes, EmbedGivesTheirValuesRoundedOnce) {
  const int64_t rows = 71, cols = 768;
  std::vector<BlockMatrix> files;
  std::vector<std::unique_ptr<WeightMatrix>> tables;
  for (const WeightType type : types()) {
    files.push_back(block_matrix(type, rows, cols));
    tables.push_back(make({files.back().host()}));
    ASSERT_NE(tables.back(), nullptr);
  }
  reserve(64, 4, kAnyAttention);
  const std::vector<int32_t> ids = {70, 0, 16, 16, 15, 33, 1};
  for (size_t i = 0; i < files.size(); ++i) {
    plan_rows(ids);
    const Tensor out = poisoned(static_cast<int64_t>(ids.size()), cols, DType::kFloat32);
    backend_->embed(*tables[i], 1, out);
    const HostRows got = read(out);
    for (size_t t = 0; t < ids.size(); ++t) {
      for (int64_t c = 0; c < cols; ++c) {
        ASSERT_EQ(got.at(static_cast<int64_t>(t), c), files[i].values[static_cast<size_t>(ids[t] * cols + c)])
            << weight_type_name(files[i].type) << " token " << t << " column " << c << " seed " << seed_;
      }
    }
  }
}

TEST_P(BlockTypes, MatmulIsThatOfTheirValues) {
  std::vector<BlockMatrix> files;
  std::vector<std::unique_ptr<WeightMatrix>> matrices;
  for (const WeightType type : types()) {
    for (const auto& [rows, cols] : std::vector<std::pair<int64_t, int64_t>>{{33, 256}, {50, 768}}) {
      files.push_back(block_matrix(type, rows, cols));
      matrices.push_back(make({files.back().host()}));
      ASSERT_NE(matrices.back(), nullptr);
    }
  }
  reserve(64, 4, kAnyAttention);
  for (size_t i = 0; i < files.size(); ++i) {
    for (const int64_t tokens : {1, 3, 17}) {
      const HostRows x = random_rows(tokens, files[i].cols, act());
      const Tensor in = on_device(x, act()), out = poisoned(tokens, files[i].rows, DType::kFloat32);
      backend_->matmul(*matrices[i], in, out);
      expect_product(files[i], x, read(out), 0);
      if (HasFatalFailure()) return;
    }
  }
}

// Neighbours that are held as one share panels and tiles, whatever the file has them in: Q8_0 beside Q5_0, Q4_K beside Q6_K.
TEST_P(BlockTypes, PartsOfDifferentTypesAreStacked) {
  const int64_t cols = 256, tokens = 5;
  std::vector<BlockMatrix> files;
  std::vector<HostMatrix> hosts;
  int64_t rows = 0;
  for (const auto& [type, n] : std::vector<std::pair<WeightType, int64_t>>{{WeightType::kQ5_0, 40},
                                                                           {WeightType::kQ8_0, 7},
                                                                           {WeightType::kIQ4NL, 21},
                                                                           {WeightType::kQ4K, 19},
                                                                           {WeightType::kQ6K, 33},
                                                                           {WeightType::kMXFP4, 3}}) {
    if (type != WeightType::kQ8_0 && backend_->held_type(type) == type) continue;
    files.push_back(block_matrix(type, n, cols));
    rows += n;
  }
  for (const BlockMatrix& file : files) hosts.push_back(file.host());
  const auto stacked = make(hosts);
  ASSERT_NE(stacked, nullptr);
  ASSERT_EQ(stacked->rows(), rows);
  reserve(64, 4, kAnyAttention);
  const HostRows x = random_rows(tokens, cols, act());
  const Tensor in = on_device(x, act()), out = poisoned(tokens, rows, DType::kFloat32);
  backend_->matmul(*stacked, in, out);
  const HostRows got = read(out);
  int64_t first = 0;
  for (const BlockMatrix& file : files) {
    expect_product(file, x, got, first);
    if (HasFatalFailure()) return;
    first += file.rows;
  }
}

// One block among many, in the last row: whoever re-encodes it says so.
TEST_P(BlockTypes, WhatTheHeldTypeCannotHoldIsRefused) {
  const auto refusal_of = [&](const BlockMatrix& m) {
    const HostMatrix host = m.host();
    const auto made = backend_->make_matrix({&host, 1});
    return made.ok() ? std::string() : made.status().message();
  };
  BlockMatrix mx = block_matrix(WeightType::kMXFP4, 37, 512);
  uint8_t& exponent = mx.bytes[mx.bytes.size() - 17];
  std::fill(mx.bytes.end() - 16, mx.bytes.end(), uint8_t{0x77});  // 6
  exponent = 127 + 13;                                            // 49152
  EXPECT_EQ(refusal_of(mx), "");
  exponent = 127 + 14;
  if (mx.held == WeightType::kF16) {
    EXPECT_EQ(refusal_of(mx),
              "a matrix of type MXFP4 is held as F16, and one of its weights is no finite number or beyond the largest "
              "that F16 has");
  } else {
    EXPECT_EQ(refusal_of(mx), "");
    exponent = 255;
    EXPECT_NE(refusal_of(mx).find("held as BF16, and one of its weights is no finite number"), std::string::npos);
  }
  for (const WeightType type : {WeightType::kQ2K, WeightType::kQ5_1}) {
    BlockMatrix m = block_matrix(type, 5, 256);
    const size_t scale = testing_support::scales_of_blocks(type)[0].at;
    m.bytes[scale] = 1;  // NaN
    m.bytes[scale + 1] = 0x7e;
    EXPECT_NE(refusal_of(m).find("is no finite number"), std::string::npos) << weight_type_name(type);
  }
}

TEST_P(BlockTypes, RowsAreWholeBlocksAndAsLongAsTheySay) {
  const BlockMatrix m = block_matrix(WeightType::kQ4K, 4, 256);
  HostMatrix host = m.host();
  host.cols = 128;
  host.rows = 8;
  auto made = backend_->make_matrix({&host, 1});
  ASSERT_FALSE(made.ok());
  EXPECT_NE(made.status().message().find("the columns must be a multiple of 256"), std::string::npos);
  host = m.host();
  host.rows = 5;
  made = backend_->make_matrix({&host, 1});
  ASSERT_FALSE(made.ok());
  EXPECT_NE(made.status().message().find("takes 720 bytes, not 576"), std::string::npos) << made.status().message();
  host = {WeightType::kIQ2XS, 4, 256, host.data};
  made = backend_->make_matrix({&host, 1});
  ASSERT_FALSE(made.ok());
  EXPECT_NE(made.status().message().find("does not compute with weights of type IQ2_XS"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(All, BlockTypes, testing::ValuesIn(available_backends()), [](const auto& backend) {
  std::string name = backend.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace sextant
