// Rotary position embedding of queries and keys, and the write of keys and values into the paged cache; formula in
// kernels/rope_cache.h ("NeoX" pairs (i, i + R/2) of the first R = rotary_dim elements; the others are left alone).
//
// qkv [T, num_heads head_dim_qk + num_kv_heads (head_dim_qk + head_dim_v)] of `type`, bf16 or fp16: q, k, v side by
// side, row stride in elements; q and k are rotated in place. cos, sin [num_positions, R/2] fp32, positions[t] a row of
// them. keys and values: one layer, kv_layout.h, of `type`. slots[t] = block * 16 + place; two rows of a call have
// different slots, except in block 0, whose content is never read. head_dim_*: multiples of 16; R even, 0..head_dim_qk.
// Pointers 16-byte aligned, stride a multiple of 8. Rotation is in fp32 and rounded once; the cache gets the bits that
// qkv gets.
// One block per row; a thread moves 8 elements, or 8 pairs (1 pair where R/2 is no multiple of 8). Bytes: qkv's q and k
// read and written, v read, the cache written; bound by memory.
// Determinism: a row depends on itself and its position alone. Source: Su et al., RoFormer, 2021.
#pragma once

#include <cstdint>

#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/types.h"

namespace sextant::kernels::cuda {

struct RopeCacheArgs {
  void* qkv;
  int64_t qkv_stride;
  ElementType type;
  int32_t rows;
  int32_t num_heads;
  KvLayout layout;
  int32_t rotary_dim;
  const float* cos;
  const float* sin;
  const int32_t* positions;
  const int64_t* slots;
  void* keys;
  void* values;
};
int rope_and_cache(const RopeCacheArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
