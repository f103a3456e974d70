// CpuKvCache: the K and V memory of a cache group, one run of cells (kernels/kv_layout.h) per layer.
#pragma once

#include <memory>

#include "engine/device/backend.h"
#include "engine/device/cpu_memory.h"
#include "kernels/kv_layout.h"

namespace sextant {

class CpuKvCache final : public KvCache {
 public:
  static Result<std::unique_ptr<CpuKvCache>> create(const KvCacheLayout& layout);

  size_t size_bytes() const override { return buffer_->size_bytes(); }

  const kernels::KvCellLayout& cells() const { return cells_; }
  kernels::KvType cell_type() const { return cell_type_; }
  int32_t num_layers() const { return layout_.num_layers; }
  int32_t num_blocks() const { return layout_.num_blocks; }
  void* layer_data(int32_t layer) const {
    return static_cast<std::byte*>(buffer_->data()) +
           layer * layout_.num_blocks * cells_.block_elements(cell_type_) * kernels::kv_element_bytes(cell_type_);
  }

 private:
  CpuKvCache(const KvCacheLayout& layout, kernels::KvCellLayout cells, kernels::KvType cell_type,
             std::unique_ptr<CpuBuffer> buffer)
      : layout_(layout), cells_(cells), cell_type_(cell_type), buffer_(std::move(buffer)) {}

  KvCacheLayout layout_;
  kernels::KvCellLayout cells_;
  kernels::KvType cell_type_;
  std::unique_ptr<CpuBuffer> buffer_;
};

// Why the CPU backend cannot attend with heads of this size, or ok.
Status check_head_dim(int32_t head_dim);
// Why it cannot keep keys and values in this type, or ok.
Status check_kv_cache_dtype(DType dtype);

}  // namespace sextant
