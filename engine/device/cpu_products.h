// CpuProducts: matrix products of one CpuBackend on its pool: first the activations in the order (and type) that the weights read, then
// the panels, shared between threads. On the engine's thread.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "engine/device/backend.h"
#include "engine/device/cpu_matrix.h"
#include "engine/device/cpu_memory.h"
#include "engine/device/thread_pool.h"
#include "kernels/cpu/kernel_table.h"

namespace sextant {

class CpuProducts {
 public:
  CpuProducts(const kernels::cpu::KernelTable& kernels, ThreadPool& pool, int64_t tokens_per_pass)
      : kernels_(kernels), pool_(pool), tokens_per_pass_(tokens_per_pass) {}

  // Rounds what bf16 weights are multiplied with to bf16, where the instruction set has products of bf16 pairs; before prepare().
  void compute_in_bf16() { in_bf16_ = kernels_.matmul_bf16 != nullptr; }
  bool computes_in_bf16() const { return in_bf16_; }
  // Makes room for the inputs of a matrix; before its first product.
  Status prepare(const CpuMatrix& matrix);
  int64_t input_bytes() const;

  void begin_step() { num_products_ = 0; }
  // out [x.rows, matrix.rows()] = x [., matrix.cols()] times the matrix.
  void multiply(const CpuMatrix& matrix, const Tensor& x, const Tensor& out);

 private:
  kernels::MatmulInputKind input_kind(kernels::PanelType type) const {
    return in_bf16_ && type == kernels::PanelType::kBF16 ? kernels::MatmulInputKind::kBf16
                                                         : kernels::matmul_input_kind(type);
  }
  CpuBuffer* input(kernels::MatmulInputKind kind) const { return inputs_[static_cast<size_t>(kind)].get(); }
  void multiply_pass(const CpuMatrix& matrix, const Tensor& x, const Tensor& out);
  void expect_the_product_after(const CpuMatrix& matrix);
  void bring_in(kernels::MatmulInputKind kind, const Tensor& x);
  void multiply_panels(const CpuMatrix& matrix, int64_t begin, int64_t end, int64_t num_tokens, const Tensor& out);

  struct Weights {
    const uint8_t* begin;
    int64_t bytes_of_thread;
  };

  const kernels::cpu::KernelTable& kernels_;
  ThreadPool& pool_;
  const int64_t tokens_per_pass_;
  bool in_bf16_ = false;
  std::array<std::unique_ptr<CpuBuffer>, kernels::kNumMatmulInputKinds> inputs_;  // of the product that runs
  std::vector<Weights> products_;  // shared ones, in their order; of matrices that may be gone, hence never read
  size_t num_products_ = 0;        // so far in this step
};

}  // namespace sextant
