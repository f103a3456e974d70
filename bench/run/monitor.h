// Monitor: what the server says of itself on /metrics, and what the GPUs of this machine say, while a run lasts. A thread of its own
// that blocks; the client's thread never waits for it. What does not answer gives no series.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace sextant::bench {

struct ServerSample {
  int64_t time_ns = 0;
  std::optional<double> running, waiting, kv_usage;
};

// Growth of the server's counters over the run; absent where it has no such counter.
struct ServerTotals {
  std::optional<double> prefix_queries, prefix_hits, preemptions, queue_time_s, num_queued;
};

struct GpuSample {
  int64_t time_ns = 0;
  std::optional<double> utilization_pct;  // mean over GPUs
  std::optional<double> memory_used_gib;  // sum over GPUs
  std::optional<double> power_w;          // sum over GPUs
};

struct MonitorResult {
  std::string engine;  // by the prefix of its metrics; empty: not known
  std::vector<ServerSample> server;
  ServerTotals totals;
  std::vector<GpuSample> gpu;
  std::string gpu_name;
  int num_gpus = 0;
  // Of the server's KV cache, as vllm:cache_config_info says.
  std::optional<int64_t> block_size, num_gpu_blocks;
};

// name{labels} -> value, summed over labels; comments and what cannot be read are left out.
std::map<std::string, double> parse_metrics(std::string_view text);
// Of this name, whatever their labels.
size_t num_series(std::string_view text, std::string_view name);
// The value of a label of the first series of this name that has it, when that is a whole number above 0.
std::optional<int64_t> whole_label(std::string_view text, std::string_view name, std::string_view label);

struct MonitorOptions {
  std::string metrics_url;  // empty: none
  std::string api_key;
  bool gpus = true;  // of this machine
  double interval_s = 1;
};

class Monitor {
 public:
  explicit Monitor(const MonitorOptions& options);  // takes the first sample before it returns
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  MonitorResult stop();  // takes the last sample

 private:
  struct Sources;
  void run();
  void sample();

  const MonitorOptions options_;
  std::unique_ptr<Sources> sources_;
  MonitorResult result_;
  std::map<std::string, double> first_, last_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace sextant::bench
