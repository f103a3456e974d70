// A file in memory with a path, for tests that rewrite one thousands of times. Linux.
#pragma once

#include <sys/mman.h>
#include <unistd.h>
#include <string>
#include <string_view>

namespace sextant {

class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content = {}) : descriptor_(::memfd_create("test", MFD_CLOEXEC)) {
    write(content);
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }
  // False when the system did not do it.
  bool write(std::string_view content) {
    return ::pwrite(descriptor_, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()) &&
           truncate(content.size());
  }
  bool truncate(size_t num_bytes) { return ::ftruncate(descriptor_, static_cast<off_t>(num_bytes)) == 0; }

 private:
  int descriptor_;
};

}  // namespace sextant
