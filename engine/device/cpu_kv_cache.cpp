// Sizes and limits of the CPU backend's KV cache; at start only.
#include "engine/device/cpu_kv_cache.h"

#include <optional>
#include <string>

namespace sextant {
namespace {

std::optional<kernels::KvType> cell_type_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return kernels::KvType::kFp32;
    case DType::kBFloat16: return kernels::KvType::kBf16;
    case DType::kInt8: return kernels::KvType::kInt8;
    default: return std::nullopt;
  }
}

}  // namespace

Status check_head_dim(int32_t head_dim) {
  if (head_dim >= 8 && head_dim <= kernels::kMaxHeadDim && head_dim % 8 == 0) return ok_status();
  return unsupported("the CPU backend needs a head size that is a multiple of 8 up to " +
                     std::to_string(kernels::kMaxHeadDim) + "; the model's is " + std::to_string(head_dim));
}

Status check_kv_cache_dtype(DType dtype) {
  if (cell_type_of(dtype)) return ok_status();
  return unsupported(
      "the CPU backend keeps keys and values in bfloat16, float32 or int8, not " + std::string(dtype_name(dtype)),
      "kv_cache_dtype");
}

Result<std::unique_ptr<CpuKvCache>> CpuKvCache::create(const KvCacheLayout& layout) {
  RETURN_IF_ERROR(check_head_dim(layout.head_dim));
  RETURN_IF_ERROR(check_kv_cache_dtype(layout.dtype));
  if (layout.block_size < kernels::kKvTile || layout.block_size % kernels::kKvTile != 0 || layout.block_size > 1024) {
    return invalid_argument(
        "block_size must be a multiple of 16 up to 1024 on the CPU; it is " + std::to_string(layout.block_size),
        "block_size");
  }
  if (layout.num_layers < 1 || layout.num_blocks < 1 || layout.num_kv_heads < 1) {
    return invalid_argument("a KV cache needs at least one layer, one block and one head");
  }
  const kernels::KvType type = *cell_type_of(layout.dtype);
  const kernels::KvCellLayout cells{layout.block_size, layout.num_kv_heads, layout.head_dim};
  // A block is below 2^50 bytes (1024 slots, 2^31 heads, 512 elements of 4 bytes would be 2^52: checked, not trusted).
  const auto bytes = static_cast<unsigned __int128>(cells.cell_elements(type)) *
                     static_cast<unsigned>(layout.num_kv_heads) * static_cast<unsigned>(layout.num_blocks) *
                     static_cast<unsigned>(layout.num_layers) * static_cast<unsigned>(kernels::kv_element_bytes(type));
  if (bytes > (static_cast<unsigned __int128>(1) << 56)) {
    return Status(StatusCode::kDeviceError, "the KV cache asked for is larger than any memory");
  }
  ASSIGN_OR_RETURN(std::unique_ptr<CpuBuffer> buffer, CpuBuffer::create(static_cast<size_t>(bytes)));
  return std::unique_ptr<CpuKvCache>(new CpuKvCache(layout, cells, type, std::move(buffer)));
}

}  // namespace sextant
