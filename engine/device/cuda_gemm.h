// CudaGemm: products of bf16 activations with a CudaMatrix on one stream. It chooses the path:
//   few tokens                     kernels/cuda/gemv.h, every format
//   more, bf16 weights             cuBLASLt, fp32 accumulation
//   more, quantised weights        kernels/cuda/gemm_weight_only.h
// A cuBLASLt algorithm is the heuristic's first for (N, K, bucket of T, strides, alignment), asked once: all T of a bucket
// (the powers of two from 8 on bound them) use it, so that a batch that grows by one does not change how sums are ordered.
// All paths share one workspace: products run one after another on the stream. Calls may be captured into a graph.
// Numerics (all paths): weights exact (quantised) or bf16, products exact, sums fp32, one rounding to the output's type.
// Included by cuda_* sources only; used by the rank's thread.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <array>
#include <map>
#include <memory>

#include "engine/device/cuda_matrix.h"
#include "engine/device/cuda_memory.h"

namespace sextant {

class CudaGemm {
 public:
  // What cuBLASLt may use for split sums; NVIDIA's advice for Hopper.
  static constexpr int64_t kCublasWorkspaceBytes = 32 << 20;
  static int64_t workspace_bytes(int64_t max_num_tokens, int64_t max_cols);

  // For products of at most so many tokens with matrices of at most so many columns.
  static Result<std::unique_ptr<CudaGemm>> create(int64_t max_num_tokens, int64_t max_cols);
  ~CudaGemm();
  CudaGemm(const CudaGemm&) = delete;
  CudaGemm& operator=(const CudaGemm&) = delete;

  // out[t, n] = sum over k of x[t, k] w[n, k]. x bf16 [T, K], rows at 16 bytes; out bf16 or f32 [T, N]; no overlap.
  Status multiply(const CudaMatrix& w, const Tensor& x, const Tensor& out, cudaStream_t stream);

  // Algorithms chosen so far; for tests.
  size_t num_algorithms() const { return algorithms_.size(); }

 private:
  // N, K, T (a bucket's bound, or a count that its bucket's algorithm refused), x and out strides, out type, out alignment.
  using Key = std::array<int64_t, 7>;
  CudaGemm() = default;
  Status multiply_plain(const CudaMatrix::Run& run, int64_t cols, const Tensor& x, void* out, const Tensor& out_tensor,
                        cudaStream_t stream);
  Result<cublasLtMatmulAlgo_t> algorithm(const Key& key);

  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t operation_ = nullptr;
  std::unique_ptr<CudaBuffer> workspace_;
  std::map<Key, cublasLtMatmulAlgo_t> algorithms_;
};

}  // namespace sextant
