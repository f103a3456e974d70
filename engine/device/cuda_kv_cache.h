// The KV cache of one group on a CUDA device, in the layout of kernels/cuda/kv_layout.h.
#pragma once

#include <memory>

#include "engine/base/result.h"
#include "engine/device/backend.h"
#include "engine/device/cuda_memory.h"

namespace sextant {

class CudaKvCache final : public KvCache {
 public:
  static Result<std::unique_ptr<CudaKvCache>> create(const KvCacheLayout& layout);

  size_t size_bytes() const override { return keys_->size_bytes() + values_->size_bytes(); }
  const KvCacheLayout& layout() const { return layout_; }
  void* keys(int32_t layer) const {
    return static_cast<std::byte*>(keys_->data()) + layer_bytes_ * static_cast<size_t>(layer);
  }
  void* values(int32_t layer) const {
    return static_cast<std::byte*>(values_->data()) + layer_bytes_ * static_cast<size_t>(layer);
  }

 private:
  CudaKvCache(const KvCacheLayout& layout, size_t layer_bytes) : layout_(layout), layer_bytes_(layer_bytes) {}

  KvCacheLayout layout_;
  size_t layer_bytes_;  // of keys, and of values
  std::unique_ptr<CudaBuffer> keys_;
  std::unique_ptr<CudaBuffer> values_;
};

}  // namespace sextant
