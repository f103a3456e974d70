// Page-locked host memory: the copies of it that are enqueued read and write it when they run, not when they are called.
#include <cstdlib>
#include <cstring>

#include "kernels/simt/runtime_state.h"

namespace sextant::simt {

cudaError_t PinnedMemory::allocate(void** p, size_t bytes) {
  constexpr size_t kAlignment = 4096;
  *p = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  if (*p == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*p, 0xFF, bytes);  // what was never written is never read into a result
  const std::lock_guard lock(mutex_);
  ranges_[static_cast<const std::byte*>(*p)] = {bytes, true};
  return cudaSuccess;
}

cudaError_t PinnedMemory::free(void* p) {
  const std::lock_guard lock(mutex_);
  const auto found = ranges_.find(static_cast<const std::byte*>(p));
  if (found == ranges_.end() || !found->second.allocated) return cudaErrorInvalidValue;
  ranges_.erase(found);
  std::free(p);
  return cudaSuccess;
}

cudaError_t PinnedMemory::add(void* p, size_t bytes) {
  if (p == nullptr || bytes == 0) return cudaErrorInvalidValue;
  const std::lock_guard lock(mutex_);
  const auto* first = static_cast<const std::byte*>(p);
  if (range_of(p) != nullptr || range_of(first + bytes - 1) != nullptr) return cudaErrorHostMemoryAlreadyRegistered;
  ranges_[first] = {bytes, false};
  return cudaSuccess;
}

cudaError_t PinnedMemory::remove(void* p) {
  const std::lock_guard lock(mutex_);
  const auto found = ranges_.find(static_cast<const std::byte*>(p));
  if (found == ranges_.end() || found->second.allocated) return cudaErrorHostMemoryNotRegistered;
  ranges_.erase(found);
  return cudaSuccess;
}

const std::pair<const std::byte* const, PinnedMemory::Range>* PinnedMemory::range_of(const void* p) const {
  const auto* at = static_cast<const std::byte*>(p);
  const auto next = ranges_.upper_bound(at);
  if (next == ranges_.begin()) return nullptr;
  const auto range = std::prev(next);
  return static_cast<size_t>(at - range->first) < range->second.bytes ? &*range : nullptr;
}

bool PinnedMemory::touches(const void* p) const {
  const std::lock_guard lock(mutex_);
  return range_of(p) != nullptr;
}

bool PinnedMemory::holds(const void* p, size_t bytes) const {
  const std::lock_guard lock(mutex_);
  const auto* range = range_of(p);
  if (range == nullptr) return false;
  const auto offset = static_cast<size_t>(static_cast<const std::byte*>(p) - range->first);
  return bytes <= range->second.bytes - offset;
}

}  // namespace sextant::simt
