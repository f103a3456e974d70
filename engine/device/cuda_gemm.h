// CudaGemm: products of bf16 or fp16 activations with a CudaMatrix on one stream. It chooses the path:
//   few tokens                     kernels/cuda/gemv.h, every format; of e4m3 weights x stays as it is (W8A16)
//   more, plain weights            cuBLASLt in their type, which is that of x; fp32 accumulation
//   more, e4m3 weights row-major   cuBLASLt on both in e4m3 (W8A8): x is quantised by kernels/cuda/quantize_f8.h, per token where
//                                  weights have scales of rows (9.0), per token and 128 columns where of blocks (9.0), else per
//                                  tensor. With blocks cuBLASLt takes tokens in fours; the last three at most go to the GEMV.
//   more, weights in tiles         kernels/cuda/gemm_weight_only.h
// A cuBLASLt algorithm is the heuristic's first for (N, K, bucket of T, strides, alignment), asked once: all T of a bucket
// (the powers of two from 8 on bound them) use it, so that a batch that grows by one does not change how sums are ordered.
// All paths share one workspace: products run one after another on the stream. Calls may be captured into a graph.
// Numerics (all paths): weights exact (quantised) or of x's type, products exact, sums fp32, one rounding to the output's type
// (a sum beyond fp16's 65504 becomes infinity). W8A8 alone
// rounds x, to four bits of significand (quantize_f8.h's bound): there a batch of more tokens is less exact than a few.
// Included by cuda_* sources only; used by the rank's thread.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <array>
#include <map>
#include <memory>
#include <optional>

#include "engine/device/cuda_matrix.h"
#include "engine/device/cuda_memory.h"

namespace sextant {

class CudaGemm {
 public:
  // What cuBLASLt may use for split sums; NVIDIA's advice for Hopper.
  static constexpr int64_t kCublasWorkspaceBytes = 32 << 20;
  static int64_t workspace_bytes(int64_t max_num_tokens, int64_t max_cols, F8Products f8_products);

  // For products of at most so many tokens with matrices of at most so many columns.
  static Result<std::unique_ptr<CudaGemm>> create(int64_t max_num_tokens, int64_t max_cols,
                                                  F8Products f8_products = F8Products::kNone);
  ~CudaGemm();
  CudaGemm(const CudaGemm&) = delete;
  CudaGemm& operator=(const CudaGemm&) = delete;

  // out[t, n] = sum over k of x[t, k] w[n, k]. x bf16 or fp16 [T, K], rows at 16 bytes; out of its type or f32 [T, N]; no overlap.
  // Plain weights are of x's type.
  Status multiply(const CudaMatrix& w, const Tensor& x, const Tensor& out, cudaStream_t stream);

  // Algorithms chosen so far; for tests.
  size_t num_algorithms() const { return algorithms_.size(); }

 private:
  // Which operation, N, K, T (a bucket's bound, or a count that its bucket's algorithm refused), x and out strides, types of x and
  // out, alignment of out.
  using Key = std::array<int64_t, 9>;
  enum Operation : uint8_t { kPlain, kF8Tensor, kF8Rows, kF8Blocks };
  static constexpr int kNumOperations = 4;
  // What a product is of, once its operands are as cuBLASLt takes them.
  struct LibraryProduct {
    Operation operation;
    const CudaMatrix::Run* run;
    int64_t cols;
    const void* x;
    int64_t x_stride;
    cudaDataType_t x_type;  // and of the weights
    int64_t tokens;
    void* out;
    int64_t out_stride;
    cudaDataType_t out_type;
  };
  CudaGemm() = default;
  Status multiply_by_library(const LibraryProduct& product, cudaStream_t stream);
  // `quantized` says what the workspace holds of x already.
  Status multiply_f8(const CudaMatrix::Run& run, const Tensor& x, void* to, const Tensor& out,
                     std::optional<Operation>& quantized, cudaStream_t stream);
  Status multiply_few(const CudaMatrix::Run& run, const Tensor& x, void* to, const Tensor& out, cudaStream_t stream);
  Result<cublasLtMatmulAlgo_t> algorithm(const Key& key);

  cublasLtHandle_t handle_ = nullptr;
  std::array<cublasLtMatmulDesc_t, kNumOperations> operations_ = {};
  F8Products f8_products_ = F8Products::kNone;
  int64_t f8_tokens_ = 0, f8_cols_ = 0;  // what the workspace has room for
  std::unique_ptr<CudaBuffer> workspace_;
  std::map<Key, cublasLtMatmulAlgo_t> algorithms_;
};

}  // namespace sextant
