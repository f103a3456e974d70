// The record of a measured point, with what this machine says of itself where the server is on it.
#include <sys/utsname.h>
#include <unistd.h>

#include <cmath>
#include <fstream>

#include "bench/run/serve_bench.h"

namespace sextant::bench {

RecordHost this_host() {
  RecordHost host;
  std::ifstream cpu("/proc/cpuinfo");
  for (std::string line; std::getline(cpu, line);) {
    if (line.starts_with("model name") && line.find(": ") != std::string::npos) {
      host.cpu = line.substr(line.find(": ") + 2);
      break;
    }
  }
  const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  if (cpus > 0) host.num_cpus = cpus;
  const long pages = sysconf(_SC_PHYS_PAGES);
  if (pages > 0) host.memory_gib = static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 30);
  utsname name = {};
  if (uname(&name) == 0) host.os = std::string(name.sysname) + " " + name.release;
  return host;
}

namespace {

std::optional<MetricSummary> summary_of(const LatencyResult& latency) {
  if (latency.empty()) return std::nullopt;
  MetricSummary s;
  s.n = static_cast<int64_t>(latency.sorted_ms.size());
  s.mean = latency.mean_ms;
  s.p50 = latency.at(0.5), s.p90 = latency.at(0.9), s.p95 = latency.at(0.95), s.p99 = latency.at(0.99),
  s.p99_9 = latency.at(0.999);
  MetricIntervals ci;
  const auto interval = [](const std::optional<Bounds>& bounds) {
    return bounds ? std::optional<Interval>(Interval{bounds->low, bounds->high}) : std::nullopt;
  };
  ci.mean = interval(latency.mean_ci);
  ci.p50 = interval(latency.interval_at(0.5)), ci.p90 = interval(latency.interval_at(0.9));
  ci.p95 = interval(latency.interval_at(0.95)), ci.p99 = interval(latency.interval_at(0.99));
  ci.p99_9 = interval(latency.interval_at(0.999));
  if (ci.mean || ci.p50) s.ci90 = ci;
  return s;
}

}  // namespace

BenchmarkRecord make_record(const BenchResult& result, const BenchPoint& point) {
  const Measurement& m = point.measurement;
  const Deployment& d = result.deployment;
  const auto optional_text = [](const std::string& text) {
    return text.empty() ? std::nullopt : std::optional<std::string>(text);
  };
  BenchmarkRecord r;
  r.timestamp = point.timestamp;
  r.source = d.is_simulated ? RecordSource::kSimulated : RecordSource::kMeasured;
  r.model_id = result.model;
  r.weights_sha256 = optional_text(d.weights_sha256);
  r.weight_quantization = optional_text(d.weight_quantization);
  r.kv_cache_dtype = optional_text(d.kv_cache_dtype);
  r.tensor_parallel = d.tensor_parallel, r.pipeline_parallel = d.pipeline_parallel;
  r.data_parallel = d.data_parallel, r.expert_parallel = d.expert_parallel;
  r.gpu_type = optional_text(!d.gpu_type.empty() ? d.gpu_type : m.monitor.gpu_name);
  r.num_gpus = d.num_gpus ? *d.num_gpus : r.gpu_type ? d.tensor_parallel * d.pipeline_parallel * d.data_parallel : 0;
  r.engine = d.engine.empty() ? "unknown" : d.engine;
  r.engine_version = optional_text(d.engine_version);
  r.engine_config = d.engine_config;
  // What the server made of its settings; those that a file states are kept.
  if (m.monitor.num_gpu_blocks) r.engine_config.emplace("num_gpu_blocks", *m.monitor.num_gpu_blocks);
  if (m.monitor.block_size) r.engine_config.emplace("block_size", *m.monitor.block_size);
  if (result.is_this_machine) r.host = this_host();

  TestConditions& t = r.test_conditions;
  t.load = load_name(point.kind);
  t.concurrency = point.load.max_concurrency;
  const bool has_rate = point.kind == LoadKind::kConstant || point.kind == LoadKind::kPoisson ||
                        point.kind == LoadKind::kGamma || point.kind == LoadKind::kDiurnal;
  if (has_rate) t.request_rate = point.load.request_rate;
  if (point.kind == LoadKind::kConstant) t.burstiness_cv = 0;
  if (point.kind == LoadKind::kPoisson) t.burstiness_cv = 1;
  if (point.kind == LoadKind::kGamma) t.burstiness_cv = 1 / std::sqrt(point.load.burstiness);
  if (m.prompt_lengths) t.prompt_tokens = *m.prompt_lengths;
  if (m.output_lengths) t.output_tokens = *m.output_lengths;
  t.prefix_hit_ratio = m.prefix_hit_ratio;
  t.num_requests = static_cast<int64_t>(m.num_measured);
  t.duration_s = m.window_s();
  t.seed = static_cast<int64_t>(point.seed);
  t.tokens_counted_by = m.tokens_counted_by;

  RecordMetrics& k = r.metrics;
  k.ttft_ms = summary_of(m.ttft), k.tpot_ms = summary_of(m.tpot), k.itl_ms = summary_of(m.itl),
  k.e2e_ms = summary_of(m.e2e);
  if (m.queue_mean_ms) {
    MetricSummary queue;
    queue.n = m.num_queued;
    queue.mean = *m.queue_mean_ms;
    k.queue_ms = queue;
  }
  if (m.num_finished > 0) {
    k.request_rps = m.request_rps;
    if (m.input_tokens_known) k.input_tokens_per_s = m.input_tokens_per_s;
    k.output_tokens_per_s = m.output_tokens_per_s;
  }
  k.goodput_rps = m.goodput_rps;
  if (m.num_measured > 0) k.error_rate = m.error_rate();
  k.memory_used_gib = m.memory_used_gib;
  k.gpu_utilization_pct = m.gpu_utilization_pct;
  k.energy_j_per_token = m.energy_j_per_token;
  r.validity = m.validity;
  r.record_id = compute_record_id(r);
  return r;
}

}  // namespace sextant::bench
