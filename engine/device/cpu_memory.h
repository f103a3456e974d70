// Memory of the CPU backend: zeroed, aligned to 64 bytes, on huge pages where the system gives them.
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
  CpuBuffer(void* data, size_t size_bytes, size_t mapped_bytes)
      : data_(data), size_bytes_(size_bytes), mapped_bytes_(mapped_bytes) {}

  void* data_;
  size_t size_bytes_;
  size_t mapped_bytes_;
};

}  // namespace sextant
