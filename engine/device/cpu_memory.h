// Memory of the CPU backend: zeroed, aligned to 64 bytes, on huge pages where the system gives them. A matrix of a small model is less
// than a huge page: CpuArena lays such buffers side by side, so that a walk over all weights meets few pages. No locks: an arena is its
// backend's.
#pragma once

#include <cstddef>
#include <memory>

#include "engine/base/result.h"
#include "engine/device/backend.h"

namespace sextant {

class CpuBuffer final : public DeviceBuffer {
 public:
  // Pages are not touched before they are used: a large buffer costs address space only until then.
  static Result<std::unique_ptr<CpuBuffer>> create(size_t size_bytes);
  ~CpuBuffer() override;
  CpuBuffer(const CpuBuffer&) = delete;
  CpuBuffer& operator=(const CpuBuffer&) = delete;

  void* data() override { return data_; }
  size_t size_bytes() const override { return size_bytes_; }

 private:
  friend class CpuArena;
  CpuBuffer(void* data, size_t size_bytes, size_t mapped_bytes)
      : data_(data), size_bytes_(size_bytes), mapped_bytes_(mapped_bytes) {}
  CpuBuffer(void* data, size_t size_bytes, std::shared_ptr<CpuBuffer> part_of)
      : data_(data), size_bytes_(size_bytes), mapped_bytes_(0), part_of_(std::move(part_of)) {}

  void* data_;
  size_t size_bytes_;
  size_t mapped_bytes_;  // 0: of part_of_
  std::shared_ptr<CpuBuffer> part_of_;
};

// Buffers that are made together and stay about as long: a mapping returns to the system with the last of its buffers.
class CpuArena {
 public:
  static constexpr size_t kMappedBytes = size_t{32} << 20;

  // Larger ones than half of kMappedBytes get a mapping of their own.
  Result<std::unique_ptr<CpuBuffer>> create(size_t size_bytes);

 private:
  std::shared_ptr<CpuBuffer> current_;
  size_t used_bytes_ = 0;  // of current_
};

}  // namespace sextant
