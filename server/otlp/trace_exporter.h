// TraceExporter: sends traces of requests to a collector (OTLP/HTTP JSON), from a thread of its own. add() never waits: what
// does not fit the queue is dropped and counted. While the collector is away what is queued is kept and tried again, each time
// later, up to half a minute; what comes meanwhile and does not fit is dropped. Threads: add() and stats() from any.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/base/result.h"
#include "server/otlp/request_trace.h"

namespace sextant::otlp {

// A URL as it is posted to: where it has no path, OTLP's own for traces. An error names the setting.
Result<std::string> traces_url(const std::string& endpoint);

// "name=value,name=value", values percent-encoded, as in OTEL_EXPORTER_OTLP_HEADERS.
Result<std::vector<std::pair<std::string, std::string>>> parse_headers(const std::string& list);

class TraceExporter {
 public:
  struct Options {
    std::string url;
    std::vector<std::pair<std::string, std::string>> headers;  // may hold a secret
    Resource resource;
    size_t queue_capacity = 2048;  // requests
    size_t batch_size = 512;       // likewise
    std::chrono::milliseconds batch_delay{1'000};
    std::chrono::milliseconds timeout{10'000};
    std::chrono::milliseconds first_retry{1'000}, longest_retry{30'000};
    std::chrono::milliseconds flush_time{1'000};  // at the end, for what is queued
    // The status of the answer and its body; empty: by HTTP.
    std::function<Result<std::pair<int, std::string>>(const std::string& body)> post;
  };

  explicit TraceExporter(Options options);
  ~TraceExporter();
  TraceExporter(const TraceExporter&) = delete;
  TraceExporter& operator=(const TraceExporter&) = delete;

  void add(RequestTrace trace);

  struct Stats {
    uint64_t num_exported = 0, num_dropped = 0;  // spans
    uint64_t num_failures = 0;                   // posts
    bool is_up = true;                           // the last post worked
  };
  Stats stats() const;

 private:
  enum class Outcome { kDone, kAgain };
  void run();
  Outcome send(const std::vector<RequestTrace>& batch);
  Result<std::pair<int, std::string>> post(const std::string& body);
  void drop(const RequestTrace& trace) { num_dropped_.fetch_add(num_spans(trace), std::memory_order_relaxed); }

  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<RequestTrace> queue_;               // guarded by mutex_
  bool stopping_ = false;                        // likewise
  std::chrono::steady_clock::time_point end_{};  // likewise: of the flush
  std::atomic<bool> is_cancelled_{false};        // a post under way ends
  std::atomic<uint64_t> num_exported_{0}, num_dropped_{0}, num_failures_{0};
  std::atomic<bool> is_up_{true};
  std::thread thread_;  // last
};

}  // namespace sextant::otlp
