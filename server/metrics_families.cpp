#include "server/metrics_families.h"

namespace sextant {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

// vLLM's begins at .001.
const Buckets& ttft_buckets() {
  static const Buckets buckets = {.0005, .001, .0025, .005, .01, .02, .04, .06, .08, .1,  .25, .5,
                                  .75,   1,    2.5,   5,    7.5, 10,  20,  40,  80,  160, 640, 2560};
  return buckets;
}
// vLLM's begins at .01.
const Buckets& token_interval_buckets() {
  static const Buckets buckets = {.0001, .00025, .0005, .001, .0025, .005, .0075, .01, .025, .05, .075, .1, .15,
                                  .2,    .3,     .4,    .5,   .75,   1,    2.5,   5,   7.5,  10,  20,   40, 80};
  return buckets;
}
// vLLM's begins at .3.
const Buckets& request_time_buckets() {
  static const Buckets buckets = {.0005, .001, .0025, .005, .01, .025, .05, .1, .2, .3,  .5,  .8,  1,   1.5,  2,
                                  2.5,   5,    10,    15,   20,  30,   40,  50, 60, 120, 240, 480, 960, 1920, 7680};
  return buckets;
}
const Buckets& step_time_buckets() {
  static const Buckets buckets = {.000001, .0000025, .000005, .00001, .000025, .00005, .0001, .00025, .0005, .001,
                                  .0025,   .005,     .01,     .025,   .05,     .1,     .25,   .5,     1,     2.5};
  return buckets;
}
// 1, 2, 5, 10, ... as vLLM's, which end at max_model_len.
const Buckets& token_count_buckets() {
  static const Buckets buckets = {1,    2,    5,     10,    20,    50,     100,    200,    500,    1000,
                                  2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000};
  return buckets;
}
const Buckets& iteration_token_buckets() {
  static const Buckets buckets = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
  return buckets;
}
const Buckets& small_count_buckets() {
  static const Buckets buckets = {1, 2, 5, 10, 20};
  return buckets;
}
const Buckets& preemption_buckets() {
  static const Buckets buckets = {0, 1, 2, 5, 10, 20};
  return buckets;
}
const Buckets& share_buckets() {
  static const Buckets buckets = {.001, .0025, .005, .01, .025, .05, .1, .25, .5, .75, 1};
  return buckets;
}
const Buckets& batch_size_buckets() {
  static const Buckets buckets = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
  return buckets;
}

}  // namespace

prometheus::Labels MetricFamilies::with(std::string name, std::string value) const {
  prometheus::Labels labels = vllm_labels;
  labels.emplace(std::move(name), std::move(value));
  return labels;
}

prometheus::Counter& MetricFamilies::counter(const std::string& name, const std::string& help,
                                             const prometheus::Labels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
}
prometheus::Gauge& MetricFamilies::gauge(const std::string& name, const std::string& help,
                                         const prometheus::Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
}
prometheus::Family<prometheus::Counter>& MetricFamilies::counter_family(const std::string& name,
                                                                        const std::string& help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}
prometheus::Family<prometheus::Gauge>& MetricFamilies::gauge_family(const std::string& name, const std::string& help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}
prometheus::Histogram& MetricFamilies::histogram(const std::string& name, const std::string& help,
                                                 const prometheus::Labels& labels, const Buckets& buckets) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
}

MetricFamilies::MetricFamilies(const std::string& model)
    : model_name(model),
      vllm_labels{{"model_name", model}, {"engine", "0"}},
      llm_labels{{"model", model}},
      num_requests_running(gauge("vllm:num_requests_running",
                                 "Requests in the running batch (they hold KV cache blocks).", vllm_labels)),
      num_requests_waiting(gauge("vllm:num_requests_waiting", "Requests waiting to be scheduled.", vllm_labels)),
      waiting_for_capacity(gauge("vllm:num_requests_waiting_by_reason", "Requests waiting, by what they wait for.",
                                 with("reason", "capacity"))),
      kv_cache_usage_perc(gauge(
          "vllm:kv_cache_usage_perc",
          "Share of KV cache blocks that sequences hold, 0 to 1; cached-free blocks are not in use.", vllm_labels)),
      prefix_cache_queries(counter("vllm:prefix_cache_queries_total",
                                   "Prompt tokens looked up in the prefix cache, at first schedule.", vllm_labels)),
      prefix_cache_hits(
          counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", vllm_labels)),
      prompt_tokens(counter("vllm:prompt_tokens_total",
                            "Prompt tokens processed, computed or cached, once per request.", vllm_labels)),
      generation_tokens(counter("vllm:generation_tokens_total", "Tokens generated.", vllm_labels)),
      num_preemptions(
          counter("vllm:num_preemptions_total", "Preemptions by the engine (all by recompute).", vllm_labels)),
      admission_rejections(counter("vllm:admission_rejections_total", "Requests refused by a queue limit, by limit.",
                                   with("reason", "max_num_queued_reqs"))),
      prompt_tokens_computed(counter("vllm:prompt_tokens_by_source_total",
                                     "Prompt tokens of ended requests, by where their KV came from.",
                                     with("source", "local_compute"))),
      prompt_tokens_from_cache(counter("vllm:prompt_tokens_by_source_total",
                                       "Prompt tokens of ended requests, by where their KV came from.",
                                       with("source", "local_cache_hit"))),
      prompt_tokens_cached(counter("vllm:prompt_tokens_cached_total",
                                   "Prompt tokens of ended requests that a cache supplied.", vllm_labels)),
      prompt_tokens_cached_device(counter("vllm:prompt_tokens_cached_by_source_total",
                                          "Prompt tokens of ended requests that a cache supplied, by tier.",
                                          with("source", "device"))),
      time_to_first_token(histogram("vllm:time_to_first_token_seconds",
                                    "Arrival (before tokenization) to the first token at the front end.", vllm_labels,
                                    ttft_buckets())),
      inter_token_latency(histogram("vllm:inter_token_latency_seconds",
                                    "Between successive token-bearing steps of a sequence; one sample per step.",
                                    vllm_labels, token_interval_buckets())),
      time_per_output_token(
          histogram("vllm:request_time_per_output_token_seconds",
                    "Decode time / (generated tokens - 1), one sample per sequence of 2 tokens or more.", vllm_labels,
                    token_interval_buckets())),
      e2e_latency(histogram("vllm:e2e_request_latency_seconds", "Arrival to the last token at the front end.",
                            vllm_labels, request_time_buckets())),
      queue_time(histogram("vllm:request_queue_time_seconds",
                           "Queued to first scheduled; waiting after a preemption is not counted.", vllm_labels,
                           request_time_buckets())),
      prefill_time(histogram("vllm:request_prefill_time_seconds", "First scheduled to first token.", vllm_labels,
                             request_time_buckets())),
      decode_time(
          histogram("vllm:request_decode_time_seconds", "First to last token.", vllm_labels, request_time_buckets())),
      inference_time(histogram("vllm:request_inference_time_seconds", "First scheduled to last token.", vllm_labels,
                               request_time_buckets())),
      request_prompt_tokens(
          histogram("vllm:request_prompt_tokens", "Prompt tokens per request.", vllm_labels, token_count_buckets())),
      request_generation_tokens(histogram("vllm:request_generation_tokens", "Generated tokens per sequence.",
                                          vllm_labels, token_count_buckets())),
      iteration_tokens(
          histogram("vllm:iteration_tokens_total", "Tokens per engine step.", vllm_labels, iteration_token_buckets())),
      request_max_generation_tokens(histogram("vllm:request_max_num_generation_tokens",
                                              "Generated tokens of a request's longest choice.", vllm_labels,
                                              token_count_buckets())),
      request_params_n(
          histogram("vllm:request_params_n", "The n parameter of requests.", vllm_labels, small_count_buckets())),
      request_params_max_tokens(histogram("vllm:request_params_max_tokens", "The max_tokens parameter, where given.",
                                          vllm_labels, token_count_buckets())),
      request_num_preemptions(
          histogram("vllm:request_num_preemptions", "Preemptions per sequence.", vllm_labels, preemption_buckets())),
      request_prefill_kv_computed_tokens(histogram("vllm:request_prefill_kv_computed_tokens",
                                                   "Prompt tokens whose KV was computed, cached ones left out.",
                                                   vllm_labels, token_count_buckets())),
      engine_steps(counter("sextant:engine_steps_total", "Engine steps.", vllm_labels)),
      engine_busy_s(counter("sextant:engine_busy_seconds_total",
                            "Seconds inside model execution; its rate is the device's occupancy.", vllm_labels)),
      engine_schedule_s(counter("sextant:engine_schedule_seconds_total", "Seconds inside the scheduler.", vllm_labels)),
      step_host_ratio(histogram("sextant:step_host_overhead_ratio",
                                "Share of a step's time in which the host schedules and books, the device idle.",
                                vllm_labels, share_buckets())),
      collective_calls(counter_family("sextant:collective_calls_total",
                                      "Collectives between ranks, of all ranks together, by kind.")),
      collective_bytes(counter_family("sextant:collective_bytes_total",
                                      "Payload of collectives between ranks, of all ranks together, by kind.")),
      step_execute(
          histogram("sextant:step_execute_seconds", "Model execution of one step.", vllm_labels, step_time_buckets())),
      step_schedule(
          histogram("sextant:step_schedule_seconds", "Scheduling of one step.", vllm_labels, step_time_buckets())),
      llm_requests_success(
          counter("llm_requests_total", "Total requests, by outcome.", {{"model", model}, {"status", "success"}})),
      llm_requests_error(
          counter("llm_requests_total", "Total requests, by outcome.", {{"model", model}, {"status", "error"}})),
      llm_requests_aborted(
          counter("llm_requests_total", "Total requests, by outcome.", {{"model", model}, {"status", "aborted"}})),
      llm_requests_rejected(
          counter("llm_requests_total", "Total requests, by outcome.", {{"model", model}, {"status", "rejected"}})),
      llm_requests_in_flight(gauge("llm_requests_in_flight", "Requests accepted and not ended.", llm_labels)),
      llm_request_duration(
          histogram("llm_request_duration_seconds", "Arrival to the last token.", llm_labels, request_time_buckets())),
      llm_prompt_tokens(histogram("llm_request_tokens", "Tokens per request, by type.",
                                  {{"model", model}, {"type", "prompt"}}, token_count_buckets())),
      llm_completion_tokens(histogram("llm_request_tokens", "Tokens per request, by type.",
                                      {{"model", model}, {"type", "completion"}}, token_count_buckets())),
      llm_queue_depth(gauge("llm_queue_depth", "Requests waiting to be scheduled.", llm_labels)),
      llm_batch_size(histogram("llm_batch_size", "Sequences per engine step.", llm_labels, batch_size_buckets())),
      llm_ttft(histogram("llm_ttft_seconds", "Time to first token.", llm_labels, ttft_buckets())),
      llm_throughput(gauge("llm_throughput_tokens_per_sec", "Tokens generated per second, over the last 10 s or more.",
                           llm_labels)),
      gpu_utilization_ratio(gauge_family("sextant_gpu_utilization_ratio",
                                         "Share of the driver's last sample period in which a kernel ran, 0 to 1.")),
      gpu_memory_used_bytes(gauge_family("sextant_gpu_memory_used_bytes", "Memory of the GPU in use, by anyone.")),
      gpu_memory_total_bytes(gauge_family("sextant_gpu_memory_total_bytes", "Memory of the GPU.")),
      gpu_temperature_celsius(gauge_family("sextant_gpu_temperature_celsius", "Temperature of the GPU's core.")),
      gpu_power_watts(gauge_family("sextant_gpu_power_watts", "Power that the GPU's board draws.")),
      rank_step_s(
          gauge_family("sextant_rank_step_seconds",
                       "A step's time on this rank outside of collectives, smoothed: the slow rank's is the highest.")),
      rank_lag_s(
          gauge_family("sextant_rank_lag_seconds", "For so long other ranks have been waiting for this one now.")),
      rank_heartbeat_age_s(
          gauge_family("sextant_rank_heartbeat_age_seconds", "Since the rank's process was last heard of.")),
      rank_waited_for_s(prometheus::BuildCounter()
                            .Name("sextant_rank_waited_for_seconds_total")
                            .Help("Time that other ranks have waited for this one, sampled at each heartbeat.")
                            .Register(registry)),
      rank_steps(prometheus::BuildCounter()
                     .Name("sextant_rank_steps_total")
                     .Help("Steps that the rank has done.")
                     .Register(registry)),
      rank_collectives(prometheus::BuildCounter()
                           .Name("sextant_rank_collectives_total")
                           .Help("Collectives, sends and receives that the rank has entered.")
                           .Register(registry)),
      process_cpu_s(counter("process_cpu_seconds_total", "User and system CPU time spent.", {})),
      process_start_time_s(gauge("process_start_time_seconds", "Start of the process, seconds since 1970 (UTC).", {})),
      process_resident_bytes(gauge("process_resident_memory_bytes", "Resident memory.", {})),
      process_virtual_bytes(gauge("process_virtual_memory_bytes", "Virtual memory.", {})),
      process_open_fds(gauge("process_open_fds", "Open file descriptors.", {})),
      process_max_fds(gauge("process_max_fds", "Most file descriptors that may be open.", {})),
      process_threads(gauge("process_threads", "Threads of the process.", {})),
      startup_time_s(
          gauge_family("startup_time_seconds", "Time from the start of the server to its readiness, by phase.")),
      http_connections(gauge("http_connections_active", "Client connections that are open, WebSockets included.", {})),
      http_requests(prometheus::BuildCounter()
                        .Name("http_requests_total")
                        .Help("HTTP requests by route, method and class of status.")
                        .Register(registry)),
      http_duration(prometheus::BuildHistogram()
                        .Name("http_request_duration_seconds")
                        .Help("From the end of the request's header to the last byte of the answer.")
                        .Register(registry)),
      http_request_bytes(prometheus::BuildCounter()
                             .Name("http_request_bytes_total")
                             .Help("Bytes of request bodies, by route.")
                             .Register(registry)),
      http_response_bytes(prometheus::BuildCounter()
                              .Name("http_response_bytes_total")
                              .Help("Bytes of answers, heads included, by route.")
                              .Register(registry)) {
  const char* const reasons[] = {"stop", "length", "abort", "error"};  // in FinishReason's order
  for (size_t i = 0; i < request_success.size(); ++i) {
    request_success[i] =
        &counter("vllm:request_success_total", "Sequences that ended, by reason.", with("finished_reason", reasons[i]));
  }
  register_true_zeros();
}

void MetricFamilies::register_true_zeros() {
  counter("vllm:request_success_total", "Sequences that ended, by reason.", with("finished_reason", "repetition"));
  counter("vllm:admission_rejections_total", "Requests refused by a queue limit, by limit.",
          with("reason", "max_num_queued_tokens"));
  gauge("vllm:num_requests_waiting_by_reason", "Requests waiting, by what they wait for.", with("reason", "deferred"));
  for (const char* stage : {"waiting_to_start", "in_progress", "completed_waiting"}) {
    gauge("vllm:num_requests_kv_fetch_by_stage", "Requests whose KV is fetched from elsewhere, by stage.",
          with("stage", stage));
  }
  for (const char* state : {"awake", "weights_offloaded", "discard_all"}) {
    gauge("vllm:engine_sleep_state", "1 for the state the engine is in.", with("sleep_state", state))
        .Set(std::string_view(state) == "awake" ? 1 : 0);
  }
  counter("vllm:external_prefix_cache_queries_total", "Tokens looked up in an external cache; there is none.",
          vllm_labels);
  counter("vllm:external_prefix_cache_hits_total", "Tokens found in an external cache; there is none.", vllm_labels);
  counter("vllm:mm_cache_queries_total", "Multimodal inputs looked up; there are none.", vllm_labels);
  counter("vllm:mm_cache_hits_total", "Multimodal inputs found; there are none.", vllm_labels);
  counter("vllm:prompt_tokens_by_source_total", "Prompt tokens of ended requests, by where their KV came from.",
          with("source", "external_kv_transfer"));
  for (const char* source : {"host", "disk", "p2p", "external_unspecified"}) {
    counter("vllm:prompt_tokens_cached_by_source_total",
            "Prompt tokens of ended requests that a cache supplied, by tier.", with("source", source));
  }
}

}  // namespace sextant
