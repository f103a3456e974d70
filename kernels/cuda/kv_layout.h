// Where the CUDA path keeps keys and values: one layer of a cache group is two arrays of 16-bit elements (bf16, fp16),
//   keys    [num_blocks][num_kv_heads][16][head_dim_qk]
//   values  [num_blocks][num_kv_heads][16][head_dim_v]
// so that one block of one head is a contiguous run (2 to 8 KB at the usual sizes) that 128-bit accesses cover, and
// that a row of it is what ldmatrix wants. Block 0 is the null block: padding rows are written there and nobody reads
// it. Slots that were never written may hold anything, NaN included. No CUDA header: engine/device sizes caches by it.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define SEXTANT_HOST_DEVICE __host__ __device__
#else
#define SEXTANT_HOST_DEVICE
#endif

namespace sextant::kernels::cuda {

inline constexpr int kBlockSlots = 16;  // slots of a block

struct KvLayout {
  int32_t num_kv_heads;
  int32_t head_dim_qk;  // of queries and keys
  int32_t head_dim_v;   // of values and outputs

  SEXTANT_HOST_DEVICE constexpr int64_t keys_per_block() const {  // elements
    return int64_t{num_kv_heads} * kBlockSlots * head_dim_qk;
  }
  SEXTANT_HOST_DEVICE constexpr int64_t values_per_block() const {
    return int64_t{num_kv_heads} * kBlockSlots * head_dim_v;
  }
  SEXTANT_HOST_DEVICE constexpr int64_t key_offset(int64_t block, int32_t head, int32_t place) const {
    return ((block * num_kv_heads + head) * kBlockSlots + place) * head_dim_qk;
  }
  SEXTANT_HOST_DEVICE constexpr int64_t value_offset(int64_t block, int32_t head, int32_t place) const {
    return ((block * num_kv_heads + head) * kBlockSlots + place) * head_dim_v;
  }
};

}  // namespace sextant::kernels::cuda
