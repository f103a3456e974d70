// Anonymous mappings: zeroed by the system, returned to it whole.
#include "engine/device/cpu_memory.h"

#include <sys/mman.h>

#include <limits>
#include <string>

namespace sextant {

Result<std::unique_ptr<CpuBuffer>> CpuBuffer::create(size_t size_bytes) {
  constexpr size_t kPage = 4096, kHugePage = size_t{2} << 20;
  const Status too_large(StatusCode::kDeviceError,
                         "the system does not provide " + std::to_string(size_bytes) + " bytes of memory");
  if (size_bytes > std::numeric_limits<size_t>::max() / 2) return too_large;
  const size_t mapped_bytes = (std::max(size_bytes, size_t{1}) + kPage - 1) / kPage * kPage;
  void* data = mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return too_large;
  if (mapped_bytes >= kHugePage) madvise(data, mapped_bytes, MADV_HUGEPAGE);  // a hint: refusal changes nothing
  return std::unique_ptr<CpuBuffer>(new CpuBuffer(data, size_bytes, mapped_bytes));
}

CpuBuffer::~CpuBuffer() { munmap(data_, mapped_bytes_); }

}  // namespace sextant
