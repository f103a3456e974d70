#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "engine/format/download.h"

namespace sextant {

Result<FileLock> FileLock::acquire(const std::string& path, const std::function<bool()>& cancelled,
                                   const std::function<void()>& on_wait) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return invalid_argument(path + ": cannot create the lock: " + std::strerror(errno));
  FileLock lock(descriptor);
  bool told = false;
  while (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return unavailable(path + ": " + std::strerror(errno));
    if (cancelled && cancelled()) return Status(StatusCode::kCancelled, "cancelled");
    if (!std::exchange(told, true) && on_wait) on_wait();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return lock;
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock::~FileLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace sextant
