// TlsCertificates: what a server shows and demands in TLS handshakes, from files that are read again when they change: a pair that
// is valid serves the connections that come after it, one that is not is refused and the old one kept. TLS 1.2 and 1.3, HTTP/1.1.
// A thread of its own reads the files each second, for a file system may take its time. Any thread. Must not know connections.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/result.h"

struct ssl_ctx_st;

namespace sextant::http {

// uvicorn's and vLLM's names.
struct TlsOptions {
  std::string certfile;          // PEM: the server's certificate, then those between it and its root; empty: no TLS
  std::string keyfile;           // PEM; empty: in certfile
  std::string keyfile_password;  // of an encrypted key
  std::string ca_certs;          // PEM: who may sign clients' certificates
  int64_t cert_reqs = 0;         // of clients: 0 none, 1 one that is shown must be good, 2 demanded

  bool wanted() const { return !certfile.empty(); }
};

struct TlsReading {
  double expiry_s = 0;          // until the certificate in use ends; negative: it has ended
  uint64_t num_reloads = 0;     // new pairs taken
  uint64_t num_refused = 0;     // changes that were not
  uint64_t num_handshakes = 0;  // finished
  uint64_t num_failed = 0;  // not finished: what was no TLS, no common version or cipher, no good certificate, too slow
};

class TlsCertificates {
 public:
  // All that is wrong with the options and their files; each error names its option ("ssl_keyfile"). None without TLS.
  static std::vector<Status> check(const TlsOptions& options);
  // Null without TLS. The options are good (check()), else the first error comes back. What is odd but works is logged as a
  // warning.
  static Result<std::shared_ptr<TlsCertificates>> open(
      TlsOptions options, std::chrono::milliseconds poll_interval = std::chrono::seconds(1));
  ~TlsCertificates();
  TlsCertificates(const TlsCertificates&) = delete;
  TlsCertificates& operator=(const TlsCertificates&) = delete;

  // For a connection that begins now.
  std::shared_ptr<ssl_ctx_st> context() const;
  TlsReading reading() const;
  void count_handshake(bool finished) {
    (finished ? num_handshakes_ : num_failed_).fetch_add(1, std::memory_order_relaxed);
  }

 private:
  struct Files;   // as they were read
  struct Loaded;  // what they amount to
  explicit TlsCertificates(TlsOptions options);
  static Files read_files(const TlsOptions& options);
  static Loaded load(const TlsOptions& options, const Files& files);
  void use(const Loaded& loaded);
  void watch(std::chrono::milliseconds interval);

  const TlsOptions options_;
  std::unique_ptr<Files> tried_;  // of the watching thread
  std::atomic<int64_t> not_after_unix_s_{0};
  std::atomic<uint64_t> num_reloads_{0}, num_refused_{0}, num_handshakes_{0}, num_failed_{0};

  mutable std::mutex mutex_;
  std::shared_ptr<ssl_ctx_st> context_;  // guarded by mutex_
  bool stops_ = false;                   // guarded by mutex_
  std::condition_variable stop_;
  std::thread watcher_;
};

}  // namespace sextant::http
