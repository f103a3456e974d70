#include "server/metrics.h"

#include <gmock/gmock.h>
#include <unistd.h>
#include <cstdio>
#include <fstream>
#include <thread>
#include <vector>

#include "server/process_stats.h"
#include "tests/server/metrics_text.h"

namespace sextant {
namespace {

const std::string kLabels = R"({engine="0",model_name="tiny"})";
std::string labels(const std::string& name,
                   const std::string& value) {  // sorted by name, as they are written
  std::map<std::string, std::string> all = {{"engine", "0"}, {"model_name", "tiny"}, {name, value}};
  std::string text = "{";
  for (const auto& [key, label] : all) text += (text.size() > 1 ? "," : "") + key + "=\"" + label + "\"";
  return text + "}";
}
std::string bucket(const std::string& name, const std::string& le) {
  return name + R"(_bucket{engine="0",model_name="tiny",le=")" + le + "\"}";
}

RequestTimings scripted_request() {
  RequestTimings timings;
  timings.num_prompt_tokens = 100;
  timings.num_cached_tokens = 64;
  timings.max_tokens = 50;
  timings.e2e_s = 0.8;
  ChoiceTimings first;
  first.finish_reason = FinishReason::kStop;
  first.num_generated_tokens = 11;
  first.num_preemptions = 1;
  first.queue_s = 0.004;
  first.prefill_s = 0.02;
  first.decode_s = 0.5;
  ChoiceTimings second;
  second.finish_reason = FinishReason::kLength;
  second.num_generated_tokens = 1;  // no TPOT
  second.queue_s = 0.004;
  second.prefill_s = 0.02;
  second.decode_s = 0.0;
  timings.choices = {first, second};
  return timings;
}

TEST(Metrics, EveryNameIsThereBeforeTheFirstRequest) {
  ServerMetrics metrics("tiny");
  EngineInfo info;
  info.block_size = 16;
  info.num_blocks = 100;
  info.max_model_len = 800;
  info.kv_cache_dtype = "bfloat16";
  metrics.set_engine_info(info, EngineConfig{});
  const MetricsText text(metrics.render());
  const std::map<std::string, std::string> expected = {{"vllm:num_requests_running", "gauge"},
                                                       {"vllm:num_requests_waiting", "gauge"},
                                                       {"vllm:num_requests_waiting_by_reason", "gauge"},
                                                       {"vllm:num_requests_kv_fetch_by_stage", "gauge"},
                                                       {"vllm:engine_sleep_state", "gauge"},
                                                       {"vllm:kv_cache_usage_perc", "gauge"},
                                                       {"vllm:prefix_cache_queries_total", "counter"},
                                                       {"vllm:prefix_cache_hits_total", "counter"},
                                                       {"vllm:external_prefix_cache_queries_total", "counter"},
                                                       {"vllm:external_prefix_cache_hits_total", "counter"},
                                                       {"vllm:mm_cache_queries_total", "counter"},
                                                       {"vllm:mm_cache_hits_total", "counter"},
                                                       {"vllm:prompt_tokens_total", "counter"},
                                                       {"vllm:prompt_tokens_by_source_total", "counter"},
                                                       {"vllm:prompt_tokens_cached_total", "counter"},
                                                       {"vllm:prompt_tokens_cached_by_source_total", "counter"},
                                                       {"vllm:generation_tokens_total", "counter"},
                                                       {"vllm:num_preemptions_total", "counter"},
                                                       {"vllm:request_success_total", "counter"},
                                                       {"vllm:admission_rejections_total", "counter"},
                                                       {"vllm:time_to_first_token_seconds", "histogram"},
                                                       {"vllm:inter_token_latency_seconds", "histogram"},
                                                       {"vllm:request_time_per_output_token_seconds", "histogram"},
                                                       {"vllm:e2e_request_latency_seconds", "histogram"},
                                                       {"vllm:request_queue_time_seconds", "histogram"},
                                                       {"vllm:request_prefill_time_seconds", "histogram"},
                                                       {"vllm:request_decode_time_seconds", "histogram"},
                                                       {"vllm:request_inference_time_seconds", "histogram"},
                                                       {"vllm:request_prompt_tokens", "histogram"},
                                                       {"vllm:request_generation_tokens", "histogram"},
                                                       {"vllm:iteration_tokens_total", "histogram"},
                                                       {"vllm:request_max_num_generation_tokens", "histogram"},
                                                       {"vllm:request_params_n", "histogram"},
                                                       {"vllm:request_params_max_tokens", "histogram"},
                                                       {"vllm:request_num_preemptions", "histogram"},
                                                       {"vllm:request_prefill_kv_computed_tokens", "histogram"},
                                                       {"vllm:cache_config_info", "gauge"},
                                                       {"llm_requests_total", "counter"},
                                                       {"llm_request_duration_seconds", "histogram"},
                                                       {"llm_request_tokens", "histogram"},
                                                       {"llm_queue_depth", "gauge"},
                                                       {"llm_batch_size", "histogram"},
                                                       {"llm_ttft_seconds", "histogram"},
                                                       {"llm_throughput_tokens_per_sec", "gauge"},
                                                       {"process_cpu_seconds_total", "counter"},
                                                       {"process_resident_memory_bytes", "gauge"},
                                                       {"process_virtual_memory_bytes", "gauge"},
                                                       {"process_open_fds", "gauge"},
                                                       {"process_max_fds", "gauge"},
                                                       {"process_start_time_seconds", "gauge"}};
  for (const auto& [name, type] : expected) EXPECT_EQ(text.type(name), type) << name;
  for (const char* absent : {"llm_gpu_utilization_percent", "llm_gpu_memory_used_bytes"}) {
    EXPECT_EQ(text.type(absent), "") << "what nobody measured is not shown";
  }
  for (const auto& [name, type] : text.types()) {
    EXPECT_EQ(type == "counter", name.ends_with("_total") && type != "histogram") << name;
  }
  for (const auto& [sample, value] : text.samples()) {
    if (!sample.starts_with("vllm:")) continue;
    EXPECT_NE(sample.find(R"(model_name="tiny")"), std::string::npos) << sample;
    EXPECT_NE(sample.find(R"(engine="0")"), std::string::npos) << sample;
  }
  EXPECT_EQ(text.value("vllm:engine_sleep_state" + labels("sleep_state", "awake")), 1);
  EXPECT_EQ(text.value("vllm:request_success_total" + labels("finished_reason", "stop")), 0);
  EXPECT_EQ(text.value(R"(vllm:cache_config_info{block_size="16",cache_dtype="bfloat16",enable_prefix_caching="True",)"
                       R"(engine="0",gpu_memory_utilization="0.920000",kv_cache_max_concurrency="2.000000",)"
                       R"(kv_cache_size_tokens="1600",model_name="tiny",num_gpu_blocks="100"})"),
            1);
}

TEST(Metrics, BucketsAreVllmsAndFinerOnes) {
  const MetricsText text(ServerMetrics("tiny").render());
  const auto expect_buckets = [&](const std::string& name, const std::vector<std::string>& buckets) {
    for (const std::string& le : buckets) EXPECT_TRUE(text.has(bucket(name, le))) << name << " " << le;
  };
  const std::vector<std::string> interval = {"0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01",
                                             "0.025",  "0.05",    "0.075",  "0.1",   "0.15",   "0.2",   "0.3",
                                             "0.4",    "0.5",     "0.75",   "1",     "2.5",    "5",     "7.5",
                                             "10",     "20",      "40",     "80",    "+Inf"};
  expect_buckets("vllm:inter_token_latency_seconds", interval);
  expect_buckets("vllm:request_time_per_output_token_seconds", interval);
  expect_buckets("vllm:time_to_first_token_seconds",
                 {"0.001", "0.005", "0.01", "0.02", "0.04", "0.06", "0.08", "0.1", "0.25", "0.5",  "0.75", "1",
                  "2.5",   "5",     "7.5",  "10",   "20",   "40",   "80",   "160", "640",  "2560", "+Inf"});
  for (const char* name :
       {"vllm:e2e_request_latency_seconds", "vllm:request_queue_time_seconds", "vllm:request_prefill_time_seconds",
        "vllm:request_decode_time_seconds", "vllm:request_inference_time_seconds"}) {
    expect_buckets(
        name, {"0.001", "0.005", "0.01", "0.05", "0.1", "0.3", "0.5", "0.8", "1",   "1.5", "2",    "2.5",  "5",   "10",
               "15",    "20",    "30",   "40",   "50",  "60",  "120", "240", "480", "960", "1920", "7680", "+Inf"});
  }
  expect_buckets("vllm:iteration_tokens_total",
                 {"1", "8", "16", "32", "64", "128", "256", "512", "1024", "2048", "4096", "8192", "16384", "+Inf"});
}

TEST(Metrics, AScriptedRequest) {
  ServerMetrics metrics("tiny");
  metrics.on_request_accepted();
  EXPECT_EQ(MetricsText(metrics.render()).value(R"(llm_requests_in_flight{model="tiny"})"), 1);
  metrics.on_first_token(0.03);
  metrics.on_first_token(0.03);
  for (int i = 0; i < 10; ++i) metrics.on_token_interval(0.002);
  metrics.on_finished(scripted_request());
  const MetricsText text(metrics.render());

  const auto count = [&](const std::string& name) { return text.value("vllm:" + name + "_count" + kLabels); };
  const auto sum = [&](const std::string& name) { return text.value("vllm:" + name + "_sum" + kLabels); };
  EXPECT_EQ(text.value("vllm:request_success_total" + labels("finished_reason", "stop")), 1);
  EXPECT_EQ(text.value("vllm:request_success_total" + labels("finished_reason", "length")), 1);
  EXPECT_EQ(text.value("vllm:request_success_total" + labels("finished_reason", "abort")), 0);
  EXPECT_EQ(count("time_to_first_token_seconds"), 2);
  EXPECT_DOUBLE_EQ(sum("time_to_first_token_seconds"), 0.06);
  EXPECT_EQ(text.value(bucket("vllm:time_to_first_token_seconds", "0.02")), 0);
  EXPECT_EQ(text.value(bucket("vllm:time_to_first_token_seconds", "0.04")), 2);
  EXPECT_EQ(count("inter_token_latency_seconds"), 10);
  EXPECT_EQ(text.value(bucket("vllm:inter_token_latency_seconds", "0.001")), 0);
  EXPECT_EQ(text.value(bucket("vllm:inter_token_latency_seconds", "0.0025")), 10);
  EXPECT_EQ(count("request_time_per_output_token_seconds"), 1) << "none for a sequence of one token";
  EXPECT_DOUBLE_EQ(sum("request_time_per_output_token_seconds"), 0.05) << "0.5 s / (11 - 1)";
  EXPECT_EQ(count("e2e_request_latency_seconds"), 1);
  EXPECT_DOUBLE_EQ(sum("e2e_request_latency_seconds"), 0.8);
  EXPECT_EQ(count("request_queue_time_seconds"), 2);
  EXPECT_DOUBLE_EQ(sum("request_prefill_time_seconds"), 0.04);
  EXPECT_DOUBLE_EQ(sum("request_decode_time_seconds"), 0.5);
  EXPECT_DOUBLE_EQ(sum("request_inference_time_seconds"), 0.54) << "prefill + decode";
  EXPECT_EQ(sum("request_prompt_tokens"), 100);
  EXPECT_EQ(sum("request_generation_tokens"), 12);
  EXPECT_EQ(count("request_generation_tokens"), 2);
  EXPECT_EQ(sum("request_max_num_generation_tokens"), 11);
  EXPECT_EQ(sum("request_params_n"), 2);
  EXPECT_EQ(sum("request_params_max_tokens"), 50);
  EXPECT_EQ(sum("request_num_preemptions"), 1);
  EXPECT_EQ(text.value(bucket("vllm:request_num_preemptions", "0")), 1);
  EXPECT_EQ(sum("request_prefill_kv_computed_tokens"), 36);
  EXPECT_EQ(text.value("vllm:prompt_tokens_cached_total" + kLabels), 64);
  EXPECT_EQ(text.value("vllm:prompt_tokens_by_source_total" + labels("source", "local_compute")), 36);
  EXPECT_EQ(text.value("vllm:prompt_tokens_by_source_total" + labels("source", "local_cache_hit")), 64);

  EXPECT_EQ(text.value(R"(llm_requests_total{model="tiny",status="success"})"), 1);
  EXPECT_DOUBLE_EQ(text.value(R"(llm_request_duration_seconds_sum{model="tiny"})"), 0.8);
  EXPECT_EQ(text.value(R"(llm_request_tokens_sum{model="tiny",type="prompt"})"), 100);
  EXPECT_EQ(text.value(R"(llm_request_tokens_sum{model="tiny",type="completion"})"), 12);
  EXPECT_EQ(text.value(R"(llm_ttft_seconds_count{model="tiny"})"), 2);
  EXPECT_EQ(text.value(R"(llm_requests_in_flight{model="tiny"})"), 0);
}

TEST(Metrics, RequestsThatDoNotEndWell) {
  ServerMetrics metrics("tiny");
  metrics.on_request_rejected();
  metrics.on_request_accepted();
  RequestTimings aborted;  // in the queue
  aborted.num_prompt_tokens = 5;
  aborted.choices.resize(1);
  aborted.choices[0].finish_reason = FinishReason::kAbort;
  metrics.on_finished(aborted);
  metrics.on_request_accepted();
  RequestTimings failed = scripted_request();
  failed.choices[1].finish_reason = FinishReason::kError;
  metrics.on_finished(failed);
  const MetricsText text(metrics.render());
  EXPECT_EQ(text.value("vllm:request_success_total" + labels("finished_reason", "abort")), 1);
  EXPECT_EQ(text.value("vllm:request_success_total" + labels("finished_reason", "error")), 1);
  EXPECT_EQ(text.value("vllm:e2e_request_latency_seconds_count" + kLabels), 0);
  EXPECT_EQ(text.value("vllm:request_queue_time_seconds_count" + kLabels), 2) << "of the failed one only";
  EXPECT_EQ(text.value("vllm:request_params_max_tokens_count" + kLabels), 1) << "where it was given";
  for (const char* status : {"aborted", "error", "rejected"}) {
    EXPECT_EQ(text.value(R"(llm_requests_total{model="tiny",status=")" + std::string(status) + "\"}"), 1) << status;
  }
  EXPECT_EQ(text.value(R"(llm_requests_total{model="tiny",status="success"})"), 0);
}

TEST(Metrics, GpusAreShownAsFarAsTheyAreRead) {
  ServerMetrics metrics("tiny");
  EXPECT_EQ(MetricsText(metrics.render()).type("sextant_gpu_power_watts"), "") << "what nobody measured is not shown";
  std::vector<DeviceReading> readings(2);
  metrics.set_device_readings_source([&] { return readings; });
  readings[0] = {0, "NVIDIA H200", "GPU-a", 0.75, uint64_t{3} << 30, uint64_t{141} << 30, 61, 512.5};
  readings[1].index = 1;
  readings[1].uuid = "GPU-b";
  readings[1].temperature_celsius = 40;
  const std::string first = R"({gpu="0",uuid="GPU-a"})";
  const std::string second = R"({gpu="1",uuid="GPU-b"})";
  {
    const MetricsText text(metrics.render());
    EXPECT_EQ(text.type("sextant_gpu_utilization_ratio"), "gauge");
    EXPECT_EQ(text.value("sextant_gpu_utilization_ratio" + first), 0.75);
    EXPECT_EQ(text.value("sextant_gpu_memory_used_bytes" + first), 3.0 * (1 << 30));
    EXPECT_EQ(text.value("sextant_gpu_memory_total_bytes" + first), 141.0 * (1 << 30));
    EXPECT_EQ(text.value("sextant_gpu_temperature_celsius" + first), 61);
    EXPECT_EQ(text.value("sextant_gpu_power_watts" + first), 512.5);
    EXPECT_EQ(text.value("sextant_gpu_temperature_celsius" + second), 40);
    EXPECT_FALSE(text.has("sextant_gpu_power_watts" + second));
  }
  readings[0].power_watts.reset();
  readings[0].temperature_celsius = 62;
  readings.pop_back();
  const MetricsText text(metrics.render());
  EXPECT_EQ(text.value("sextant_gpu_temperature_celsius" + first), 62);
  EXPECT_FALSE(text.has("sextant_gpu_temperature_celsius" + second)) << "not read any more";
  EXPECT_EQ(text.type("sextant_gpu_power_watts"), "");
}

TEST(Metrics, EngineStateAndSteps) {
  ManualClock clock;
  clock.advance_ns(1'000'000'000);
  ServerMetrics metrics("tiny", clock);
  EngineStats stats;
  int num_asked = 0;
  metrics.set_engine_stats_source([&] {
    ++num_asked;
    return stats;
  });
  stats.num_requests_running = 3;
  stats.num_requests_waiting = 2;
  stats.kv_cache_usage = 0.25;
  stats.prefix_cache_queries = 100;
  stats.prefix_cache_hits = 48;
  stats.num_preemptions = 1;
  stats.prompt_tokens = 100;
  stats.generation_tokens = 40;
  stats.num_steps = 10;
  stats.step_busy_s = 0.5;
  stats.collectives.of(CollectiveKind::kAllReduce) = {3, 1234};
  stats.queue_rejections = 4;
  MetricsText text(metrics.render());
  EXPECT_EQ(num_asked, 1);
  EXPECT_EQ(text.value("vllm:num_requests_running" + kLabels), 3);
  EXPECT_EQ(text.value("vllm:num_requests_waiting" + kLabels), 2);
  EXPECT_EQ(text.value("vllm:num_requests_waiting_by_reason" + labels("reason", "capacity")), 2);
  EXPECT_EQ(text.value("vllm:kv_cache_usage_perc" + kLabels), 0.25) << "0 to 1, despite its name";
  EXPECT_EQ(text.value("vllm:prefix_cache_queries_total" + kLabels), 100);
  EXPECT_EQ(text.value("vllm:prefix_cache_hits_total" + kLabels), 48);
  EXPECT_EQ(text.value("vllm:num_preemptions_total" + kLabels), 1);
  EXPECT_EQ(text.value("vllm:prompt_tokens_total" + kLabels), 100);
  EXPECT_EQ(text.value("vllm:generation_tokens_total" + kLabels), 40);
  EXPECT_EQ(text.value("vllm:admission_rejections_total" + labels("reason", "max_num_queued_reqs")), 4);
  EXPECT_EQ(text.value(R"(llm_queue_depth{model="tiny"})"), 2);
  EXPECT_EQ(text.value(R"(llm_throughput_tokens_per_sec{model="tiny"})"), 0) << "one moment has no rate";
  EXPECT_DOUBLE_EQ(text.value("sextant:engine_busy_seconds_total" + kLabels), 0.5);
  EXPECT_EQ(text.value("sextant:collective_calls_total" + labels("kind", "all_reduce")), 3);
  EXPECT_EQ(text.value("sextant:collective_bytes_total" + labels("kind", "all_reduce")), 1234);
  EXPECT_FALSE(text.has("sextant:collective_bytes_total" + labels("kind", "broadcast"))) << "none was called";

  clock.advance_ns(5'000'000'000);
  stats.generation_tokens = 140;
  stats.num_requests_waiting = 0;
  metrics.on_step({.num_tokens = 20, .num_sequences = 3, .schedule_s = 0.00001, .execute_s = 0.05});
  text = MetricsText(metrics.render());
  EXPECT_EQ(text.value("vllm:generation_tokens_total" + kLabels), 140) << "a total, not a sum of totals";
  EXPECT_EQ(text.value("vllm:prompt_tokens_total" + kLabels), 100);
  EXPECT_EQ(text.value("vllm:num_requests_waiting" + kLabels), 0);
  EXPECT_DOUBLE_EQ(text.value(R"(llm_throughput_tokens_per_sec{model="tiny"})"), 20) << "100 tokens in 5 s";
  EXPECT_EQ(text.value("vllm:iteration_tokens_total_sum" + kLabels), 20);
  EXPECT_EQ(text.value(R"(llm_batch_size_bucket{model="tiny",le="4"})"), 1);
  EXPECT_EQ(text.value(R"(llm_batch_size_bucket{model="tiny",le="2"})"), 0);

  // Idle for long: the rate falls to nothing.
  for (int i = 0; i < 5; ++i) {
    clock.advance_ns(6'000'000'000);
    text = MetricsText(metrics.render());
  }
  EXPECT_EQ(text.value(R"(llm_throughput_tokens_per_sec{model="tiny"})"), 0);

  // A new engine counts from zero; counters never fall.
  stats = EngineStats{};
  stats.generation_tokens = 5;
  clock.advance_ns(1'000'000'000);
  text = MetricsText(metrics.render());
  EXPECT_EQ(text.value("vllm:generation_tokens_total" + kLabels), 145);
  EXPECT_GE(text.value(R"(llm_throughput_tokens_per_sec{model="tiny"})"), 0);
}

TEST(Metrics, TheGatewaySaysWhatItRefusedAndHowItsKeepersAre) {
  ServerMetrics metrics("m");
  EXPECT_FALSE(MetricsText(metrics.render()).has("sextant:state_store_up"));  // nothing is kept
  GatewayReading reading;
  reading.refused = {{"rate", 3}, {"quota", 0}};
  reading.store = StateStoreReading{.is_up = false, .failures = 2, .unwritten_requests = 7};
  reading.shared_limits = SharedLimitsReading{.is_up = false, .failures = 3, .local_checks = 8};
  reading.audit = AuditReading{.records = 9, .lost = 1, .waiting = 4, .is_failing = true};
  metrics.set_gateway_source([&] { return reading; });
  EngineStats stats;
  stats.queue_rejections = 5;
  metrics.set_engine_stats(stats);
  MetricsText shown(metrics.render());
  EXPECT_EQ(shown.value("sextant:requests_refused_total{reason=\"rate\"}"), 3);
  EXPECT_EQ(shown.value("sextant:requests_refused_total{reason=\"quota\"}"), 0);
  EXPECT_EQ(shown.value("sextant:requests_refused_total{reason=\"queue\"}"), 5);
  EXPECT_EQ(shown.value("sextant:state_store_up"), 0);
  EXPECT_EQ(shown.value("sextant:state_store_failures_total"), 2);
  EXPECT_EQ(shown.value("sextant:state_store_unwritten_requests"), 7);
  EXPECT_EQ(shown.value("sextant:redis_up"), 0);
  EXPECT_EQ(shown.value("sextant:redis_failures_total"), 3);
  EXPECT_EQ(shown.value("sextant:redis_local_checks_total"), 8);
  EXPECT_EQ(shown.value("audit_records_total"), 9);
  EXPECT_EQ(shown.value("audit_records_lost_total"), 1);
  EXPECT_EQ(shown.value("audit_records_waiting"), 4);
  EXPECT_EQ(shown.value("audit_log_failing"), 1);
  EXPECT_FALSE(shown.has("backups_total"));
  reading.refused[0].second = 4;
  reading.store->is_up = true;
  shown = MetricsText(metrics.render());
  EXPECT_EQ(shown.value("sextant:requests_refused_total{reason=\"rate\"}"), 4);
  EXPECT_EQ(shown.value("sextant:state_store_up"), 1);
  metrics.set_gateway_source({});
}

TEST(Metrics, HttpRequestsHaveBoundedLabels) {
  ServerMetrics metrics("tiny");
  const auto observe = [&](std::string_view method, std::string_view pattern, int status) {
    http::RequestRecord record;
    record.method = method;
    record.path = "/whatever";
    record.pattern = pattern;
    record.status = status;
    record.duration_s = 0.004;
    record.request_bytes = 10;
    record.response_bytes = 100;
    metrics.on_http_request(record);
  };
  observe("POST", "/v1/chat/completions", 200);
  observe("POST", "/v1/chat/completions", 204);
  observe("POST", "/v1/chat/completions", 429);
  observe("GET", "", 404);
  for (int i = 0; i < 100; ++i) observe("METHOD" + std::to_string(i), "", 405);
  const MetricsText text(metrics.render());
  EXPECT_EQ(text.value(R"(http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"})"), 2);
  EXPECT_EQ(text.value(R"(http_requests_total{handler="/v1/chat/completions",method="POST",status="4xx"})"), 1);
  EXPECT_EQ(text.value(R"(http_requests_total{handler="none",method="GET",status="4xx"})"), 1);
  EXPECT_EQ(text.value(R"(http_requests_total{handler="none",method="OTHER",status="4xx"})"), 100);
  EXPECT_EQ(
      text.value(
          R"(http_request_duration_seconds_bucket{handler="/v1/chat/completions",method="POST",status="2xx",le="0.005"})"),
      2);
  EXPECT_EQ(text.value(R"(http_response_bytes_total{handler="/v1/chat/completions"})"), 300);
}

TEST(Metrics, HostileModelNamesStayInsideTheirLabel) {
  ServerMetrics metrics("a\"b\\c\nd{}");
  const std::string text = metrics.render();
  EXPECT_THAT(text, testing::HasSubstr(R"(model_name="a\"b\\c\nd{}")"));
  EXPECT_EQ(text.find("\nd{}"), std::string::npos);
}

TEST(Metrics, ProcessFiguresArePlausible) {
  const ProcessStats stats = read_process_stats();
  EXPECT_GT(stats.resident_bytes, 1 << 20);
  EXPECT_GT(stats.virtual_bytes, stats.resident_bytes);
  EXPECT_GE(stats.num_open_fds, 3);
  EXPECT_GT(stats.max_fds, stats.num_open_fds);
  EXPECT_GE(stats.num_threads, 1);
  const auto now_s = static_cast<double>(time(nullptr));
  EXPECT_LE(stats.start_time_s, now_s + 2);
  EXPECT_GT(stats.start_time_s, now_s - 3600 * 24);
  volatile double spin = 0;
  while (read_process_stats().cpu_s < stats.cpu_s + 0.02) {
    for (int i = 0; i < 1'000'000; ++i) spin = spin + i;
  }
}

TEST(Metrics, ManyThreadsLoseNothing) {
  ServerMetrics metrics("tiny");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&metrics, t] {
      for (int i = 0; i < 1000; ++i) {
        metrics.on_request_accepted();
        metrics.on_token_interval(0.001);
        metrics.on_finished(scripted_request());
        metrics.on_step({.num_tokens = 1, .num_sequences = 1, .schedule_s = 0, .execute_s = 0});
        http::RequestRecord record;
        record.method = "GET";
        record.status = 200;
        metrics.on_http_request(record);
        if (i % 200 == t) (void)metrics.render();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const MetricsText text(metrics.render());
  EXPECT_EQ(text.value(R"(llm_requests_total{model="tiny",status="success"})"), 4000);
  EXPECT_EQ(text.value("vllm:inter_token_latency_seconds_count" + kLabels), 4000);
  EXPECT_EQ(text.value("vllm:iteration_tokens_total_sum" + kLabels), 4000);
  EXPECT_EQ(text.value(R"(http_requests_total{handler="none",method="GET",status="2xx"})"), 4000);
}

// What Prometheus' own checker says: no error, and of its style remarks only those that the names given to us
// bring with them.
TEST(Metrics, PassPromtool) {
  if (std::system("command -v promtool >/dev/null 2>&1") != 0) GTEST_SKIP() << "promtool is not installed";
  ServerMetrics metrics("tiny");
  metrics.set_engine_info(EngineInfo{}, EngineConfig{});
  metrics.on_finished(scripted_request());
  http::RequestRecord record;
  record.method = "GET";
  record.status = 200;
  metrics.on_http_request(record);
  std::string path = testing::TempDir() + "sextant_metrics_XXXXXX";
  const int fd = mkstemp(path.data());
  ASSERT_GE(fd, 0);
  close(fd);
  std::ofstream(path) << metrics.render();
  FILE* pipe = popen(("promtool check metrics < " + path + " 2>&1").c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string said;
  char chunk[4096];
  while (const size_t num = fread(chunk, 1, sizeof(chunk), pipe)) said.append(chunk, num);
  const int status = pclose(pipe);
  unlink(path.c_str());
  EXPECT_TRUE(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3)) << said;  // 3: remarks only
  std::istringstream lines(said);
  std::string line;
  while (std::getline(lines, line)) {
    const bool is_colon = line.find("metric names should not contain ':'") != std::string::npos;
    const bool is_known =
        line == R"(vllm:iteration_tokens_total non-counter metrics should not have "_total" suffix)" ||
        line == "llm_throughput_tokens_per_sec metric names should not contain abbreviated units";
    EXPECT_TRUE(is_colon || is_known) << line;
  }
}

}  // namespace
}  // namespace sextant
