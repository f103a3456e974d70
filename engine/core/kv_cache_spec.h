// KvCacheSpec: what the KV cache of a model holds, per group of layers. Plain data; most models have one full group.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/dtype.h"

namespace sextant {

enum class KvCacheKind { kFull, kSliding, kLatent, kState };

struct KvCacheGroup {
  KvCacheKind kind = KvCacheKind::kFull;
  std::vector<int32_t> layers;  // model layers of this group, ascending
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;  // of K; V has the same unless v_head_dim says otherwise
  int32_t v_head_dim = 0;
  int32_t sliding_window = 0;  // tokens, kSliding only
  DType dtype = DType::kBFloat16;

  // Bytes of one token's K and V over all layers of the group, with the scales of a type that has some.
  int64_t bytes_per_slot() const {
    return static_cast<int64_t>(layers.size()) * num_kv_heads *
           static_cast<int64_t>((head_dim + v_head_dim) * dtype_size(dtype) + kv_scale_bytes(dtype));
  }
};

struct KvCacheSpec {
  int32_t block_size = 16;  // token slots in a block
  std::vector<KvCacheGroup> groups;

  int64_t bytes_per_block() const {
    int64_t bytes = 0;
    for (const KvCacheGroup& group : groups) bytes += group.bytes_per_slot() * block_size;
    return bytes;
  }
};

}  // namespace sextant
