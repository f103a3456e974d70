// The JSON of a benchmark run, sextant.bench_result/1: everything that the other reports show and `bench compare` reads. Pure.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/run/serve_bench.h"

namespace sextant::bench {

inline constexpr std::string_view kResultSchema = "sextant.bench_result/1";

struct ReportOptions {
  std::string tool_version;
  std::vector<std::string> command;                          // as it was given, without keys
  std::vector<double> percentiles = {50, 90, 95, 99, 99.9};  // of the summary on the terminal
  std::vector<Latency> latencies = {Latency::kTtft, Latency::kTpot, Latency::kItl, Latency::kE2e};
  std::vector<RunGoal> slo;
  std::vector<RequestLimit> goodput;
  std::string prompts;  // "512 in, 128 out"
};

nlohmann::ordered_json result_json(const BenchResult& result, const ReportOptions& options);

// One row per request of every point.
std::string result_csv(const BenchResult& result);

// What `bench compare` needs of one point of a result.
struct LoadedPoint {
  std::string label;
  std::string model, engine;
  std::map<std::string, std::vector<double>> samples;  // "ttft", "tpot", "e2e": one per finished, measured request
  std::map<std::string, std::vector<double>>
      batches;                           // "request_rps", "output_tokens_per_s": of equal parts of the window
  std::map<std::string, double> values;  // the same rates over the window, error_rate
  bool valid = true;
};
struct LoadedResult {
  std::string source;
  std::vector<LoadedPoint> points;
};
// Errors name the file and what is wrong.
Result<LoadedResult> load_result(const std::string& path);

}  // namespace sextant::bench
