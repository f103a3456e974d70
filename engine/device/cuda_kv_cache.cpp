#include "engine/device/cuda_kv_cache.h"

namespace sextant {

Result<std::unique_ptr<CudaKvCache>> CudaKvCache::create(const KvCacheLayout& layout) {
  if (layout.block_size != 16)
    return unsupported("the CUDA backend has KV cache blocks of 16 tokens only", "block_size");
  const size_t layer_bytes = static_cast<size_t>(layout.num_blocks) * static_cast<size_t>(layout.num_kv_heads) *
                             static_cast<size_t>(layout.block_size) * static_cast<size_t>(layout.head_dim) *
                             dtype_size(layout.dtype);
  std::unique_ptr<CudaKvCache> cache(new CudaKvCache(layout, layer_bytes));
  const auto num_layers = static_cast<size_t>(layout.num_layers);
  ASSIGN_OR_RETURN(cache->keys_, CudaBuffer::create(layer_bytes * num_layers));
  ASSIGN_OR_RETURN(cache->values_, CudaBuffer::create(layer_bytes * num_layers));
  return cache;
}

}  // namespace sextant
