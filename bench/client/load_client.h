// LoadClient: sends prepared requests at their times from one thread and reads the streams. Asio coroutines, one per request in
// flight; thousands of connections. Must not know what the load means, nor how outcomes are judged.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/client/endpoint.h"
#include "bench/client/request_outcome.h"
#include "engine/base/status.h"

namespace sextant::bench {

struct ClientOptions {
  Endpoint endpoint;
  std::string target;                // "/v1/completions"
  std::string api_key;               // empty: none
  std::vector<std::string> headers;  // "Name: value"
  std::optional<int64_t> max_concurrency;
  int64_t request_timeout_ns = 600'000'000'000;
  bool keep_text = false;
  bool preconnect = false;  // open max_concurrency connections before the first request
  bool verify_tls = true;
};

struct PlannedRequest {
  std::optional<int64_t> offset_ns;  // when to send, from the run's begin; absent: as soon as there is a slot
  std::optional<size_t> after;       // the index of the request that has to end before (multi-turn); lower than its own
  int64_t think_ns = 0;              // the pause after that
  std::string body;                  // JSON
};

// What is going on, for a progress line.
struct LiveCounts {
  size_t num_planned = 0;
  size_t num_sent = 0;
  size_t num_running = 0;
  size_t num_finished = 0;
  size_t num_failed = 0;
  int64_t num_events = 0;  // of answers that ended
  double elapsed_s = 0;
  double ttft_sum_ms = 0;    // over the finished
  std::string last_failure;  // of the latest failed request
};

struct ClientRun {
  int64_t begin_ns = 0;  // the run's time 0
  int64_t end_ns = 0;
  double cpu_s = 0;             // of the client's thread between the two
  int64_t num_connections = 0;  // opened
  bool interrupted = false;
  std::optional<std::string> gave_up;    // why it stopped early: the server went away
  std::vector<RequestOutcome> outcomes;  // one per planned request
};

struct ClientHooks {
  std::function<void(const LiveCounts&)> on_progress;  // several times a second; may be empty
  std::function<bool()> interrupted;                   // asked as often; may be empty
  // No request is sent later than this from the begin; those in flight may finish.
  std::optional<int64_t> stop_sending_ns;
};

// Blocks until all is done. A Status only when nothing could be sent at all (name not found, too few file descriptors).
Result<ClientRun> run_load(const ClientOptions& options, const std::vector<PlannedRequest>& requests,
                           const ClientHooks& hooks);

}  // namespace sextant::bench
