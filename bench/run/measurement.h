// Measurement: what a run's outcomes come to: latencies, rates, goodput, errors, and whether to believe them. Pure; the formulas are
// in measurement_formulas(), which every report prints.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/client/load_client.h"
#include "bench/load/arrivals.h"
#include "bench/prompts/prompt_set.h"
#include "bench/record/benchmark_record.h"
#include "bench/run/goals.h"
#include "bench/run/monitor.h"
#include "bench/statistics/statistics.h"

namespace sextant::bench {

struct MeasureOptions {
  LoadKind load = LoadKind::kAllAtOnce;
  double warmup_s = 0;    // after the first send
  double cooldown_s = 0;  // before the last end
  std::vector<RequestLimit> goodput;
  const Tokenizer* tokenizer = nullptr;
};

// One latency in milliseconds, ascending.
struct LatencyResult {
  std::vector<double> sorted_ms;
  double mean_ms = 0;
  std::optional<Bounds> mean_ci;  // 90%
  bool pooled = false;            // several samples per request: percentiles get no interval

  bool empty() const { return sorted_ms.empty(); }
  std::optional<double> at(double q) const;           // nothing: n too small
  std::optional<Bounds> interval_at(double q) const;  // 90%
};

// One measured request, for CSV and for comparing runs. NaN: it has none.
struct RequestRow {
  size_t index = 0;
  OutcomeKind kind = OutcomeKind::kNotSent;
  bool in_window = false;
  double scheduled_s = 0, sent_s = 0;  // from the begin
  double ttft_ms = 0, tpot_ms = 0, e2e_ms = 0, ttft_scheduled_ms = 0, e2e_scheduled_ms = 0;
  int64_t prompt_tokens = -1, output_tokens = -1;
  std::string message;
};

struct Timeline {
  double bin_s = 1;
  std::vector<double> sent_rps, finished_rps, output_tokens_per_s, running, waiting_first_token;
};

struct Measurement {
  LoadKind load = LoadKind::kAllAtOnce;
  size_t num_planned = 0, num_sent = 0, num_finished = 0, num_failed = 0, num_interrupted = 0;
  size_t num_measured = 0;               // sent inside the window, failures included
  std::map<std::string, size_t> errors;  // by class, inside the window
  std::map<std::string, std::string> error_examples;
  double window_begin_s = 0, window_end_s = 0;
  LatencyResult ttft, tpot, itl, e2e, normalized_tpot, ttft_scheduled, e2e_scheduled;
  std::optional<double> queue_mean_ms;  // the server's own histogram
  std::optional<int64_t> num_queued;
  double request_rps = 0, input_tokens_per_s = 0, output_tokens_per_s = 0, total_tokens_per_s = 0;
  double mean_running = 0;  // requests in flight, mean over the window
  int64_t input_tokens = 0, output_tokens = 0;
  bool input_tokens_known = false;
  std::optional<int64_t> num_good;  // of the finished that were measured
  std::optional<double> goodput_rps;
  std::string tokens_counted_by;
  std::optional<LengthSummary> prompt_lengths, output_lengths;
  std::optional<double> prefix_hit_ratio;
  RecordValidity validity;
  bool valid = true;
  double client_cpu_s = 0, client_us_per_event = 0;
  int64_t num_events = 0, num_connections = 0;
  std::optional<double> memory_used_gib, gpu_utilization_pct, energy_j_per_token, power_w;
  Timeline timeline;
  std::vector<double> batch_rps, batch_tokens_per_s;  // of ten equal parts of the window
  std::vector<RequestRow> rows;
  MonitorResult monitor;
  int64_t begin_ns = 0;

  double window_s() const { return window_end_s - window_begin_s; }
  const LatencyResult& latency(Latency which) const;
  double error_rate() const;
};

Measurement measure(ClientRun run, const std::vector<PreparedRequest>& requests, MonitorResult monitor,
                    const MeasureOptions& options);

// Whether a goal is met: by the percentile where there are samples enough for one, else by how many requests lie beyond the
// limit (binomial, 5% on each side); nothing where that does not tell either.
std::optional<bool> goal_met(const Measurement& measurement, const RunGoal& goal);

// Name and formula of everything that is reported.
const std::vector<std::pair<std::string, std::string>>& measurement_formulas();

}  // namespace sextant::bench
