// RandomAccessFile: an open regular file read at given offsets with pread. Never maps the file.
// Threads: read_at may be called from any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "engine/base/result.h"

namespace sextant {

class RandomAccessFile {
 public:
  // kNotFound when there is none; anything that is not a regular file is refused (a FIFO does not block).
  static Result<RandomAccessFile> open(const std::string& path);

  RandomAccessFile(RandomAccessFile&& other) noexcept;
  RandomAccessFile& operator=(RandomAccessFile&& other) noexcept;
  ~RandomAccessFile();

  const std::string& path() const { return path_; }
  // When it was opened; it may have shrunk since, which read_at reports.
  uint64_t size() const { return size_; }

  // Fills `out` or fails: kDataLoss when the file ends first, kUnavailable when the disk fails.
  Status read_at(uint64_t offset, std::span<std::byte> out) const;

 private:
  RandomAccessFile(std::string path, int descriptor, uint64_t size)
      : path_(std::move(path)), descriptor_(descriptor), size_(size) {}

  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

}  // namespace sextant
