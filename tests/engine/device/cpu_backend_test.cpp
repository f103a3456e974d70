// The CPU backend as a model sees it: results do not depend on threads, batch or chunks; bad input is refused with a reason.
// Long because one fixture builds the batches that all of these compare.
#include "engine/device/cpu_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <numeric>
#include <random>

#include "engine/device/cpu_kv_cache.h"
#include "kernels/ref/reference.h"
#include "tests/support/random_seed.h"

namespace sextant {
namespace {

using testing::HasSubstr;

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const char* name : {"generic", "avx2", "avx512", "avx512_bf16"}) {
    setenv("SEXTANT_CPU_ISA", name, 1);
    if (make_cpu_backend({}).ok()) names.emplace_back(name);
  }
  unsetenv("SEXTANT_CPU_ISA");
  return names;
}

std::unique_ptr<Backend> backend_for(const std::string& isa, int64_t num_threads) {
  setenv("SEXTANT_CPU_ISA", isa.c_str(), 1);
  DeviceConfig config;
  config.num_threads = num_threads;
  Result<std::unique_ptr<Backend>> backend = make_cpu_backend(config);
  unsetenv("SEXTANT_CPU_ISA");
  EXPECT_TRUE(backend.ok()) << backend.status().message();
  return std::move(backend).value();
}

Tensor tensor(std::vector<float>& data, int64_t rows, int64_t cols) {
  return {data.data(), DType::kFloat32, rows, cols, cols};
}

void plan_without_attention(Backend& backend, std::span<const int32_t> ids, std::span<const int32_t> indices) {
  StepInputs inputs;
  inputs.token_ids = ids;
  inputs.logits_indices = indices;
  static constexpr int32_t kNoRows[] = {0};
  inputs.attention.cu_seqlens_q = kNoRows;
  backend.plan(inputs, AttentionParams{.num_heads = 1, .num_kv_heads = 1, .head_dim = 16});
}

class Random {
 public:
  Random() : seed_(random_seed()), engine_(seed_) {}
  uint64_t seed() const { return seed_; }
  int64_t uniform(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }
  std::vector<float> normals(int64_t n) {
    std::vector<float> out(static_cast<size_t>(n));
    for (float& x : out) x = normal_(engine_);
    return out;
  }
  std::vector<uint8_t> bytes(size_t n) {
    std::vector<uint8_t> out(n);
    for (uint8_t& b : out) b = static_cast<uint8_t>(uniform(0, 255));
    return out;
  }
  template <typename T>
  void shuffle(std::vector<T>& v) {
    std::shuffle(v.begin(), v.end(), engine_);
  }

 private:
  uint64_t seed_;
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
};

// A matrix as a file holds it; quantised ones have small scales.
struct FileMatrix {
  HostMatrix host(WeightType type, int64_t rows, int64_t cols) const {
    return {type, rows, cols, std::as_bytes(std::span(bytes))};
  }
  std::vector<uint8_t> bytes;
};

FileMatrix file_matrix(WeightType type, int64_t rows, int64_t cols, Random& random) {
  FileMatrix m{random.bytes(*encoded_bytes(type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols)))};
  const BlockGeometry block = block_geometry(type);
  if (type == WeightType::kF32) {
    const std::vector<float> values = random.normals(rows * cols);
    std::memcpy(m.bytes.data(), values.data(), m.bytes.size());
  }
  for (size_t at = 0; at < m.bytes.size() && type != WeightType::kF32; at += block.bytes) {
    const bool is_bf16 = type == WeightType::kBF16;
    const uint16_t d = is_bf16 ? kernels::ref::bf16_of_f32(random.normals(1)[0])
                               : kernels::ref::f16_of_f32(random.normals(1)[0] * 0.1f);
    std::memcpy(m.bytes.data() + at + (type == WeightType::kQ6K ? 208 : 0), &d, 2);
    const bool has_minimum = type == WeightType::kQ4_1 || type == WeightType::kQ4K || type == WeightType::kQ5K;
    if (has_minimum) std::memcpy(m.bytes.data() + at + 2, &d, 2);
  }
  return m;
}

class CpuBackendTest : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Backend> backend(int64_t num_threads) const { return backend_for(GetParam(), num_threads); }
  Random random_;
};

TEST_P(CpuBackendTest, DescribesItself) {
  EXPECT_EQ(backend(1)->description(), "cpu (" + GetParam() + ", 1 thread)");
  EXPECT_EQ(backend(3)->description(), "cpu (" + GetParam() + ", 3 threads)");
}

TEST_P(CpuBackendTest, StackedPartsOfDifferentTypesMultiplyLikeTheirRows) {
  const int64_t cols = 256, tokens = 13;
  const std::vector<std::pair<WeightType, int64_t>> parts = {
      {WeightType::kQ4_1, 40}, {WeightType::kQ4_1, 9},  {WeightType::kQ8_0, 33}, {WeightType::kF32, 5},
      {WeightType::kBF16, 21}, {WeightType::kQ4_0, 16}, {WeightType::kF16, 1},   {WeightType::kQ4K, 17},
      {WeightType::kQ6K, 40},  {WeightType::kQ5_0, 7},  {WeightType::kQ5K, 3}};
  std::vector<FileMatrix> files;
  std::vector<HostMatrix> hosts;
  int64_t rows = 0;
  for (const auto& [type, n] : parts) {
    files.push_back(file_matrix(type, n, cols, random_));
    rows += n;
  }
  for (size_t i = 0; i < parts.size(); ++i) hosts.push_back(files[i].host(parts[i].first, parts[i].second, cols));
  std::vector<float> x = random_.normals(tokens * cols);
  std::vector<std::vector<float>> outs;
  for (const int64_t threads : {1, 2, 3}) {
    auto b = backend(threads);
    auto stacked = b->make_matrix(hosts);
    ASSERT_TRUE(stacked.ok()) << stacked.status().message();
    EXPECT_EQ((*stacked)->rows(), rows);
    EXPECT_EQ((*stacked)->cols(), cols);
    std::vector<float> out(static_cast<size_t>(tokens * rows), NAN);
    b->matmul(**stacked, tensor(x, tokens, cols), tensor(out, tokens, rows));
    int64_t first = 0;
    for (const HostMatrix& host : hosts) {
      auto alone = b->make_matrix({&host, 1});
      ASSERT_TRUE(alone.ok());
      std::vector<float> part(static_cast<size_t>(tokens * host.rows), NAN);
      b->matmul(**alone, tensor(x, tokens, cols), tensor(part, tokens, host.rows));
      for (int64_t t = 0; t < tokens; ++t) {
        ASSERT_EQ(
            std::memcmp(part.data() + t * host.rows, out.data() + t * rows + first, static_cast<size_t>(host.rows) * 4),
            0)
            << "row " << first << " seed " << random_.seed();
      }
      first += host.rows;
    }
    outs.push_back(out);
  }
  EXPECT_EQ(std::memcmp(outs[0].data(), outs[1].data(), outs[0].size() * 4), 0);
  EXPECT_EQ(std::memcmp(outs[0].data(), outs[2].data(), outs[0].size() * 4), 0);
}

TEST_P(CpuBackendTest, EmbedReadsRowsOfTheSameMatrixThatMatmulUses) {
  for (const WeightType type :
       {WeightType::kQ8_0, WeightType::kQ4_1, WeightType::kF16, WeightType::kQ4K, WeightType::kQ5K, WeightType::kQ6K}) {
    const int64_t rows = 70, cols = block_geometry(type).elements > 32 ? 256 : 64;
    const FileMatrix file = file_matrix(type, rows, cols, random_);
    const HostMatrix host = file.host(type, rows, cols);
    auto b = backend(2);
    auto table = b->make_matrix({&host, 1});
    ASSERT_TRUE(table.ok());
    const std::vector<int32_t> ids = {69, 0, 16, 16, 15, 33};
    std::vector<float> out(ids.size() * static_cast<size_t>(cols), NAN);
    plan_without_attention(*b, ids, {});
    b->embed(**table, 1, tensor(out, static_cast<int64_t>(ids.size()), cols));
    // Column k of the product with the identity is row k of the table.
    std::vector<float> identity(static_cast<size_t>(cols * cols), 0.0f), product(static_cast<size_t>(cols * rows), NAN);
    for (int64_t k = 0; k < cols; ++k) identity[static_cast<size_t>(k * cols + k)] = 1.0f;
    b->matmul(**table, tensor(identity, cols, cols), tensor(product, cols, rows));
    for (size_t i = 0; i < ids.size(); ++i) {
      for (int64_t k = 0; k < cols; ++k) {
        const float embedded = out[i * static_cast<size_t>(cols) + static_cast<size_t>(k)];
        const float multiplied = product[static_cast<size_t>(k * rows + ids[i])];
        // Superblocks: 4 roundings of d s q and of m n, each at most 4096 d; of this matrix d is below 1.
        ASSERT_NEAR(embedded, multiplied, std::fabs(embedded) * 1e-6 + (cols == 256 ? 2 * 4 * 4096 * 0x1p-24 : 1e-6));
      }
    }
  }
}

// A random model-shaped history: sequences, each fed in chunks, several sequences per step.
struct Chunk {
  int32_t sequence;
  int32_t tokens;
};
using Steps = std::vector<std::vector<Chunk>>;

class AttentionRun {
 public:
  AttentionRun(Backend& backend, const AttentionParams& params, DType dtype, int32_t num_sequences, int32_t max_length,
               Random& random)
      : backend_(backend),
        params_(params),
        num_blocks_(num_sequences * ((max_length + 15) / 16) + 5),
        max_blocks_((max_length + 15) / 16) {
    auto cache = backend.make_kv_cache({2, num_blocks_, 16, params.num_kv_heads, params.head_dim, dtype});
    EXPECT_TRUE(cache.ok()) << cache.status().message();
    cache_ = std::move(cache).value();
    auto& cpu = static_cast<CpuKvCache&>(*cache_);
    std::memset(cpu.layer_data(0), 0xff, cpu.size_bytes());  // NaN in bf16 and fp32
    std::vector<int32_t> ids(static_cast<size_t>(num_blocks_ - 1));
    std::iota(ids.begin(), ids.end(), 1);
    random.shuffle(ids);
    for (int32_t s = 0; s < num_sequences; ++s) {
      tables_.emplace_back(ids.begin() + s * max_blocks_, ids.begin() + (s + 1) * max_blocks_);
    }
    rope_.rotary_dim = params.head_dim;
    rope_.num_positions = max_length;
    for (int32_t p = 0; p < max_length; ++p) {
      for (int32_t i = 0; i < params.head_dim / 2; ++i) {
        const double angle = p * std::pow(10000.0, -2.0 * i / params.head_dim);
        rope_cos_.push_back(static_cast<float>(std::cos(angle)));
        rope_sin_.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    rope_.cos = rope_cos_.data();
    rope_.sin = rope_sin_.data();
    lengths_.assign(static_cast<size_t>(num_sequences), 0);
  }

  // qkv[s]: all rows of sequence s. Returns per sequence all outputs.
  std::vector<std::vector<float>> run(const Steps& steps, const std::vector<std::vector<float>>& qkv,
                                      int32_t second_window) {
    const int64_t qkv_cols = int64_t{params_.num_heads + 2 * params_.num_kv_heads} * params_.head_dim;
    const int64_t out_cols = int64_t{params_.num_heads} * params_.head_dim;
    std::vector<std::vector<float>> outs(qkv.size());
    for (const std::vector<Chunk>& step : steps) {
      std::vector<int32_t> cu = {0}, seq_lens, positions, tables;
      std::vector<int64_t> slots;
      std::vector<float> x;
      for (const Chunk& chunk : step) {
        const auto s = static_cast<size_t>(chunk.sequence);
        for (int32_t i = 0; i < chunk.tokens; ++i) {
          const int32_t position = lengths_[s] + i;
          positions.push_back(position);
          slots.push_back(int64_t{tables_[s][static_cast<size_t>(position / 16)]} * 16 + position % 16);
        }
        x.insert(x.end(), qkv[s].begin() + lengths_[s] * qkv_cols,
                 qkv[s].begin() + (lengths_[s] + chunk.tokens) * qkv_cols);
        lengths_[s] += chunk.tokens;
        cu.push_back(cu.back() + chunk.tokens);
        seq_lens.push_back(lengths_[s]);
        for (int32_t b = 0; b < max_blocks_; ++b)
          tables.push_back(b <= (lengths_[s] - 1) / 16 ? tables_[s][static_cast<size_t>(b)] : 0);
      }
      const int64_t rows = cu.back();
      std::vector<float> out(static_cast<size_t>(rows * out_cols), NAN);
      StepInputs inputs;
      inputs.attention = {cu, seq_lens, positions, slots, tables, max_blocks_};
      backend_.plan(inputs, params_);
      // Layer 1, so that a wrong layer offset is seen; then once more with another window, as models with mixed layers do.
      backend_.rope_and_cache(tensor(x, rows, qkv_cols), rope_, params_, *cache_, 1);
      backend_.attention(tensor(x, rows, qkv_cols), params_, *cache_, 1, tensor(out, rows, out_cols));
      AttentionParams other = params_;
      other.sliding_window = second_window;
      std::vector<float> out_other(out.size(), NAN);
      backend_.attention(tensor(x, rows, qkv_cols), other, *cache_, 1, tensor(out_other, rows, out_cols));
      EXPECT_TRUE(backend_.synchronize().ok());
      for (size_t c = 0; c < step.size(); ++c) {
        std::vector<float>& to = outs[static_cast<size_t>(step[c].sequence)];
        for (int64_t row = cu[c]; row < cu[c + 1]; ++row) {
          to.insert(to.end(), out.begin() + row * out_cols, out.begin() + (row + 1) * out_cols);
          to.insert(to.end(), out_other.begin() + row * out_cols, out_other.begin() + (row + 1) * out_cols);
        }
      }
    }
    return outs;
  }

 private:
  Backend& backend_;
  AttentionParams params_;
  int32_t num_blocks_;
  int32_t max_blocks_;
  std::unique_ptr<KvCache> cache_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<int32_t> lengths_;
  std::vector<float> rope_cos_, rope_sin_;
  RopeTable rope_;
};

TEST_P(CpuBackendTest, AttentionIsTheSameForEveryBatchChunkingAndThreadCount) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    for (int round = 0; round < 3; ++round) {
      AttentionParams params;
      params.num_kv_heads = static_cast<int32_t>(random_.uniform(1, 3));
      params.num_heads = params.num_kv_heads * static_cast<int32_t>(random_.uniform(1, 4));
      params.head_dim = static_cast<int32_t>(16 * random_.uniform(1, 5));
      params.scale = 1 / std::sqrt(static_cast<float>(params.head_dim));
      params.sliding_window = round == 1 ? 50 : 0;
      params.logit_softcap = round == 2 ? 30.0f : 0;
      const int32_t num_sequences = 5, max_length = 600;
      std::vector<int32_t> lengths = {1, 17, 300, 600};
      lengths.push_back(static_cast<int32_t>(random_.uniform(1, 100)));
      std::vector<std::vector<float>> qkv;
      for (const int32_t length : lengths)
        qkv.push_back(
            random_.normals(int64_t{length} * (params.num_heads + 2 * params.num_kv_heads) * params.head_dim));

      Steps alone;  // one sequence after the other, each whole
      for (int32_t s = 0; s < num_sequences; ++s) alone.push_back({{s, lengths[static_cast<size_t>(s)]}});
      auto b = backend(1);
      const auto expected = AttentionRun(*b, params, dtype, num_sequences, max_length, random_).run(alone, qkv, 20);
      for (const auto& out : expected) {
        for (const float v : out)
          ASSERT_TRUE(std::isfinite(v)) << "an unused slot reached a result; seed " << random_.seed();
      }

      for (const int64_t threads : {1, 2, 3}) {
        Steps steps;  // random chunks of random sequences together, decodes among them
        std::vector<int32_t> rest = lengths;
        while (std::accumulate(rest.begin(), rest.end(), 0) > 0) {
          std::vector<int32_t> order = {0, 1, 2, 3, 4};
          random_.shuffle(order);
          std::vector<Chunk> step;
          for (const int32_t s : order) {
            int32_t& left = rest[static_cast<size_t>(s)];
            const int64_t most = random_.uniform(0, 2) == 0 ? 1 : random_.uniform(1, 250);
            const auto tokens = static_cast<int32_t>(random_.uniform(0, std::min<int64_t>(left, most)));
            if (tokens > 0) step.push_back({s, tokens});
            left -= tokens;
          }
          if (!step.empty()) steps.push_back(step);
        }
        auto c = backend(threads);
        const auto chunked = AttentionRun(*c, params, dtype, num_sequences, max_length, random_).run(steps, qkv, 20);
        for (size_t s = 0; s < expected.size(); ++s) {
          ASSERT_EQ(std::memcmp(expected[s].data(), chunked[s].data(), expected[s].size() * 4), 0)
              << "sequence " << s << " threads " << threads << " seed " << random_.seed();
        }
      }
    }
  }
}

TEST_P(CpuBackendTest, LongDecodeIsSplitBetweenThreadsWithoutChangingIt) {
  AttentionParams params;
  params.num_heads = 3;
  params.num_kv_heads = 1;
  params.head_dim = 64;
  params.scale = 0.125f;
  const int32_t length = 3000;
  const auto qkv = random_.normals(int64_t{length} * 5 * 64);
  const Steps steps = {{{0, length - 1}}, {{0, 1}}};
  auto one = backend(1), three = backend(3);
  const auto expected = AttentionRun(*one, params, DType::kBFloat16, 1, length, random_).run(steps, {qkv}, 700);
  const auto split = AttentionRun(*three, params, DType::kBFloat16, 1, length, random_).run(steps, {qkv}, 700);
  EXPECT_EQ(std::memcmp(expected[0].data(), split[0].data(), expected[0].size() * 4), 0) << random_.seed();
}

TEST_P(CpuBackendTest, AttentionOverTheCacheAgreesWithReference) {
  // Ops together, against plain arrays: q and k rotated, keys and values rounded to bf16, one sequence in chunks.
  AttentionParams params;
  params.num_heads = 6;
  params.num_kv_heads = 2;
  params.head_dim = 32;
  params.scale = 0.3f;
  const int32_t length = 290;
  const size_t dim = 32, width = 10 * dim;
  auto qkv = random_.normals(static_cast<int64_t>(length * width));
  auto b = backend(2);
  const auto out = AttentionRun(*b, params, DType::kBFloat16, 1, length, random_)
                       .run({{{0, 100}}, {{0, 7}}, {{0, 183}}}, {qkv}, 0)[0];
  for (size_t head = 0; head < 6; ++head) {
    std::vector<double> keys, values;
    for (size_t p = 0; p < static_cast<size_t>(length); ++p) {
      const auto at = [&](size_t h) { return qkv.begin() + static_cast<int64_t>(p * width + h * dim); };
      std::vector<double> key(at(6 + head / 3), at(7 + head / 3)), query(at(head), at(head + 1));
      kernels::ref::rope(key, static_cast<int64_t>(p), 32, 10000.0);
      kernels::ref::rope(query, static_cast<int64_t>(p), 32, 10000.0);
      if (GetParam() == "avx512_bf16") {  // where queries are rounded like keys
        for (double& q : query) q = kernels::ref::f32_of_bf16(kernels::ref::bf16_of_f32(static_cast<float>(q)));
      }
      for (const double k : key)
        keys.push_back(kernels::ref::f32_of_bf16(kernels::ref::bf16_of_f32(static_cast<float>(k))));
      for (auto v = at(8 + head / 3); v != at(9 + head / 3); ++v)
        values.push_back(kernels::ref::f32_of_bf16(kernels::ref::bf16_of_f32(*v)));
      const auto expected = kernels::ref::attention(query, keys, values, static_cast<int64_t>(p), {0.3f, 0, 0});
      for (size_t d = 0; d < dim; ++d) {
        // A key or query whose fp32 rotation lands on the other side of a bf16 rounding boundary moves by 2^-8 of itself; the chance is about
        // 2^-14 per element, its effect on a score at most 2^-8 * 0.3 |q k|: far inside 5e-3 for these sizes.
        ASSERT_NEAR(out[p * 2 * 6 * dim + head * dim + d], expected[d], 5e-3) << p << " seed " << random_.seed();
      }
    }
  }
}

TEST_P(CpuBackendTest, RowOpsDoNotDependOnThreadsOrBatch) {
  const int64_t rows = 61, cols = 576;
  auto x = random_.normals(rows * 2 * cols), weight = random_.normals(cols), other = random_.normals(rows * cols);
  std::vector<std::vector<float>> results;
  for (const int64_t threads : {1, 2, 3}) {
    auto b = backend(threads);
    std::vector<float> silu(static_cast<size_t>(rows * cols)), norm(silu.size()), residual = other, sum = other,
                                                                                  biased = other;
    b->activation_mul(tensor(x, rows, 2 * cols), Activation::kSilu, tensor(silu, rows, cols));
    b->add_rms_norm(tensor(residual, rows, cols), tensor(silu, rows, cols), weight.data(), 1e-5f,
                    tensor(norm, rows, cols));
    b->add(tensor(sum, rows, cols), tensor(silu, rows, cols));
    b->add_bias(tensor(biased, rows, cols), weight.data());
    std::vector<float> gathered(static_cast<size_t>(3 * cols)), normed(gathered.size());
    const std::vector<int32_t> indices = {60, 0, 60};
    plan_without_attention(*b, {}, indices);
    b->gather_logits_rows(tensor(norm, rows, cols), tensor(gathered, 3, cols));
    EXPECT_EQ(std::memcmp(gathered.data(), norm.data() + 60 * cols, static_cast<size_t>(cols) * 4), 0);
    EXPECT_EQ(std::memcmp(gathered.data() + cols, norm.data(), static_cast<size_t>(cols) * 4), 0);
    b->rms_norm(tensor(gathered, 3, cols), weight.data(), 1e-5f, tensor(normed, 3, cols));
    // The last row alone.
    std::vector<float> last_silu(static_cast<size_t>(cols));
    Tensor last{x.data() + 60 * 2 * cols, DType::kFloat32, 1, 2 * cols, 2 * cols};
    b->activation_mul(last, Activation::kSilu, tensor(last_silu, 1, cols));
    EXPECT_EQ(std::memcmp(last_silu.data(), silu.data() + 60 * cols, static_cast<size_t>(cols) * 4), 0);
    std::vector<float> all;
    for (const auto* part : {&silu, &norm, &residual, &sum, &biased, &normed})
      all.insert(all.end(), part->begin(), part->end());
    results.push_back(all);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

INSTANTIATE_TEST_SUITE_P(All, CpuBackendTest, testing::ValuesIn(available_isas()),
                         [](const auto& test) { return test.param; });

TEST(CpuBackendInput, UnknownInstructionSetIsRefusedWithWhatThereIs) {
  setenv("SEXTANT_CPU_ISA", "sse9", 1);
  const auto backend = make_cpu_backend({});
  unsetenv("SEXTANT_CPU_ISA");
  ASSERT_FALSE(backend.ok());
  EXPECT_EQ(backend.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(backend.status().message(), HasSubstr("\"sse9\"; this CPU has: generic"));
}

TEST(CpuBackendInput, ThreadCountsOutOfRange) {
  for (const int64_t threads : {int64_t{-1}, int64_t{1025}, std::numeric_limits<int64_t>::max()}) {
    DeviceConfig config;
    config.num_threads = threads;
    const auto backend = make_cpu_backend(config);
    ASSERT_FALSE(backend.ok());
    EXPECT_EQ(backend.status().param(), "num_threads");
  }
}

class CpuBackendRefusals : public testing::Test {
 protected:
  std::unique_ptr<Backend> backend_ = backend_for("generic", 1);
};

TEST_F(CpuBackendRefusals, Matrices) {
  const std::vector<std::byte> data(4096);
  const auto status = [&](WeightType type, int64_t rows, int64_t cols, size_t bytes) {
    const HostMatrix part{type, rows, cols, std::span(data).first(bytes)};
    return backend_->make_matrix({&part, 1}).status();
  };
  EXPECT_TRUE(status(WeightType::kQ4_1, 2, 32, 40).ok());
  EXPECT_EQ(backend_->make_matrix({}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status(WeightType::kIQ2XS, 1, 256, 74).message(), HasSubstr("IQ2_XS"));
  EXPECT_THAT(status(WeightType::kQ4_1, 2, 33, 40).message(), HasSubstr("multiple of 32"));
  EXPECT_EQ(status(WeightType::kQ4_1, 2, 32, 39).code(), StatusCode::kDataLoss);
  EXPECT_EQ(status(WeightType::kF32, 3, 32, 4096).code(), StatusCode::kDataLoss);
  for (const int64_t bad : {int64_t{0}, int64_t{-1}, int64_t{1} << 50, std::numeric_limits<int64_t>::max()}) {
    EXPECT_FALSE(status(WeightType::kF32, bad, 4, 16).ok());
    EXPECT_FALSE(status(WeightType::kF32, 4, bad, 16).ok());
  }
  const std::vector<HostMatrix> parts = {{WeightType::kF32, 1, 4, std::span(data).first(16)},
                                         {WeightType::kF32, 1, 5, std::span(data).first(20)}};
  EXPECT_THAT(backend_->make_matrix(parts).status().message(), HasSubstr("cannot be stacked"));
}

TEST_F(CpuBackendRefusals, Caches) {
  const KvCacheLayout good{1, 4, 16, 2, 64, DType::kBFloat16};
  ASSERT_TRUE(backend_->make_kv_cache(good).ok());
  const auto refused = [&](auto change) {
    KvCacheLayout layout = good;
    change(layout);
    return !backend_->make_kv_cache(layout).ok();
  };
  EXPECT_TRUE(refused([](KvCacheLayout& l) { l.block_size = 8; }));
  EXPECT_TRUE(refused([](KvCacheLayout& l) { l.block_size = 0; }));
  EXPECT_TRUE(refused([](KvCacheLayout& l) { l.block_size = 1 << 30; }));
  EXPECT_TRUE(refused([](KvCacheLayout& l) { l.head_dim = 0; }));
  EXPECT_TRUE(refused([](KvCacheLayout& l) { l.head_dim = 20; }));
  EXPECT_TRUE(refused([](KvCacheLayout& l) { l.head_dim = 512; }));
  EXPECT_TRUE(refused([](KvCacheLayout& l) { l.num_layers = 0; }));
  EXPECT_TRUE(refused([](KvCacheLayout& l) { l.num_blocks = -3; }));
  EXPECT_TRUE(refused([](KvCacheLayout& l) { l.num_kv_heads = 0; }));
  EXPECT_TRUE(refused([](KvCacheLayout& l) { l.dtype = DType::kFloat8E4M3; }));
  EXPECT_TRUE(refused(
      [](KvCacheLayout& l) { l.num_blocks = l.num_layers = l.num_kv_heads = std::numeric_limits<int32_t>::max(); }));
}

// With --dtype bfloat16 bf16 weights meet rounded activations where the CPU multiplies pairs of bf16, else as ever; other weights, and all
// with auto, as ever. In every batch the same.
TEST(CpuBackendProducts, InBf16WhereItIsAskedFor) {
  Random random;
  const int64_t rows = 70, cols = 96, tokens = 130;
  for (const std::string& isa : available_isas()) {
    SCOPED_TRACE(isa + ", seed " + std::to_string(random.seed()));
    std::vector<uint16_t> weights;
    for (const float w : random.normals(rows * cols)) weights.push_back(kernels::ref::bf16_of_f32(w));
    std::vector<float> x = random.normals(tokens * cols), rounded, plain_weights;
    for (const float value : x) rounded.push_back(kernels::ref::f32_of_bf16(kernels::ref::bf16_of_f32(value)));
    for (const uint16_t w : weights) plain_weights.push_back(kernels::ref::f32_of_bf16(w));
    const auto product = [&](std::optional<DType> dtype, WeightType type, std::vector<float>& input, int64_t first,
                             int64_t count) {
      const std::unique_ptr<Backend> backend = backend_for(isa, 2);
      BackendNeeds needs;
      needs.dtype = dtype;
      backend->adopt(needs);
      const auto bytes =
          type == WeightType::kBF16 ? std::as_bytes(std::span(weights)) : std::as_bytes(std::span(plain_weights));
      const HostMatrix part{type, rows, cols, bytes};
      const auto matrix = backend->make_matrix({&part, 1});
      EXPECT_TRUE(matrix.ok());
      std::vector<float> out(static_cast<size_t>(count * rows));
      const Tensor in = tensor(input, tokens, cols).row_range(first, count);
      const Tensor to = tensor(out, count, rows);
      backend->by_rows(count, [&](Backend& ops, int64_t begin, int64_t num, int64_t) {
        ops.matmul(**matrix, in.row_range(begin, num), to.row_range(begin, num));
      });
      return out;
    };
    const std::vector<float> asked = product(DType::kBFloat16, WeightType::kBF16, x, 0, tokens);
    const std::vector<float> as_ever = product({}, WeightType::kBF16, x, 0, tokens);
    const bool has_pairs = isa == "avx512_bf16";
    EXPECT_EQ(asked == as_ever, !has_pairs);
    EXPECT_EQ(product(DType::kFloat32, WeightType::kBF16, x, 0, tokens), as_ever);
    EXPECT_EQ(product(DType::kBFloat16, WeightType::kF32, x, 0, tokens), product({}, WeightType::kF32, x, 0, tokens));
    if (has_pairs) {
      EXPECT_EQ(asked, product(DType::kBFloat16, WeightType::kBF16, rounded, 0, tokens));
    }
    for (const int64_t row : {int64_t{0}, int64_t{13}, tokens - 1}) {
      const std::vector<float> alone = product(DType::kBFloat16, WeightType::kBF16, x, row, 1);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), asked.begin() + row * rows)) << "row " << row;
    }
  }
}

TEST_F(CpuBackendRefusals, Needs) {
  BackendNeeds needs;
  needs.weight_types = {WeightType::kQ4_1, WeightType::kF32};
  const AttentionParams good = {9, 3, 64, 0.125f, 0, 0};
  const auto with = [&](void (*change)(AttentionParams&)) {
    AttentionParams changed = good;
    change(changed);
    return changed;
  };
  needs.attention = good;
  EXPECT_TRUE(backend_->supports(needs).ok());
  BackendNeeds other = needs;
  other.weight_types.push_back(WeightType::kIQ2XS);
  EXPECT_THAT(backend_->supports(other).message(), HasSubstr("IQ2_XS"));
  other = needs;
  other.attention = with([](AttentionParams& a) { a.num_kv_heads = 2; });
  EXPECT_FALSE(backend_->supports(other).ok());
  other.attention = with([](AttentionParams& a) { a.num_kv_heads = 0; });
  EXPECT_FALSE(backend_->supports(other).ok());
  other.attention = with([](AttentionParams& a) { a.head_dim = 63; });
  EXPECT_FALSE(backend_->supports(other).ok());
  other.attention = AttentionKinds({good, with([](AttentionParams& a) { a.sliding_window = 16; })});
  EXPECT_TRUE(backend_->supports(other).ok());
  other.attention = AttentionKinds({good, with([](AttentionParams& a) { a.num_kv_heads = 1; })});
  EXPECT_THAT(backend_->supports(other).message(), HasSubstr("different heads"));
  other = needs;
  other.kv_cache_dtype = DType::kFloat16;
  EXPECT_EQ(backend_->supports(other).param(), "kv_cache_dtype");
}

TEST_F(CpuBackendRefusals, MemoryThatDoesNotExist) {
  EXPECT_EQ(backend_->allocate(std::numeric_limits<size_t>::max()).status().code(), StatusCode::kDeviceError);
  EXPECT_EQ(backend_->allocate(size_t{1} << 60).status().code(), StatusCode::kDeviceError);
  auto buffer = backend_->allocate(100);
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ((*buffer)->size_bytes(), 100u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>((*buffer)->data()) % 64, 0u);
  EXPECT_TRUE(backend_->allocate(0).ok());
}

TEST(CpuBackend, ParallelForRunsOnThePool) {
  auto backend = backend_for("generic", 3);
  std::vector<int> seen(1000, 0);
  backend->parallel_for(1000, 10, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
  });
  EXPECT_EQ(seen, std::vector<int>(1000, 1));
}

}  // namespace
}  // namespace sextant
