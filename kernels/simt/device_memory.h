// DeviceMemory: the memory of one emulated device. Allocations live in one reserved range of addresses, each on pages of its
// own, and end (to 16 bytes) at a page that cannot be accessed; what is left of their pages is checked when they are freed.
// Fresh memory is filled with 0xFF: NaN in every float format. While the device is closed its memory cannot be accessed at
// all: a host that dereferences a device pointer faults.
// Threads: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace sextant::simt {

enum class Protection : uint8_t {
  kOff,
  kCheap,  // while the device's allocations are few and small: mprotect takes time for each page and allocation
  kAlways,
};

class DeviceMemory {
 public:
  DeviceMemory(size_t capacity_bytes, Protection protection);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  void* allocate(size_t bytes);  // nullptr: not enough
  enum class Freed : uint8_t { kYes, kUnknownPointer, kDamaged };
  Freed free(void* p, std::string& damage);

  size_t capacity_bytes() const { return capacity_bytes_; }
  size_t used_bytes() const;
  // Whether the address belongs to this device, allocated or not.
  bool owns(const void* p) const {
    return static_cast<const std::byte*>(p) >= arena_ && static_cast<const std::byte*>(p) < arena_ + arena_bytes_;
  }
  // Whether [p, p + bytes) lies in one allocation.
  bool holds(const void* p, size_t bytes) const;
  // "16 bytes past the end of an allocation of 1024 bytes"
  std::string describe(const void* p) const;

  void open();   // before the device's work runs
  void close();  // after it
  // What was written beside an allocation; empty: nothing. Looks only where that is cheap, or always with `thorough`.
  std::string find_damage(bool thorough);

 private:
  struct Allocation {
    std::byte* pages;
    size_t pages_bytes;
    size_t bytes;
  };
  bool is_protected() const;
  void set_access(const std::byte* pages, size_t bytes, bool allowed) const;
  std::string damage_of(const std::byte* base, const Allocation& allocation) const;

  const size_t capacity_bytes_;
  const Protection protection_;
  size_t page_ = 0;
  std::byte* arena_ = nullptr;
  size_t arena_bytes_ = 0;
  mutable std::mutex mutex_;
  std::map<std::byte*, Allocation> allocations_;  // by their first byte
  std::map<std::byte*, size_t> free_;             // ranges of pages by address
  size_t used_bytes_ = 0;
  bool open_ = false;
  bool accessible_ = true;  // whether the allocations' pages can be accessed now
};

}  // namespace sextant::simt
