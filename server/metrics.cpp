#include "server/metrics.h"

#include <prometheus/text_serializer.h>
#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>

#include "server/metrics_cost.h"
#include "server/metrics_families.h"
#include "server/metrics_tls.h"
#include "server/process_stats.h"

namespace sextant {
namespace {

constexpr int64_t kThroughputWindowNs = 10'000'000'000;

const prometheus::Histogram::BucketBoundaries kHttpDurationBuckets = {.001, .0025, .005, .01, .025, .05, .1,  .25, .5,
                                                                      1,    2.5,   5,    10,  30,   60,  120, 600};

// Bounded whatever clients send.
std::string_view method_label(std::string_view method) {
  for (const std::string_view known : {"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "WEBSOCKET"}) {
    if (method == known) return known;
  }
  return "OTHER";
}

std::string status_label(int status) { return std::to_string(std::clamp(status / 100, 1, 5)) + "xx"; }

}  // namespace

struct ServerMetrics::Families {
  Families(const std::string& model_name, const Clock& metrics_clock) : all(model_name), clock(metrics_clock) {}

  struct HttpSeries {
    prometheus::Counter* requests;
    prometheus::Histogram* duration;
    prometheus::Counter* request_bytes;
    prometheus::Counter* response_bytes;
  };

  MetricFamilies all;
  const Clock& clock;

  std::mutex stats_mutex;  // the TotalCounters, the window and the source
  std::function<EngineStats()> stats_source;
  std::function<std::vector<DeviceReading>()> readings_source;
  std::function<std::vector<RankReading>()> ranks_source;
  std::function<size_t()> connections_source;
  std::function<ResponseCacheReading()> response_cache_source;
  std::function<GatewayReading()> gateway_source;
  GatewayMeter gateway{all.registry};
  struct ResponseCacheSeries {
    TotalCounter hits, misses, evictions;
    prometheus::Gauge& bytes;
  };
  std::optional<ResponseCacheSeries> response_cache;
  std::optional<CostMeter> cost;  // set before the threads start
  struct Sample {
    int64_t at_ns;
    uint64_t generation_tokens;
  };
  std::deque<Sample> window;

  std::mutex http_mutex;
  std::map<std::string, HttpSeries, std::less<>> http_series;

  HttpSeries& http_series_of(const http::RequestRecord& record);
  void apply(const EngineStats& stats);   // with stats_mutex held
  void apply(const ProcessStats& stats);  // likewise
  void apply(const std::vector<DeviceReading>& readings);
  void apply(const std::vector<RankReading>& readings);

  // The gauges of one family that stand for what was read at the last scrape, by the label values.
  using Series = std::map<std::pair<std::string, std::string>, prometheus::Gauge*>;
  std::map<prometheus::Family<prometheus::Gauge>*, Series> device_series;
};

ServerMetrics::ServerMetrics(std::string model_name, const Clock& clock)
    : families_(std::make_unique<Families>(model_name, clock)) {}
ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::on_request_accepted() { families_->all.llm_requests_in_flight.Increment(); }
void ServerMetrics::on_request_rejected() { families_->all.llm_requests_rejected.Increment(); }

void ServerMetrics::on_first_token(double ttft_s) {
  families_->all.time_to_first_token.Observe(ttft_s);
  families_->all.llm_ttft.Observe(ttft_s);
}

void ServerMetrics::on_token_interval(double interval_s) { families_->all.inter_token_latency.Observe(interval_s); }

void ServerMetrics::on_finished(const RequestTimings& timings) {
  MetricFamilies& all = families_->all;
  bool any_error = false;
  bool any_abort = false;
  int64_t num_generated = 0;
  int32_t longest = 0;
  for (const ChoiceTimings& choice : timings.choices) {
    all.request_success[static_cast<size_t>(choice.finish_reason)]->Increment();
    any_error |= choice.finish_reason == FinishReason::kError;
    any_abort |= choice.finish_reason == FinishReason::kAbort;
    num_generated += choice.num_generated_tokens;
    longest = std::max(longest, choice.num_generated_tokens);
    all.request_generation_tokens.Observe(choice.num_generated_tokens);
    all.request_num_preemptions.Observe(choice.num_preemptions);
    if (choice.queue_s) all.queue_time.Observe(*choice.queue_s);
    if (choice.prefill_s) all.prefill_time.Observe(*choice.prefill_s);
    if (choice.decode_s) {
      all.decode_time.Observe(*choice.decode_s);
      if (choice.num_generated_tokens > 1) {
        all.time_per_output_token.Observe(*choice.decode_s / (choice.num_generated_tokens - 1));
      }
      if (choice.prefill_s) all.inference_time.Observe(*choice.prefill_s + *choice.decode_s);
    }
  }
  const int32_t num_computed = timings.num_prompt_tokens - timings.num_cached_tokens;
  all.request_prompt_tokens.Observe(timings.num_prompt_tokens);
  all.request_max_generation_tokens.Observe(longest);
  all.request_params_n.Observe(static_cast<double>(timings.choices.size()));
  if (timings.max_tokens) all.request_params_max_tokens.Observe(*timings.max_tokens);
  all.request_prefill_kv_computed_tokens.Observe(num_computed);
  all.prompt_tokens_computed.Increment(num_computed);
  all.prompt_tokens_from_cache.Increment(timings.num_cached_tokens);
  all.prompt_tokens_cached.Increment(timings.num_cached_tokens);
  all.prompt_tokens_cached_device.Increment(timings.num_cached_tokens);
  all.llm_prompt_tokens.Observe(timings.num_prompt_tokens);
  all.llm_completion_tokens.Observe(static_cast<double>(num_generated));
  all.llm_requests_in_flight.Decrement();
  if (families_->cost) families_->cost->add_tokens(timings.tenant, num_computed + num_generated);
  if (any_error) {
    all.llm_requests_error.Increment();
  } else if (any_abort) {
    all.llm_requests_aborted.Increment();
  } else {
    // An aborted or failed request has no last token, hence no end-to-end time.
    all.llm_requests_success.Increment();
    all.e2e_latency.Observe(timings.e2e_s);
    all.llm_request_duration.Observe(timings.e2e_s);
  }
}

void ServerMetrics::on_step(const StepInfo& step) {
  MetricFamilies& all = families_->all;
  all.iteration_tokens.Observe(step.num_tokens);
  all.llm_batch_size.Observe(step.num_sequences);
  all.step_execute.Observe(step.execute_s);
  all.step_schedule.Observe(step.schedule_s);
  const double total_s = step.schedule_s + step.execute_s;
  if (total_s > 0) all.step_host_ratio.Observe(step.schedule_s / total_s);
}

void ServerMetrics::Families::apply(const EngineStats& stats) {
  all.num_requests_running.Set(static_cast<double>(stats.num_requests_running));
  all.num_requests_waiting.Set(static_cast<double>(stats.num_requests_waiting));
  all.waiting_for_capacity.Set(static_cast<double>(stats.num_requests_waiting));
  all.llm_queue_depth.Set(static_cast<double>(stats.num_requests_waiting));
  all.kv_cache_usage_perc.Set(stats.kv_cache_usage);
  all.prefix_cache_queries.set(static_cast<double>(stats.prefix_cache_queries));
  all.prefix_cache_hits.set(static_cast<double>(stats.prefix_cache_hits));
  all.prompt_tokens.set(static_cast<double>(stats.prompt_tokens));
  all.generation_tokens.set(static_cast<double>(stats.generation_tokens));
  all.num_preemptions.set(static_cast<double>(stats.num_preemptions));
  all.admission_rejections.set(static_cast<double>(stats.queue_rejections));
  gateway.set_refused_by_queue(static_cast<double>(stats.queue_rejections));
  all.engine_steps.set(static_cast<double>(stats.num_steps));
  all.engine_busy_s.set(stats.step_busy_s);
  all.engine_schedule_s.set(stats.schedule_s);
  for (int i = 0; i < kNumCollectiveKinds; ++i) {
    const auto kind = static_cast<CollectiveKind>(i);
    const CollectiveCounters::OfKind& total = stats.collectives.of(kind);
    if (total.calls == 0) continue;
    const auto raise = [&](prometheus::Family<prometheus::Counter>& family, uint64_t value) {
      prometheus::Counter& counter = family.Add(all.with("kind", std::string(collective_kind_name(kind))));
      counter.Increment(std::max(0.0, static_cast<double>(value) - counter.Value()));
    };
    raise(all.collective_calls, total.calls);
    raise(all.collective_bytes, total.bytes);
  }

  // Tokens per second since the youngest sample that is at least the window old, or else the oldest there is.
  const int64_t now_ns = clock.now_ns();
  if (!window.empty() && stats.generation_tokens < window.back().generation_tokens) window.clear();
  while (window.size() > 1 && now_ns - window[1].at_ns >= kThroughputWindowNs) window.pop_front();
  if (!window.empty() && now_ns > window.front().at_ns) {
    const double elapsed_s = static_cast<double>(now_ns - window.front().at_ns) * 1e-9;
    all.llm_throughput.Set(static_cast<double>(stats.generation_tokens - window.front().generation_tokens) / elapsed_s);
  }
  // Scrapes may come at any pace; ten samples a second bound the window's memory.
  if (window.empty() || now_ns - window.back().at_ns >= kThroughputWindowNs / 100) {
    window.push_back({now_ns, stats.generation_tokens});
  }
}

void ServerMetrics::Families::apply(const ProcessStats& stats) {
  all.process_cpu_s.set(stats.cpu_s);
  all.process_start_time_s.Set(stats.start_time_s);
  all.process_resident_bytes.Set(static_cast<double>(stats.resident_bytes));
  all.process_virtual_bytes.Set(static_cast<double>(stats.virtual_bytes));
  all.process_open_fds.Set(static_cast<double>(stats.num_open_fds));
  all.process_max_fds.Set(static_cast<double>(stats.max_fds));
  all.process_threads.Set(static_cast<double>(stats.num_threads));
}

// A value that is not read any more disappears: an old number would pass for a measurement.
void ServerMetrics::Families::apply(const std::vector<DeviceReading>& readings) {
  const auto show = [&](prometheus::Family<prometheus::Gauge>& family, auto value_of) {
    Series& shown = device_series[&family];
    Series kept;
    for (const DeviceReading& reading : readings) {
      const std::optional<double> value = value_of(reading);
      if (!value) continue;
      const std::pair<std::string, std::string> key = {std::to_string(reading.index), reading.uuid};
      prometheus::Gauge& gauge = family.Add({{"gpu", key.first}, {"uuid", key.second}});  // the one there is, if any
      gauge.Set(*value);
      kept.emplace(key, &gauge);
    }
    for (const auto& [key, gauge] : shown) {
      if (!kept.contains(key)) family.Remove(gauge);
    }
    shown = std::move(kept);
  };
  const auto bytes = [](const std::optional<uint64_t>& value) {
    return value ? std::optional<double>(static_cast<double>(*value)) : std::nullopt;
  };
  show(all.gpu_utilization_ratio, [](const DeviceReading& reading) { return reading.utilization_ratio; });
  show(all.gpu_memory_used_bytes, [&](const DeviceReading& reading) { return bytes(reading.memory_used_bytes); });
  show(all.gpu_memory_total_bytes, [&](const DeviceReading& reading) { return bytes(reading.memory_total_bytes); });
  show(all.gpu_temperature_celsius, [](const DeviceReading& reading) { return reading.temperature_celsius; });
  show(all.gpu_power_watts, [](const DeviceReading& reading) { return reading.power_watts; });
}

void ServerMetrics::Families::apply(const std::vector<RankReading>& readings) {
  const auto raise = [](prometheus::Counter& counter, double total) {
    if (total > counter.Value()) counter.Increment(total - counter.Value());
  };
  for (const RankReading& reading : readings) {
    const prometheus::Labels labels = {{"rank", std::to_string(reading.rank)}, {"node", std::to_string(reading.node)}};
    all.rank_step_s.Add(labels).Set(reading.step_s);
    all.rank_lag_s.Add(labels).Set(reading.lag_s);
    all.rank_heartbeat_age_s.Add(labels).Set(reading.heartbeat_age_s);
    raise(all.rank_waited_for_s.Add(labels), reading.waited_for_s);
    raise(all.rank_steps.Add(labels), static_cast<double>(reading.num_steps));
    raise(all.rank_collectives.Add(labels), static_cast<double>(reading.num_collectives));
  }
}

void ServerMetrics::set_rank_readings_source(std::function<std::vector<RankReading>()> source) {
  const std::lock_guard lock(families_->stats_mutex);
  families_->ranks_source = std::move(source);
}

void ServerMetrics::set_engine_stats(const EngineStats& stats) {
  const std::lock_guard lock(families_->stats_mutex);
  families_->apply(stats);
}

void ServerMetrics::set_engine_stats_source(std::function<EngineStats()> source) {
  const std::lock_guard lock(families_->stats_mutex);
  families_->stats_source = std::move(source);
}

void ServerMetrics::set_device_readings_source(std::function<std::vector<DeviceReading>()> source) {
  const std::lock_guard lock(families_->stats_mutex);
  families_->readings_source = std::move(source);
}

void ServerMetrics::set_engine_info(const EngineInfo& info, const EngineConfig& config) {
  const int64_t cache_tokens = int64_t{info.num_blocks} * info.block_size;
  const double max_concurrency =
      info.max_model_len > 0 ? static_cast<double>(cache_tokens) / static_cast<double>(info.max_model_len) : 0;
  prometheus::Labels labels = families_->all.vllm_labels;
  labels.insert({{"block_size", std::to_string(info.block_size)},
                 {"num_gpu_blocks", std::to_string(info.num_blocks)},
                 {"cache_dtype", info.kv_cache_dtype},
                 {"enable_prefix_caching", config.cache.enable_prefix_caching ? "True" : "False"},
                 {"gpu_memory_utilization", std::to_string(config.cache.gpu_memory_utilization)},
                 {"kv_cache_size_tokens", std::to_string(cache_tokens)},
                 {"kv_cache_max_concurrency", std::to_string(max_concurrency)}});
  prometheus::BuildGauge()
      .Name("vllm:cache_config_info")
      .Help("The KV cache's settings, as labels.")
      .Register(families_->all.registry)
      .Add(labels)
      .Set(1);
}

ServerMetrics::Families::HttpSeries& ServerMetrics::Families::http_series_of(const http::RequestRecord& record) {
  const std::string_view handler = record.pattern.empty() ? std::string_view("none") : record.pattern;
  const std::string_view method = method_label(record.method);
  const std::string status = status_label(record.status);
  std::string key;
  key.append(handler).append(" ").append(method).append(" ").append(status);
  const auto found = http_series.find(key);
  if (found != http_series.end()) return found->second;
  const prometheus::Labels route = {{"handler", std::string(handler)}};
  prometheus::Labels labels = route;
  labels.insert({{"method", std::string(method)}, {"status", status}});
  return http_series
      .emplace(std::move(key),
               HttpSeries{&all.http_requests.Add(labels), &all.http_duration.Add(labels, kHttpDurationBuckets),
                          &all.http_request_bytes.Add(route), &all.http_response_bytes.Add(route)})
      .first->second;
}

void ServerMetrics::on_http_request(const http::RequestRecord& record) {
  const std::lock_guard lock(families_->http_mutex);
  Families::HttpSeries& series = families_->http_series_of(record);
  series.requests->Increment();
  series.duration->Observe(record.duration_s);
  series.request_bytes->Increment(static_cast<double>(record.request_bytes));
  series.response_bytes->Increment(static_cast<double>(record.response_bytes));
}

void ServerMetrics::set_price(double usd_per_hour) {
  families_->cost.emplace(families_->all.registry, families_->all.model_name, usd_per_hour, families_->clock.now_ns());
}

void ServerMetrics::set_response_cache_source(std::function<ResponseCacheReading()> source) {
  const std::lock_guard lock(families_->stats_mutex);
  families_->response_cache_source = std::move(source);
  if (families_->response_cache || !families_->response_cache_source) return;
  prometheus::Registry& registry = families_->all.registry;
  const prometheus::Labels& labels = families_->all.llm_labels;
  const auto counter = [&](const char* name, const char* help) -> prometheus::Counter& {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
  };
  families_->response_cache.emplace(Families::ResponseCacheSeries{
      TotalCounter(counter("response_cache_hits_total", "Requests answered from the response cache.")),
      TotalCounter(counter("response_cache_misses_total", "Requests that it could have answered and did not.")),
      TotalCounter(counter("response_cache_evictions_total", "Answers that made room for others.")),
      prometheus::BuildGauge()
          .Name("response_cache_bytes")
          .Help("Bytes that the response cache holds.")
          .Register(registry)
          .Add(labels)});
}

void ServerMetrics::set_gateway_source(std::function<GatewayReading()> source) {
  const std::lock_guard lock(families_->stats_mutex);
  families_->gateway_source = std::move(source);
  if (families_->gateway_source) families_->gateway.apply(families_->gateway_source());
}

void ServerMetrics::set_connections_source(std::function<size_t()> source) {
  const std::lock_guard lock(families_->stats_mutex);
  families_->connections_source = std::move(source);
}

void ServerMetrics::on_startup_phase(const std::string& phase, double seconds) {
  families_->all.startup_time_s.Add({{"phase", phase}}).Set(seconds);
}

std::string ServerMetrics::render() {
  std::function<std::vector<DeviceReading>()> readings_source;
  {
    const std::lock_guard lock(families_->stats_mutex);
    readings_source = families_->readings_source;
  }
  // It may wait for a driver.
  const std::vector<DeviceReading> readings = readings_source ? readings_source() : std::vector<DeviceReading>();
  {
    const std::lock_guard lock(families_->stats_mutex);
    if (families_->stats_source) families_->apply(families_->stats_source());
    families_->apply(read_process_stats());
    families_->apply(readings);
    if (families_->ranks_source) families_->apply(families_->ranks_source());
    if (families_->connections_source) {
      families_->all.http_connections.Set(static_cast<double>(families_->connections_source()));
    }
    if (families_->response_cache_source) {
      const ResponseCacheReading reading = families_->response_cache_source();
      families_->response_cache->hits.set(static_cast<double>(reading.hits));
      families_->response_cache->misses.set(static_cast<double>(reading.misses));
      families_->response_cache->evictions.set(static_cast<double>(reading.evictions));
      families_->response_cache->bytes.Set(static_cast<double>(reading.num_bytes));
    }
    if (families_->gateway_source) families_->gateway.apply(families_->gateway_source());
    if (families_->cost) families_->cost->update(families_->clock.now_ns());
  }
  return prometheus::TextSerializer().Serialize(families_->all.registry.Collect());
}

std::vector<ExportedFamily> ServerMetrics::exported() {
  ServerMetrics metrics("model");
  metrics.set_price(1);
  metrics.set_response_cache_source([] { return ResponseCacheReading(); });
  metrics.set_gateway_source([] {
    return GatewayReading{{},
                          StateStoreReading(),
                          SharedLimitsReading(),
                          TokenKeysReading(),
                          AuditReading(),
                          BackupReading(),
                          TracesReading()};
  });
  metrics.on_startup_phase("total", 1);
  RequestTimings request;
  request.num_prompt_tokens = 1;
  request.choices.resize(1);
  metrics.on_request_accepted();
  metrics.on_finished(request);
  metrics.families_->cost->update(metrics.families_->clock.now_ns());
  // One of each thing whose series come when it is met.
  DeviceReading device{.index = 0,
                       .name = "GPU",
                       .uuid = "GPU-0",
                       .utilization_ratio = 0.5,
                       .memory_used_bytes = 1,
                       .memory_total_bytes = 2,
                       .temperature_celsius = 50,
                       .power_watts = 100};
  EngineStats stats;
  for (auto& kind : stats.collectives.kinds) kind.calls = 1;
  metrics.set_engine_info({}, {});
  metrics.set_engine_stats(stats);
  metrics.on_http_request({.method = "GET",
                           .path = "/health",
                           .pattern = "/health",
                           .client_address = {},
                           .request_id = {},
                           .status = 200});
  {
    const std::lock_guard lock(metrics.families_->stats_mutex);
    metrics.families_->apply(std::vector<DeviceReading>{device});
    metrics.families_->apply(std::vector<RankReading>{RankReading{}});
  }
  std::vector<ExportedFamily> out;
  for (const prometheus::MetricFamily& family : metrics.families_->all.registry.Collect()) {
    ExportedFamily each{family.name,
                        family.type == prometheus::MetricType::Histogram ? "histogram"
                        : family.type == prometheus::MetricType::Counter ? "counter"
                                                                         : "gauge",
                        {}};
    for (const prometheus::ClientMetric& series : family.metric)
      for (const auto& label : series.label)
        if (std::find(each.labels.begin(), each.labels.end(), label.name) == each.labels.end())
          each.labels.push_back(label.name);
    out.push_back(std::move(each));
  }
  for (ExportedFamily& each : exported_tls_metrics()) out.push_back(std::move(each));
  return out;
}

const char* ServerMetrics::content_type() { return "text/plain; version=0.0.4; charset=utf-8"; }

}  // namespace sextant
