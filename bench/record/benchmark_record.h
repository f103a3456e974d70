// sextant.benchmark/1: one measured (or simulated, or imported) point of one deployment under one load, as plain data; what
// `bench` writes with --record and the advisor's knowledge base imports. One JSON object per line; bench/schema/ holds the
// JSON Schema. Pure data, any thread. Must not know how anything was measured, nor the engine, nor HTTP.
//
// What was not measured is absent (std::nullopt, null in JSON), never 0.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"

namespace sextant::bench {

inline constexpr std::string_view kRecordSchema = "sextant.benchmark/1";

enum class RecordSource {
  kMeasured,
  kSimulated,  // never trains predictions of real engines
  kImported,   // measured by others; `attribution` says by whom
};

struct Interval {
  double low = 0;
  double high = 0;
};

// 90% confidence intervals of the statistics of the same names.
struct MetricIntervals {
  std::optional<Interval> mean, p50, p90, p95, p99, p99_9;
};

// Of one latency in milliseconds. A percentile is absent when fewer than 10 samples lie beyond it.
struct MetricSummary {
  std::optional<int64_t> n;  // samples; absent where a source does not tell
  double mean = 0;
  std::optional<double> p50, p90, p95, p99, p99_9;
  std::optional<MetricIntervals> ci90;
};

// Of lengths in tokens.
struct LengthSummary {
  double mean = 0;
  std::optional<double> p50, p95, max;
};

struct TestConditions {
  // constant, poisson, gamma, concurrency, all_at_once, ramp, stages, trace, diurnal; batch (`bench engine`); kernel (`bench kernels`)
  std::string load;
  std::optional<int64_t> concurrency;   // the most requests at once; absent for an open loop
  std::optional<double> request_rate;   // requests/s asked for; absent for a closed loop
  std::optional<double> burstiness_cv;  // coefficient of variation of the gaps between arrivals: 0 constant, 1 Poisson
  LengthSummary prompt_tokens;          // as counted for the requests that were measured
  LengthSummary output_tokens;
  std::optional<double> prefix_hit_ratio;  // of prompt tokens, as the server says: 0..1
  int64_t num_requests = 0;                // measured (without warm-up and cool-down), failures included
  double duration_s = 0;                   // of the measured part
  std::optional<int64_t> seed;
  std::string tokens_counted_by;  // token_ids, usage, tokenizer, chunks; engine (no HTTP); imported
};

struct RecordMetrics {
  std::optional<MetricSummary> ttft_ms;   // send -> first token
  std::optional<MetricSummary> tpot_ms;   // (E2E - TTFT) / (n - 1), one sample per request
  std::optional<MetricSummary> itl_ms;    // gaps between events, pooled over all requests
  std::optional<MetricSummary> e2e_ms;    // send -> last token
  std::optional<MetricSummary> queue_ms;  // in the server's queue, as the server says
  std::optional<double> request_rps;      // finished requests per second
  std::optional<double> input_tokens_per_s;
  std::optional<double> output_tokens_per_s;
  std::optional<double> goodput_rps;      // finished requests that met every limit, per second
  std::optional<double> error_rate;       // 0..1
  std::optional<double> memory_used_gib;  // of all GPUs together, the largest seen
  std::optional<double> gpu_utilization_pct;
  std::optional<double> energy_j_per_token;  // per output token
};

struct RecordValidity {
  std::optional<double> send_lag_p99_ms;       // over 5 ms: the client was late
  std::optional<double> achieved_ratio;        // achieved / requested rate; under 0.98: not the load that was asked for
  std::optional<bool> over_saturated;          // the queue grew all the time: latencies depend on the run's length
  std::optional<double> client_self_time_pct;  // of one core
  std::vector<std::string> warnings;
};

// The machine that served, where it is known.
struct RecordHost {
  std::optional<std::string> cpu;
  std::optional<int64_t> num_cpus;
  std::optional<double> memory_gib;
  std::optional<std::string> os;
};

// The time of day as a record's timestamp.
std::string timestamp_now();

struct BenchmarkRecord {
  std::string record_id;  // SHA-256 of the rest, see compute_record_id; filled by to_json, checked by read_record
  std::string timestamp;  // RFC 3339 in UTC, "2026-01-31T12:00:00Z": the begin of the measurement
  RecordSource source = RecordSource::kMeasured;
  std::optional<std::string> attribution;  // of imported data: whose it is, and its licence
  std::string model_id;
  std::optional<std::string> weights_sha256;
  std::optional<std::string> weight_quantization;  // "bf16", "fp8", "q4_1"...
  std::optional<std::string> kv_cache_dtype;
  std::optional<std::string> gpu_type;  // absent: a CPU, or not known
  int64_t num_gpus = 0;                 // 0: a CPU
  int64_t tensor_parallel = 1;
  int64_t pipeline_parallel = 1;
  int64_t data_parallel = 1;
  int64_t expert_parallel = 1;
  std::string engine;  // "sextant", "vllm", "llama.cpp"...
  std::optional<std::string> engine_version;
  nlohmann::json engine_config = nlohmann::json::object();  // keys of --print-config
  std::optional<RecordHost> host;
  TestConditions test_conditions;
  RecordMetrics metrics;
  RecordValidity validity;
};

// Lower-case hex SHA-256 of the record's canonical JSON (keys sorted, no spaces) without record_id.
std::string compute_record_id(const BenchmarkRecord& record);

// With "schema" and a fresh record_id.
nlohmann::json to_json(const BenchmarkRecord& record);
// to_json on one line, without a line break at its end.
std::string to_line(const BenchmarkRecord& record);

// Strict: every field of the form, none besides, each of its type and in its range, and the record_id true. The message
// names the field by its path ("metrics.ttft_ms.mean"), all faults of a record in one message.
Result<BenchmarkRecord> read_record(const nlohmann::json& json);

// JSON lines; blank lines are skipped. `source` names the text in messages, which carry the line's number. A faulty line
// is an error of the whole: nothing is imported by half.
Result<std::vector<BenchmarkRecord>> read_records(std::string_view text, const std::string& source);
Result<std::vector<BenchmarkRecord>> read_record_file(const std::string& path);
// Appends (and creates). Each record is written with one write, so that several writers do not mix lines.
Status append_records(const std::string& path, const std::vector<BenchmarkRecord>& records);

// The record under the names of the pre-deployment assistant's benchmark store ("tensor_parallel_degree", "ttft_p50_ms",
// "throughput_tokens_per_sec"...). Percentiles that are absent are null.
nlohmann::json to_planner_json(const BenchmarkRecord& record);

// The JSON Schema (draft 2020-12) of the form, made from the same list of fields that reads and writes it.
nlohmann::ordered_json record_schema();

}  // namespace sextant::bench
