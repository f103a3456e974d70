// What the conformance suite of Backend needs on any device: the backends of this build and machine, matrices in device
// memory whose padding is poisoned, steps over sequences with shuffled blocks, and what one rounding to a type may
// change.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "engine/device/backend.h"
#include "engine/device/make_backend.h"
#include "kernels/ref/reference.h"
#include "tests/support/random_seed.h"

namespace sextant {

inline constexpr double kUnit = 0x1p-24;  // unit roundoff of fp32

// "cuda" or "cuda-emulated", both also with "-float16" behind them, or an instruction set of the CPU; null where there is none.
inline std::unique_ptr<Backend> make_named_backend(const std::string& name) {
  const bool is_cuda = name.starts_with("cuda"), is_float16 = name.ends_with("-float16");
  DeviceConfig config;
  config.device = is_cuda ? name.substr(0, name.size() - (is_float16 ? 8 : 0)) : "cpu";
  config.num_threads = 2;
  if (!is_cuda) setenv("SEXTANT_CPU_ISA", name.c_str(), 1);
  Result<std::unique_ptr<Backend>> backend =
      make_rank_backend(config, 0, 1, is_float16 ? DType::kFloat16 : DType::kBFloat16);
  if (!is_cuda) unsetenv("SEXTANT_CPU_ISA");
  return backend.ok() ? std::move(backend).value() : nullptr;
}

// Every backend that this build has and this machine can run.
inline std::vector<std::string> available_backends() {
  std::vector<std::string> names;
  for (const char* name :
       {"generic", "avx2", "avx512", "avx512_bf16", "cuda-emulated", "cuda-emulated-float16", "cuda", "cuda-float16"}) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    // Many times slower there, and what sanitizers look for is the same: fp16's kernels have their own tests under them.
    if (std::string_view(name).ends_with("-float16")) continue;
#endif
    if (make_named_backend(name) != nullptr) names.emplace_back(name);
  }
  return names;
}

// Unit roundoff of a type and half of its least subnormal.
inline double unit_of(DType dtype) {
  return dtype == DType::kFloat32 ? kUnit : dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-11;
}
inline double subnormal_half_of(DType dtype) { return dtype == DType::kFloat16 ? 0x1p-25 : 0x1p-134; }
inline double rounding(DType dtype, double value) {
  return std::fabs(value) * unit_of(dtype) + subnormal_half_of(dtype);
}

inline float rounded_to(DType dtype, float x) {
  switch (dtype) {
    case DType::kBFloat16: return kernels::ref::f32_of_bf16(kernels::ref::bf16_of_f32(x));
    case DType::kFloat16: return kernels::ref::f32_of_f16(kernels::ref::f16_of_f32(x));
    default: return x;
  }
}

// A row-major matrix of the host, in fp32.
struct HostRows {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<float> values;

  float at(int64_t row, int64_t col) const { return values[static_cast<size_t>(row * cols + col)]; }
  std::vector<float> row(int64_t r) const { return {values.begin() + r * cols, values.begin() + (r + 1) * cols}; }
  std::vector<double> part(int64_t r, int64_t begin, int64_t count) const {
    return {values.begin() + r * cols + begin, values.begin() + r * cols + begin + count};
  }
};

// Activations as a product with weights of `type` sees them: the CPU multiplies block-quantised weights with int8.
inline std::vector<double> seen_by(const std::string& backend, WeightType type, const HostRows& x) {
  if (is_block_quantized(type) && !backend.starts_with("cuda"))
    return kernels::ref::quantized_activations(x.values, x.rows, x.cols);
  return {x.values.begin(), x.values.end()};
}

class ConformanceTest : public testing::TestWithParam<std::string> {
 protected:
  static constexpr int32_t kBlockSize = 16;
  static constexpr int64_t kMaxVocab = 1 << 18;  // also what host_rows() can give at once

  ConformanceTest() {
    seed_ = random_seed();
    random_.seed(seed_);
  }

  void SetUp() override { make_backend_anew(); }
  // A backend that was not planned on; what was on the device before is gone.
  void make_backend_anew() {
    buffers_.clear();
    backend_ = make_named_backend(GetParam());
    ASSERT_NE(backend_, nullptr);
  }
  // Once, after the matrices are made and before the first op.
  void reserve(int64_t num_tokens, int64_t num_sequences, const AttentionKinds& attention) {
    const StepLimits limits = {.max_num_batched_tokens = num_tokens,
                               .max_num_seqs = num_sequences,
                               .max_model_len = 4096,
                               .vocab_size = kMaxVocab,
                               .block_size = kBlockSize};
    const Status status = backend_->reserve(limits, attention);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  DType act() const { return backend_->activation_dtype(); }
  // What keys and values are kept in unless somebody asks for another type.
  DType default_cache_type() const { return act() == DType::kFloat16 ? DType::kFloat16 : DType::kBFloat16; }

  int64_t uniform(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }
  std::vector<float> normals(int64_t n) {
    std::vector<float> out(static_cast<size_t>(n));
    for (float& x : out) x = std::normal_distribution<float>()(random_);
    return out;
  }
  // Numbers that `dtype` holds exactly.
  HostRows random_rows(int64_t rows, int64_t cols, DType dtype) {
    HostRows m{rows, cols, normals(rows * cols)};
    for (float& x : m.values) x = rounded_to(dtype, x);
    return m;
  }

  // In device memory, until the test ends. Rows are multiples of 16 bytes and at least as much apart: NaN before every
  // op, and after it.
  Tensor on_device(const HostRows& m, DType dtype) {
    const int64_t stride = (m.cols + 7) / 8 * 8 + 8;
    std::vector<std::byte> bytes(static_cast<size_t>(m.rows * stride) * dtype_size(dtype));
    for (int64_t r = 0; r < m.rows; ++r) {
      for (int64_t c = 0; c < stride; ++c) {
        const float x = c < m.cols ? m.at(r, c) : NAN;
        const uint16_t half = dtype == DType::kBFloat16 ? kernels::ref::bf16_of_f32(x) : kernels::ref::f16_of_f32(x);
        const void* from = dtype == DType::kFloat32 ? static_cast<const void*>(&x) : &half;
        std::memcpy(bytes.data() + static_cast<size_t>(r * stride + c) * dtype_size(dtype), from, dtype_size(dtype));
      }
    }
    return {upload(bytes), dtype, m.rows, m.cols, stride};
  }
  Tensor poisoned(int64_t rows, int64_t cols, DType dtype) {
    return on_device({rows, cols, std::vector<float>(static_cast<size_t>(rows * cols), NAN)}, dtype);
  }
  const float* floats_on_device(const std::vector<float>& values) {
    return static_cast<const float*>(upload(std::as_bytes(std::span(values))));
  }
  // Also holds the op to leaving alone what lies between rows.
  HostRows read(Tensor t) {
    const std::vector<std::byte> bytes =
        download(t.data, static_cast<size_t>(t.rows * t.row_stride) * dtype_size(t.dtype));
    HostRows m{t.rows, t.cols, {}};
    for (int64_t r = 0; r < t.rows; ++r) {
      for (int64_t c = 0; c < t.row_stride; ++c) {
        const std::byte* from = bytes.data() + static_cast<size_t>(r * t.row_stride + c) * dtype_size(t.dtype);
        float x = 0;
        uint16_t half = 0;
        if (t.dtype == DType::kFloat32) {
          std::memcpy(&x, from, sizeof x);
        } else {
          std::memcpy(&half, from, sizeof half);
          x = t.dtype == DType::kBFloat16 ? kernels::ref::f32_of_bf16(half) : kernels::ref::f32_of_f16(half);
        }
        if (c < t.cols) {
          m.values.push_back(x);
        } else {
          EXPECT_TRUE(std::isnan(x)) << "an op wrote past the end of row " << r << " seed " << seed_;
        }
      }
    }
    return m;
  }

  uint64_t seed_ = 0;
  std::mt19937_64 random_;
  std::unique_ptr<Backend> backend_;

 private:
  // host_rows() gives packed fp32; any bits can pass as that.
  std::vector<std::byte> download(void* from, size_t bytes) {
    std::vector<std::byte> out(bytes);
    for (size_t at = 0; at < bytes; at += kMaxVocab * 4) {
      const size_t count = std::min<size_t>(bytes - at, kMaxVocab * 4);
      const auto floats = static_cast<int64_t>(count / 4);
      const Result<Tensor> host =
          backend_->host_rows({static_cast<std::byte*>(from) + at, DType::kFloat32, 1, floats, floats});
      EXPECT_TRUE(host.ok()) << host.status().message();
      if (host.ok()) std::memcpy(out.data() + at, host->data, count);
    }
    return out;
  }
  void* upload(std::span<const std::byte> bytes) {
    Result<std::unique_ptr<DeviceBuffer>> buffer = backend_->allocate(bytes.size());
    EXPECT_TRUE(buffer.ok()) << buffer.status().message();
    const Status status = backend_->upload(bytes, **buffer);
    EXPECT_TRUE(status.ok()) << status.message();
    buffers_.push_back(std::move(buffer).value());
    return buffers_.back()->data();
  }

  std::vector<std::unique_ptr<DeviceBuffer>> buffers_;
};

// Sequences whose blocks are scattered over a cache, and the inputs of steps over them.
class ScatteredSequences {
 public:
  ScatteredSequences(const std::vector<int32_t>& max_lengths, std::mt19937_64& random)
      : lengths_(max_lengths.size(), 0) {
    for (const int32_t length : max_lengths) max_blocks_ = std::max(max_blocks_, (length + 15) / 16);
    num_blocks_ = static_cast<int32_t>(max_lengths.size()) * max_blocks_ + 3;
    std::vector<int32_t> ids(static_cast<size_t>(num_blocks_ - 1));
    std::iota(ids.begin(), ids.end(), 1);
    std::shuffle(ids.begin(), ids.end(), random);
    for (size_t s = 0; s < max_lengths.size(); ++s) {
      const auto first = static_cast<std::ptrdiff_t>(s) * max_blocks_;
      tables_.emplace_back(ids.begin() + first, ids.begin() + first + max_blocks_);
    }
  }
  int32_t num_blocks() const { return num_blocks_; }
  int32_t length(size_t s) const { return lengths_[s]; }

  struct Chunk {
    size_t sequence;
    int32_t tokens;
  };
  // Arrays of one step; they must live until its last op.
  struct Step {
    std::vector<int32_t> token_ids, logits_indices, cu = {0}, seq_lens, positions, tables;
    std::vector<int64_t> slots;
    int32_t max_blocks = 0;

    StepInputs inputs() const {
      StepInputs in;
      in.token_ids = token_ids;
      in.logits_indices = logits_indices;
      in.attention = {cu, seq_lens, positions, slots, tables, max_blocks};
      return in;
    }
    int64_t num_tokens() const { return cu.back(); }
  };
  Step advance(const std::vector<Chunk>& chunks) {
    Step step;
    step.max_blocks = max_blocks_;
    for (const Chunk& chunk : chunks) {
      for (int32_t i = 0; i < chunk.tokens; ++i) {
        const int32_t position = lengths_[chunk.sequence]++;
        step.positions.push_back(position);
        step.slots.push_back(int64_t{tables_[chunk.sequence][static_cast<size_t>(position / 16)]} * 16 + position % 16);
        step.token_ids.push_back(0);
      }
      const int32_t length = lengths_[chunk.sequence];
      step.cu.push_back(step.cu.back() + chunk.tokens);
      step.seq_lens.push_back(length);
      for (int32_t b = 0; b < max_blocks_; ++b) {
        step.tables.push_back(b <= (length - 1) / 16 ? tables_[chunk.sequence][static_cast<size_t>(b)] : 0);
      }
    }
    return step;
  }

 private:
  std::vector<int32_t> lengths_;
  std::vector<std::vector<int32_t>> tables_;
  int32_t max_blocks_ = 1;
  int32_t num_blocks_ = 0;
};

}  // namespace sextant
