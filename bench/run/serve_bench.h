// ServeBench: a benchmark of a server, from options to measurements: asks the server what it is, checks it with one request,
// prepares prompts, runs one load after another, and searches where it is told to. Blocks the calling thread.
// Must not know flags, terminals or file formats.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/client/load_client.h"
#include "bench/run/measurement.h"

namespace sextant::bench {

struct LoadOptions {
  std::optional<LoadKind> kind;  // absent: follows from what is given
  double request_rate = 0;       // requests/s; 0: as fast as possible
  double burstiness = 1;
  std::optional<int64_t> max_concurrency;
  double ramp_begin = 0, ramp_end = 0;  // requests/s
  bool ramp_exponential = false;
  RateCurve stages;
  std::vector<double> daily_shape;
  double day_s = 0;                  // a day takes this long
  double trace_speed = 1;            // 2: twice as fast as it was recorded
  std::optional<double> duration_s;  // no request is sent later
};

// What cannot be measured from outside, for records.
struct Deployment {
  std::string engine, engine_version, gpu_type, weight_quantization, kv_cache_dtype, weights_sha256;
  std::optional<int64_t> num_gpus;
  int64_t tensor_parallel = 1, pipeline_parallel = 1, data_parallel = 1, expert_parallel = 1;
  nlohmann::json engine_config = nlohmann::json::object();
  bool is_simulated = false;
};

struct ServeBenchOptions {
  std::string url = "http://127.0.0.1:8000";
  std::string api_key;
  std::vector<std::string> headers;
  std::string endpoint;     // empty: by `prompts.chat`
  std::string model;        // empty: the first that the server lists
  std::string tokenizer;    // a GGUF file or a directory; empty: none
  std::string metrics_url;  // empty: <url>/metrics; "none"
  bool verify_tls = true;
  PromptOptions prompts;
  size_t num_requests = 1000;
  LoadOptions load;
  std::vector<RequestLimit> goodput;
  std::vector<RunGoal> slo;
  int64_t num_warmups = 0;  // requests before the measurement
  double warmup_s = 0, cooldown_s = 0;
  double request_timeout_s = 600;
  double ready_timeout_s = 0;  // wait for the server
  bool skip_check = false;
  size_t sweep_points = 0;  // 0: no sweep
  bool find_max_rate = false;
  double rate_precision = 0.05;  // relative width at which the search ends
  double max_rate = 0;           // of the search; 0: none
  Deployment deployment;
};

struct BenchPoint {
  std::string label;  // "rate 4", "concurrency 16"
  LoadOptions load;
  LoadKind kind = LoadKind::kAllAtOnce;
  uint64_t seed = 0;
  std::string timestamp;  // begin, UTC
  Measurement measurement;
  std::optional<bool> slo_met;  // absent: no SLO was given, or too few requests to say
};

struct BenchResult {
  std::string url, endpoint, model;
  bool is_this_machine = false;
  std::optional<int64_t> max_model_len;
  Deployment deployment;
  std::vector<std::string> warnings;  // of the whole
  std::vector<BenchPoint> points;
  std::optional<double> max_rate;     // requests/s that keep the SLO; only of a search
  std::optional<double> failed_rate;  // the lowest that did not
  bool interrupted = false;
  std::optional<Status> failed;  // why it ended early; the points before it hold
};

struct BenchHooks {
  std::function<void(const std::string&)> on_note;  // "checking the server"
  std::function<void(const BenchPoint&, size_t num_points_hint, const LiveCounts&)> on_progress;
  std::function<void(const BenchPoint&)> on_point;  // a point is done
  std::function<bool()> interrupted;
};

// Of the options alone: every error at once.
std::vector<Status> validate(const ServeBenchOptions& options);

LoadKind load_kind(const LoadOptions& load, const PromptOptions& prompts);

// A Status when nothing was measured; errors in the middle are in the result.
Result<BenchResult> run_serve_bench(const ServeBenchOptions& options, const BenchHooks& hooks);

// The record of a point, with what the deployment and the machine say.
// This machine, as far as it says.
RecordHost this_host();
BenchmarkRecord make_record(const BenchResult& result, const BenchPoint& point);

}  // namespace sextant::bench
