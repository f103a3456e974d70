// Rotary position embedding of queries and keys, and the write of keys and values into the paged cache.
//
//   for i < R/2:  y[i] = x[i] cos[p, i] - x[i + R/2] sin[p, i];  y[i + R/2] = x[i + R/2] cos[p, i] + x[i] sin[p, i]
//
// R = rotary_dim, even, <= head_dim; elements past R are left alone; R = 0 rotates nothing. p = positions[t].
// qkv [T, (num_heads + 2 num_kv_heads) head_dim] fp32, q, k, v side by side, row stride qkv_stride; q and k are rotated in place.
// cos, sin [positions, R/2] fp32. cache: one layer, layout and roundings kv_layout.h.
// slots[t] = block * block_size + place. Two rows of a call have different slots, except in block 0 whose content is never read.
// One call does rows [0, rows). Bytes: qkv twice, the cache once; bound by memory or by the cache.
// Determinism: a row depends on itself and its position alone. Source: Su et al., RoFormer, 2021 ("NeoX" pairs).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kv_layout.h"

namespace sextant::kernels {

struct RopeCacheArgs {
  float* qkv;
  int64_t qkv_stride;
  int64_t rows;
  int32_t num_heads;
  KvCellLayout layout;
  int32_t rotary_dim;
  const float* cos;
  const float* sin;
  const int32_t* positions;
  const int64_t* slots;
  void* cache;
  KvType cache_type;
};

namespace cpu {
using RopeCacheFunction = void(const RopeCacheArgs& args);
}  // namespace cpu
}  // namespace sextant::kernels
