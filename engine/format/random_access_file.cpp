#include "engine/format/random_access_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace sextant {

Result<RandomAccessFile> RandomAccessFile::open(const std::string& path) {
  if (path.find('\0') != std::string::npos) return invalid_argument("a file name holds a NUL byte");
  // O_NONBLOCK: opening a FIFO without a writer must not wait; it has no meaning for regular files.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR) return not_found(path + ": no such file");
    return Status(StatusCode::kInvalidArgument, path + ": cannot open: " + std::strerror(error));
  }
  RandomAccessFile file(path, descriptor, 0);
  struct stat facts = {};
  if (::fstat(descriptor, &facts) != 0) return unavailable(path + ": " + std::strerror(errno));
  if (!S_ISREG(facts.st_mode)) {
    return invalid_argument(
        path + (S_ISDIR(facts.st_mode) ? ": is a directory, a file is needed" : ": is not a regular file"));
  }
  file.size_ = static_cast<uint64_t>(facts.st_size);
  return file;
}

RandomAccessFile::RandomAccessFile(RandomAccessFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}

RandomAccessFile& RandomAccessFile::operator=(RandomAccessFile&& other) noexcept {
  if (this == &other) return *this;
  if (descriptor_ >= 0) ::close(descriptor_);
  path_ = std::move(other.path_);
  descriptor_ = std::exchange(other.descriptor_, -1);
  size_ = other.size_;
  return *this;
}

RandomAccessFile::~RandomAccessFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Status RandomAccessFile::read_at(uint64_t offset, std::span<std::byte> out) const {
  // Also keeps offset + size within off_t.
  if (offset > size_ || out.size() > size_ - offset) {
    return data_loss(path_ + ": at byte " + std::to_string(offset) + ": " + std::to_string(out.size()) +
                     " bytes are needed, the file ends at byte " + std::to_string(size_));
  }
  constexpr size_t kChunkBytes = size_t{64} << 20;
  size_t done = 0;
  while (done < out.size()) {
    const size_t wanted = std::min(out.size() - done, kChunkBytes);
    const ssize_t got = ::pread(descriptor_, out.data() + done, wanted, static_cast<off_t>(offset + done));
    if (got > 0) {
      done += static_cast<size_t>(got);
    } else if (got == 0) {
      return data_loss(path_ + ": at byte " + std::to_string(offset + done) + ": the file became shorter while it was" +
                       " read (it had " + std::to_string(size_) + " bytes when it was opened)");
    } else if (errno != EINTR) {
      return unavailable(path_ + ": at byte " + std::to_string(offset + done) + ": " + std::strerror(errno));
    }
  }
  return ok_status();
}

}  // namespace sextant
