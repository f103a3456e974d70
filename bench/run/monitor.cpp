#include "bench/run/monitor.h"

#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdlib>

#include "bench/client/http_get.h"
#include "engine/base/clock.h"
#include "engine/device/nvml.h"

namespace sextant::bench {
namespace {

using Metrics = std::map<std::string, double>;

// The same quantity under the names of several servers; the first that is there counts.
std::optional<double> first_of(const Metrics& metrics, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const auto it = metrics.find(name); it != metrics.end()) return it->second;
  }
  return std::nullopt;
}

std::optional<double> growth(const Metrics& begin, const Metrics& end, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const auto last = end.find(name);
    if (last == end.end()) continue;
    const auto first = begin.find(name);
    const double difference = last->second - (first == begin.end() ? 0 : first->second);
    return difference >= 0 ? std::optional<double>(difference) : std::nullopt;  // the server was started anew
  }
  return std::nullopt;
}

// The first line of `text`, which loses it.
std::string_view take_line(std::string_view& text) {
  const size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

}  // namespace

std::map<std::string, double> parse_metrics(std::string_view text) {
  Metrics metrics;
  while (!text.empty()) {
    std::string_view line = take_line(text);
    if (line.empty() || line[0] == '#') continue;
    const size_t name_end = line.find_first_of("{ ");
    if (name_end == std::string_view::npos) continue;
    const std::string name(line.substr(0, name_end));
    line.remove_prefix(name_end);
    if (line[0] == '{') {
      bool quoted = false;
      size_t i = 1;
      for (; i < line.size() && (quoted || line[i] != '}'); ++i) {
        if (quoted && line[i] == '\\') {
          ++i;
        } else if (line[i] == '"') {
          quoted = !quoted;
        }
      }
      if (i >= line.size()) continue;
      line.remove_prefix(i + 1);
    }
    const std::string value_text(line);
    char* value_end = nullptr;
    const double value = std::strtod(value_text.c_str(), &value_end);
    if (value_end == value_text.c_str() || !std::isfinite(value)) continue;
    metrics[name] += value;
  }
  return metrics;
}

std::optional<int64_t> whole_label(std::string_view text, std::string_view name, std::string_view label) {
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != '{') continue;
    const std::string key = std::string(label) + "=\"";
    for (size_t at = line.find(key); at != std::string_view::npos; at = line.find(key, at + 1)) {
      if (line[at - 1] != '{' && line[at - 1] != ',') continue;  // the end of a longer name
      const char* const begin = line.data() + at + key.size();
      int64_t value = 0;
      const auto [stop, error] = std::from_chars(begin, line.data() + line.size(), value);
      if (error == std::errc() && stop < line.data() + line.size() && *stop == '"' && value > 0) return value;
    }
  }
  return std::nullopt;
}

size_t num_series(std::string_view text, std::string_view name) {
  size_t count = 0;
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    if (line.starts_with(name) && line.size() > name.size() && (line[name.size()] == '{' || line[name.size()] == ' '))
      ++count;
  }
  return count;
}

// What a server says of its own GPUs; nothing when it has none. `metrics` are those of `text`.
std::optional<GpuSample> served_gpus(const Metrics& metrics, std::string_view text) {
  const auto value = [&](const char* name) {
    const auto found = metrics.find(name);
    return found == metrics.end() ? std::nullopt : std::optional(found->second);
  };
  const std::optional<double> utilization = value("sextant_gpu_utilization_ratio");
  const std::optional<double> memory = value("sextant_gpu_memory_used_bytes");
  GpuSample sample;
  sample.power_w = value("sextant_gpu_power_watts");
  if (!utilization && !memory && !sample.power_w) return std::nullopt;
  if (utilization) {
    sample.utilization_pct =
        100 * *utilization / static_cast<double>(num_series(text, "sextant_gpu_utilization_ratio"));
  }
  if (memory) sample.memory_used_gib = *memory / (1 << 30);
  return sample;
}

struct Monitor::Sources {
  std::unique_ptr<Nvml> nvml;
  int failures = 0;  // of the metrics URL, in a row
};

Monitor::Monitor(const MonitorOptions& options) : options_(options), sources_(std::make_unique<Sources>()) {
  if (options.gpus) sources_->nvml = Nvml::open();
  sample();
  first_ = last_;
  thread_ = std::thread([this] { run(); });
}

Monitor::~Monitor() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Monitor::run() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, std::chrono::duration<double>(options_.interval_s), [this] { return stopping_; })) {
    lock.unlock();
    sample();
    lock.lock();
  }
}

void Monitor::sample() {
  if (!options_.metrics_url.empty() && sources_->failures < 3) {
    const int64_t now = SteadyClock::instance().now_ns();
    const Result<GetAnswer> answer = http_get(options_.metrics_url, options_.api_key, 2);
    if (!answer.ok() || answer->status != 200) {
      ++sources_->failures;
    } else {
      sources_->failures = 0;
      last_ = parse_metrics(answer->body);
      if (!result_.num_gpu_blocks) {
        result_.num_gpu_blocks = whole_label(answer->body, "vllm:cache_config_info", "num_gpu_blocks");
        result_.block_size = whole_label(answer->body, "vllm:cache_config_info", "block_size");
      }
      if (result_.engine.empty()) {
        for (const auto& [name, value] : last_) {
          for (const auto& [prefix, engine] : {std::pair<const char*, const char*>{"sextant", "sextant"},
                                               {"sglang:", "sglang"},
                                               {"llamacpp:", "llama.cpp"},
                                               {"trtllm_", "tensorrt-llm"},
                                               {"mistralrs_", "mistral.rs"},
                                               {"vllm:", "vllm"}}) {
            if (result_.engine.empty() && name.starts_with(prefix)) result_.engine = engine;
          }
        }
      }
      ServerSample sample;
      sample.time_ns = now;
      sample.running = first_of(last_, {"vllm:num_requests_running", "sglang:num_running_reqs",
                                        "llamacpp:requests_processing", "trtllm_num_requests_running"});
      sample.waiting = first_of(last_, {"vllm:num_requests_waiting", "sglang:num_queue_reqs",
                                        "llamacpp:requests_deferred", "trtllm_num_requests_waiting"});
      sample.kv_usage = first_of(last_, {"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage",
                                         "trtllm_kv_cache_utilization"});
      if (sample.running || sample.waiting || sample.kv_usage) result_.server.push_back(sample);
      // Of another machine, or one whose driver this process does not see.
      if (sources_->nvml == nullptr) {
        if (std::optional<GpuSample> gpus = served_gpus(last_, answer->body)) {
          gpus->time_ns = now;
          result_.num_gpus = static_cast<int>(num_series(answer->body, "sextant_gpu_memory_used_bytes"));
          result_.gpu.push_back(*gpus);
        }
      }
    }
  }
  if (sources_->nvml) {
    GpuSample sample;
    sample.time_ns = SteadyClock::instance().now_ns();
    double utilization = 0;
    int num_utilizations = 0;
    const std::vector<DeviceReading> readings = sources_->nvml->read();
    for (const DeviceReading& reading : readings) {
      if (result_.gpu_name.empty()) result_.gpu_name = reading.name;
      if (reading.utilization_ratio) utilization += 100 * *reading.utilization_ratio, ++num_utilizations;
      if (reading.memory_used_bytes) {
        sample.memory_used_gib =
            sample.memory_used_gib.value_or(0) + static_cast<double>(*reading.memory_used_bytes) / (1 << 30);
      }
      if (reading.power_watts) sample.power_w = sample.power_w.value_or(0) + *reading.power_watts;
    }
    if (num_utilizations > 0) sample.utilization_pct = utilization / num_utilizations;
    if (!readings.empty()) {
      result_.num_gpus = static_cast<int>(readings.size());
      result_.gpu.push_back(sample);
    }
  }
}

MonitorResult Monitor::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  sample();
  ServerTotals& t = result_.totals;
  t.prefix_queries = growth(first_, last_, {"vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"});
  t.prefix_hits = growth(first_, last_, {"vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"});
  t.preemptions = growth(first_, last_, {"vllm:num_preemptions_total", "sglang:num_retracted_requests_total"});
  t.queue_time_s = growth(first_, last_,
                          {"vllm:request_queue_time_seconds_sum", "sglang:queue_time_seconds_sum",
                           "trtllm_request_queue_time_seconds_sum"});
  t.num_queued = growth(first_, last_,
                        {"vllm:request_queue_time_seconds_count", "sglang:queue_time_seconds_count",
                         "trtllm_request_queue_time_seconds_count"});
  return result_;
}

}  // namespace sextant::bench
