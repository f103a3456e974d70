// What AddressSanitizer is told about memory that the emulator hands out; nothing without it.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace sextant::simt {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressChecked = true;
inline void allow_access(const void* p, size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
inline void deny_access(const void* p, size_t bytes) { __asan_poison_memory_region(p, bytes); }
#else
inline constexpr bool kAddressChecked = false;
inline void allow_access(const void*, size_t) {}
inline void deny_access(const void*, size_t) {}
#endif

}  // namespace sextant::simt
