#include "kernels/simt/device_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/simt/address_check.h"

namespace sextant::simt {
namespace {

constexpr size_t kAlignment = 16;
constexpr auto kPoison = std::byte{0xFF};
// Where protection and checks count as cheap: some microseconds a time.
constexpr size_t kCheapBytes = size_t{64} << 20;
constexpr size_t kCheapAllocations = 128;

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

}  // namespace

DeviceMemory::DeviceMemory(size_t capacity_bytes, Protection protection)
    : capacity_bytes_(capacity_bytes),
      protection_(protection),
      page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))),
      // Every allocation has a guard page, and ranges fragment: addresses are cheaper than memory.
      arena_bytes_(round_up(2 * capacity_bytes + (size_t{1} << 30), page_)) {
  void* mapping = mmap(nullptr, arena_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    std::perror("simt: no addresses for a device's memory");
    std::abort();
  }
  arena_ = static_cast<std::byte*>(mapping);
  free_[arena_] = arena_bytes_;
}

DeviceMemory::~DeviceMemory() {
  allow_access(arena_, arena_bytes_);
  munmap(arena_, arena_bytes_);
}

size_t DeviceMemory::used_bytes() const {
  const std::lock_guard lock(mutex_);
  return used_bytes_;
}

bool DeviceMemory::is_protected() const {
  if (protection_ == Protection::kCheap) return used_bytes_ <= kCheapBytes && allocations_.size() <= kCheapAllocations;
  return protection_ == Protection::kAlways;
}

void DeviceMemory::set_access(const std::byte* pages, size_t bytes, bool allowed) const {
  if (mprotect(const_cast<std::byte*>(pages), bytes, allowed ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) {
    std::perror("simt: mprotect");
    std::abort();
  }
}

void* DeviceMemory::allocate(size_t bytes) {
  const std::lock_guard lock(mutex_);
  const size_t padded = round_up(std::max<size_t>(bytes, 1), kAlignment);
  if (padded > capacity_bytes_ - used_bytes_) return nullptr;
  const size_t pages_bytes = round_up(padded, page_);
  const size_t wanted = pages_bytes + page_;  // the last one is the guard
  const auto range = std::find_if(free_.begin(), free_.end(), [&](const auto& r) { return r.second >= wanted; });
  if (range == free_.end()) return nullptr;
  std::byte* pages = range->first;
  const size_t rest = range->second - wanted;
  free_.erase(range);
  if (rest > 0) free_[pages + wanted] = rest;
  set_access(pages, pages_bytes, true);
  std::memset(pages, static_cast<int>(kPoison), pages_bytes);
  std::byte* base = pages + (pages_bytes - padded);
  allocations_[base] = {pages, pages_bytes, bytes};
  used_bytes_ += padded;
  deny_access(pages, static_cast<size_t>(base - pages));
  deny_access(base + bytes, padded - bytes);
  // Memory that grew too large to protect stays accessible; otherwise the new pages follow the others.
  const bool allowed = open_ || !is_protected();
  if (allowed != accessible_) {
    for (const auto& [p, allocation] : allocations_) set_access(allocation.pages, allocation.pages_bytes, allowed);
    accessible_ = allowed;
  } else if (!allowed) {
    set_access(pages, pages_bytes, false);
  }
  return base;
}

DeviceMemory::Freed DeviceMemory::free(void* p, std::string& damage) {
  const std::lock_guard lock(mutex_);
  const auto found = allocations_.find(static_cast<std::byte*>(p));
  if (found == allocations_.end()) return Freed::kUnknownPointer;
  const Allocation allocation = found->second;
  if (!accessible_) set_access(allocation.pages, allocation.pages_bytes, true);
  damage = damage_of(found->first, allocation);
  used_bytes_ -= round_up(std::max<size_t>(allocation.bytes, 1), kAlignment);
  allocations_.erase(found);
  allow_access(allocation.pages, allocation.pages_bytes);
  madvise(allocation.pages, allocation.pages_bytes, MADV_DONTNEED);
  set_access(allocation.pages, allocation.pages_bytes, false);
  auto range = free_.emplace(allocation.pages, allocation.pages_bytes + page_).first;
  const auto after = std::next(range);
  if (after != free_.end() && range->first + range->second == after->first) {
    range->second += after->second;
    free_.erase(after);
  }
  if (range != free_.begin()) {
    const auto before = std::prev(range);
    if (before->first + before->second == range->first) {
      before->second += range->second;
      free_.erase(range);
    }
  }
  return damage.empty() ? Freed::kYes : Freed::kDamaged;
}

bool DeviceMemory::holds(const void* p, size_t bytes) const {
  const std::lock_guard lock(mutex_);
  const auto* at = static_cast<const std::byte*>(p);
  auto next = allocations_.upper_bound(const_cast<std::byte*>(at));
  if (next == allocations_.begin()) return false;
  const auto& [base, allocation] = *std::prev(next);
  const auto offset = static_cast<size_t>(at - base);
  return offset <= allocation.bytes && bytes <= allocation.bytes - offset;
}

std::string DeviceMemory::describe(const void* p) const {
  const std::lock_guard lock(mutex_);
  const auto* at = static_cast<const std::byte*>(p);
  auto next = allocations_.upper_bound(const_cast<std::byte*>(at));
  const auto size = [](const Allocation& a) { return " an allocation of " + std::to_string(a.bytes) + " bytes"; };
  // An address in the pages before an allocation's first byte is before it; else it is behind the one before.
  if (next != allocations_.end() && at >= next->second.pages) {
    return std::to_string(next->first - at) + " bytes before" + size(next->second);
  }
  if (next == allocations_.begin()) return "in no allocation";
  const auto& [base, allocation] = *std::prev(next);
  const auto offset = static_cast<size_t>(at - base);
  if (offset < allocation.bytes) return "at offset " + std::to_string(offset) + " of" + size(allocation);
  if (at >= allocation.pages + allocation.pages_bytes + (size_t{1} << 20)) return "in no allocation";
  return std::to_string(offset - allocation.bytes) + " bytes past the end of" + size(allocation);
}

void DeviceMemory::open() {
  const std::lock_guard lock(mutex_);
  open_ = true;
  if (accessible_) return;
  for (const auto& [p, allocation] : allocations_) set_access(allocation.pages, allocation.pages_bytes, true);
  accessible_ = true;
}

void DeviceMemory::close() {
  const std::lock_guard lock(mutex_);
  open_ = false;
  if (!accessible_ || !is_protected()) return;
  for (const auto& [p, allocation] : allocations_) set_access(allocation.pages, allocation.pages_bytes, false);
  accessible_ = false;
}

std::string DeviceMemory::damage_of(const std::byte* base, const Allocation& allocation) const {
  if (kAddressChecked) return "";  // AddressSanitizer stops at the access itself
  const auto other = [](std::byte b) { return b != kPoison; };
  if (std::any_of(static_cast<const std::byte*>(allocation.pages), base, other)) {
    return "something was written before the start of an allocation of " + std::to_string(allocation.bytes) + " bytes";
  }
  const std::byte* end = allocation.pages + allocation.pages_bytes;
  if (std::any_of(base + allocation.bytes, end, other)) {
    return "something was written past the end of an allocation of " + std::to_string(allocation.bytes) + " bytes";
  }
  return "";
}

std::string DeviceMemory::find_damage(bool thorough) {
  const std::lock_guard lock(mutex_);
  if (kAddressChecked || !accessible_ || (!thorough && allocations_.size() > kCheapAllocations)) return "";
  for (const auto& [base, allocation] : allocations_) {
    std::string damage = damage_of(base, allocation);
    if (!damage.empty()) return damage;
  }
  return "";
}

}  // namespace sextant::simt
