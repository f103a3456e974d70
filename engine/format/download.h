// Downloads one file so that it can be trusted when it is there: into "<name>.incomplete", resumed where it
// stopped, checked for length and SHA-256, then renamed. What arrived stays on disk when a download fails or
// is cancelled. Blocks the calling thread. Callers hold a FileLock on the directory: two downloads of one
// file would write into each other.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/base/result.h"
#include "engine/format/http_fetch.h"

namespace sextant {

struct TransferOptions {
  std::string token;                             // empty: none
  std::string token_origin;                      // the only host that gets it
  int max_attempts = 5;                          // in a row that bring no byte
  std::chrono::milliseconds first_backoff{500};  // doubled each time, at most max_backoff
  std::chrono::milliseconds max_backoff{30'000};
  std::chrono::seconds max_retry_after{300};  // a server that asks for more is not waited for
  std::chrono::seconds stall_timeout{60};
  std::function<bool()> cancelled;
  // Replaced by tests; sleeps in small pieces and asks `cancelled` otherwise.
  std::function<void(std::chrono::milliseconds)> sleep;
};

struct DownloadRequest {
  std::string url;
  std::string path;  // of the finished file
  std::optional<uint64_t> expected_bytes;
  std::string expected_sha256;  // 64 hex digits, or empty
  std::string subject;          // "owner/name", for messages about access
  // Bytes of the file that are there, and its size when known.
  std::function<void(uint64_t bytes_done, std::optional<uint64_t> bytes_total)> progress;
};

struct DownloadResult {
  uint64_t num_bytes = 0;
  uint64_t num_bytes_received = 0;  // over the network by this call
  std::string sha256;               // verified when it was expected or the server named it; else empty
};

Result<DownloadResult> download_file(const DownloadRequest& request, const TransferOptions& options);

// GETs a small answer into memory, with the same retries.
Result<std::string> download_text(const std::string& url, size_t max_bytes, const std::string& subject,
                                  const TransferOptions& options);

// SHA-256 of a file in lower-case hex.
Result<std::string> sha256_of_file(const std::string& path, const std::function<bool()>& cancelled = {});

// An exclusive lock on a file, between processes and between threads; the system frees it when the process
// ends.
class FileLock {
 public:
  // Waits until it is free, asking `cancelled`; `on_wait` is called once if it is not free at once.
  static Result<FileLock> acquire(const std::string& path, const std::function<bool()>& cancelled,
                                  const std::function<void()>& on_wait = {});
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

}  // namespace sextant
