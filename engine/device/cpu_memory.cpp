// Anonymous mappings: zeroed by the system, returned to it whole.
#include "engine/device/cpu_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <limits>
#include <string>

namespace sextant {

Result<std::unique_ptr<CpuBuffer>> CpuBuffer::create(size_t size_bytes) {
  constexpr size_t kPage = 4096, kHugePage = size_t{2} << 20;
  const Status too_large(StatusCode::kDeviceError,
                         "the system does not provide " + std::to_string(size_bytes) + " bytes of memory");
  if (size_bytes > std::numeric_limits<size_t>::max() / 2) return too_large;
  const size_t mapped_bytes = (std::max(size_bytes, size_t{1}) + kPage - 1) / kPage * kPage;
  // Older kernels put a mapping anywhere: what stands before its first huge page and after its end goes back.
  const size_t surplus = mapped_bytes >= kHugePage ? kHugePage - kPage : 0;
  void* mapped = mmap(nullptr, mapped_bytes + surplus, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return too_large;
  auto* data = static_cast<uint8_t*>(mapped);
  if (surplus > 0) {
    const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(mapped) % kHugePage) % kHugePage;
    data += before;
    if (before > 0) munmap(mapped, before);
    if (surplus > before) munmap(data + mapped_bytes, surplus - before);
  }
  if (mapped_bytes >= kHugePage) madvise(data, mapped_bytes, MADV_HUGEPAGE);  // a hint: refusal changes nothing
  return std::unique_ptr<CpuBuffer>(new CpuBuffer(data, size_bytes, mapped_bytes));
}

CpuBuffer::~CpuBuffer() {
  if (mapped_bytes_ > 0) munmap(data_, mapped_bytes_);
}

Result<std::unique_ptr<CpuBuffer>> CpuArena::create(size_t size_bytes) {
  constexpr size_t kAlignment = 64;
  if (size_bytes > kMappedBytes / 2) return CpuBuffer::create(size_bytes);
  if (current_ == nullptr || kMappedBytes - used_bytes_ < size_bytes) {
    Result<std::unique_ptr<CpuBuffer>> mapped = CpuBuffer::create(kMappedBytes);
    if (!mapped.ok()) return CpuBuffer::create(size_bytes);  // less may still be there
    current_ = std::move(*mapped);
    used_bytes_ = 0;
  }
  auto* data = static_cast<uint8_t*>(current_->data()) + used_bytes_;
  used_bytes_ = std::min(kMappedBytes, (used_bytes_ + size_bytes + kAlignment - 1) / kAlignment * kAlignment);
  return std::unique_ptr<CpuBuffer>(new CpuBuffer(data, size_bytes, current_));
}

}  // namespace sextant
