// Every metric of /metrics: name, help, labels and buckets, registered at construction, kept as references so
// that observing looks nothing up. Names and definitions are vLLM 0.33's where it has one; buckets are vLLM's
// plus finer ones below its first, which a small model on a fast device needs. Private to metrics.cpp.
//
// Of vLLM's families these are absent: what this server cannot know or does not do (corrupted_requests,
// watermark_requests, lora_requests_info, spec_decode_*, kv_block_* residency, estimated_* per GPU,
// websocket_*, llm_gpu_*): absent rather than a constant. sextant_gpu_* are there on a GPU whose driver tells.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <array>
#include <string>

#include "server/metrics_gateway.h"

namespace sextant {

struct MetricFamilies {
  explicit MetricFamilies(const std::string& model_name);

  using Counter = prometheus::Counter;
  using Gauge = prometheus::Gauge;
  using Histogram = prometheus::Histogram;

  prometheus::Registry registry;
  const std::string model_name;
  const prometheus::Labels vllm_labels;  // model_name, engine
  const prometheus::Labels llm_labels;   // model

  // vLLM's state gauges
  Gauge& num_requests_running;
  Gauge& num_requests_waiting;
  Gauge& waiting_for_capacity;
  Gauge& kv_cache_usage_perc;
  // vLLM's counters
  TotalCounter prefix_cache_queries;
  TotalCounter prefix_cache_hits;
  TotalCounter prompt_tokens;
  TotalCounter generation_tokens;
  TotalCounter num_preemptions;
  TotalCounter admission_rejections;
  Counter& prompt_tokens_computed;    // by_source
  Counter& prompt_tokens_from_cache;  // by_source
  Counter& prompt_tokens_cached;
  Counter& prompt_tokens_cached_device;
  std::array<Counter*, 4> request_success{};  // by FinishReason
  // vLLM's latency histograms, seconds
  Histogram& time_to_first_token;
  Histogram& inter_token_latency;
  Histogram& time_per_output_token;
  Histogram& e2e_latency;
  Histogram& queue_time;
  Histogram& prefill_time;
  Histogram& decode_time;
  Histogram& inference_time;
  // vLLM's size histograms
  Histogram& request_prompt_tokens;
  Histogram& request_generation_tokens;
  Histogram& iteration_tokens;
  Histogram& request_max_generation_tokens;
  Histogram& request_params_n;
  Histogram& request_params_max_tokens;
  Histogram& request_num_preemptions;
  Histogram& request_prefill_kv_computed_tokens;
  // Ours: where the engine's time goes; busy seconds per second are the device's occupancy.
  TotalCounter engine_steps;
  TotalCounter engine_busy_s;
  TotalCounter engine_schedule_s;
  Histogram& step_host_ratio;
  prometheus::Family<Counter>& collective_calls;  // a series per kind that was called
  prometheus::Family<Counter>& collective_bytes;
  Histogram& step_execute;
  Histogram& step_schedule;
  // llm_*
  Counter& llm_requests_success;
  Counter& llm_requests_error;
  Counter& llm_requests_aborted;
  Counter& llm_requests_rejected;
  Gauge& llm_requests_in_flight;
  Histogram& llm_request_duration;
  Histogram& llm_prompt_tokens;
  Histogram& llm_completion_tokens;
  Gauge& llm_queue_depth;
  Histogram& llm_batch_size;
  Histogram& llm_ttft;
  Gauge& llm_throughput;
  // GPUs: a series per device and value that was read
  prometheus::Family<Gauge>& gpu_utilization_ratio;
  prometheus::Family<Gauge>& gpu_memory_used_bytes;
  prometheus::Family<Gauge>& gpu_memory_total_bytes;
  prometheus::Family<Gauge>& gpu_temperature_celsius;
  prometheus::Family<Gauge>& gpu_power_watts;
  // Groups: a series per rank
  prometheus::Family<Gauge>& rank_step_s;
  prometheus::Family<Gauge>& rank_lag_s;
  prometheus::Family<Gauge>& rank_heartbeat_age_s;
  prometheus::Family<Counter>& rank_waited_for_s;
  prometheus::Family<Counter>& rank_steps;
  prometheus::Family<Counter>& rank_collectives;
  // Process
  TotalCounter process_cpu_s;
  Gauge& process_start_time_s;
  Gauge& process_resident_bytes;
  Gauge& process_virtual_bytes;
  Gauge& process_open_fds;
  Gauge& process_max_fds;
  Gauge& process_threads;
  prometheus::Family<Gauge>& startup_time_s;  // by phase
  Gauge& http_connections;
  // http_*: their labels are met as requests come; one look-up per request in a small map.
  prometheus::Family<Counter>& http_requests;
  prometheus::Family<Histogram>& http_duration;
  prometheus::Family<Counter>& http_request_bytes;
  prometheus::Family<Counter>& http_response_bytes;

 private:
  Counter& counter(const std::string& name, const std::string& help, const prometheus::Labels& labels);
  prometheus::Family<Gauge>& gauge_family(const std::string& name, const std::string& help);
  Gauge& gauge(const std::string& name, const std::string& help, const prometheus::Labels& labels);
  Histogram& histogram(const std::string& name, const std::string& help, const prometheus::Labels& labels,
                       const Histogram::BucketBoundaries& buckets);
  // vLLM's: a gauge or counter of something that this server never does is a true zero.
  void register_true_zeros();

  prometheus::Family<Counter>& counter_family(const std::string& name, const std::string& help);

 public:
  prometheus::Labels with(std::string name, std::string value) const;
};

}  // namespace sextant
