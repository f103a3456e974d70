// The launches that the GPU programs of this folder look at: each CUDA kernel with the arguments that a model of a given shape
// gives it, the bytes and operations of its contract, and, for the static gates, every other instance of the hot kernels.
// One list, so that the table of roofs, the occupancy gate and the measurements speak of the same launches. No CUDA header.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/types.h"

namespace sextant::bench {

using kernels::cuda::Stream;

struct ModelShape {
  std::string name;
  int32_t hidden;
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t intermediate;
  int32_t vocab;
  int32_t decode_batch;    // sequences of a decode step
  int32_t decode_context;  // positions that each of them sees
  int32_t long_context;    // positions of the one sequence of a split decode
  int32_t prefill_tokens;
};
ModelShape llama_8b_shape();
ModelShape tiny_shape();  // for the emulator: the same launches in milliseconds of fibres

enum class Content : uint8_t {
  kZeros,
  kBFloat16,
  kFloat32
};  // random in [-1, 1); kBFloat16 also passes for fp16 and quants

// Where a case takes its arrays from; the owner frees them after the case.
class CaseMemory {
 public:
  virtual ~CaseMemory() = default;
  virtual void* allocate(int64_t bytes, Content content) = 0;
  virtual void* upload(const void* from, int64_t bytes) = 0;

  template <typename T>
  T* upload(const std::vector<T>& values) {
    return static_cast<T*>(upload(values.data(), static_cast<int64_t>(values.size() * sizeof(T))));
  }
};

// Enqueues the op; a cudaError_t.
using Launch = std::function<int(Stream)>;

struct KernelCase {
  std::string op;     // the launcher's name
  std::string shape;  // what is special about this call
  double bytes;       // of device memory, read and written, as the contract counts them
  double flops;
  bool is_measured;  // of the standard shape; the others exist so that every instance has a launch
  std::function<Launch(CaseMemory&)> prepare;

  std::string name() const { return op + " " + shape; }
};

std::vector<KernelCase> kernel_cases(const ModelShape& shape);

// One file per family; each appends its own.
void append_matrix_cases(const ModelShape& shape, std::vector<KernelCase>& cases);
void append_attention_cases(const ModelShape& shape, std::vector<KernelCase>& cases);
void append_row_cases(const ModelShape& shape, std::vector<KernelCase>& cases);
void append_token_cases(const ModelShape& shape, std::vector<KernelCase>& cases);

inline std::string type_name(kernels::cuda::ElementType type) {
  using kernels::cuda::ElementType;
  return type == ElementType::kFloat32 ? "fp32" : type == ElementType::kBFloat16 ? "bf16" : "fp16";
}
inline int64_t type_bytes(kernels::cuda::ElementType type) {
  return type == kernels::cuda::ElementType::kFloat32 ? 4 : 2;
}
inline Content content_of(kernels::cuda::ElementType type) {
  return type == kernels::cuda::ElementType::kFloat32 ? Content::kFloat32 : Content::kBFloat16;
}

}  // namespace sextant::bench
