// WeightLoader: the tensors of one model under the names of its file, checked against the shapes that its facts imply, as
// host copies that the backend repacks. Names are Hugging Face's; GGUF's are translated here.
// Thread: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/device/backend.h"
#include "engine/format/tensor_source.h"
#include "engine/model/fp8_checkpoint.h"

namespace sextant {

struct HostTensor {
  WeightType type = WeightType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<std::byte> data;
  Fp8Scales scales = {};  // of F8_E4M3

  HostMatrix view() const { return {type, rows, cols, data, scales.values, scales.block_rows, scales.block_cols}; }
};

// Rows [row_begin, row_end) and columns [col_begin, col_end) of a matrix, on whole blocks; -1: to the end.
struct MatrixPart {
  int64_t row_begin = 0;
  int64_t row_end = -1;
  int64_t col_begin = 0;
  int64_t col_end = -1;
};

class WeightLoader {
 public:
  struct Options {
    bool gguf_names = false;      // the source is a GGUF file
    bool as_bfloat16 = false;     // F32 and F16 matrices are rounded to BF16 (--dtype bfloat16)
    int64_t fp8_scale_block = 0;  // ModelConfig's
  };
  // `source` outlives the loader.
  WeightLoader(const TensorSource& source, Options options);
  // Random weights: N(0, 0.02) matrices of `type` (F32 or BF16), ones for norms, zeros for biases. The same for one seed.
  static WeightLoader dummy(WeightType type, int64_t seed);

  // A part of a [rows, cols] matrix as stored, F8_E4M3 with its scales; only its bytes are read.
  Result<HostTensor> read_matrix(std::string_view name, int64_t rows, int64_t cols, const MatrixPart& part = {});
  // A vector of any plain type as fp32.
  Result<std::vector<float>> read_vector(std::string_view name, int64_t size);

  // The types that matrices are stored in, after as_bfloat16.
  std::vector<WeightType> matrix_types() const;
  uint64_t bytes_read() const { return bytes_done_; }
  // Called with bytes read so far and in all, after each tensor.
  void set_progress(std::function<void(uint64_t done, uint64_t total)> progress) { progress_ = std::move(progress); }

 private:
  explicit WeightLoader(WeightType dummy_type, int64_t seed);
  Result<const TensorInfo*> find(std::string_view name) const;
  Result<HostTensor> read_part(const TensorInfo& info, const MatrixPart& part);
  std::string file_name(std::string_view name) const;
  HostTensor random_matrix(std::string_view name, int64_t cols, const MatrixPart& part) const;
  void report(uint64_t num_bytes);

  const TensorSource* source_ = nullptr;
  Options options_;
  WeightType dummy_type_ = WeightType::kBF16;
  int64_t seed_ = 0;
  uint64_t bytes_done_ = 0;
  uint64_t bytes_total_ = 0;
  std::function<void(uint64_t, uint64_t)> progress_;
};

// Q and K rows stored for RoPE over adjacent pairs (2i, 2i+1), as GGUF's llama files do, into the order for pairs
// (i, i + head_dim/2), head by head. Rows only move: blocks stay as they are.
void uninterleave_rope_rows(HostTensor& matrix, int64_t num_heads, int64_t head_dim);

}  // namespace sextant
