// Percentiles for `sextant advise predict`: latencies under rates and bursts, by a queue whose steps take what a deployment's
// records, or the predictor's means, say. Knows only advisor/, bench's record form and the terminal.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "advisor/queueing/record_loads.h"
#include "engine/base/status.h"

namespace CLI {
class App;
}

namespace sextant::cli {

struct ForecastSettings {
  std::string records;        // a file; empty: the predictor's means
  std::vector<double> rates;  // requests per second
  double burstiness = 1;      // shape of the gamma distribution of gaps
  double prompt_cv = 0;
  double output_cv = 0;
  int64_t num_requests = 1000;
  int64_t num_runs = 15;
  uint64_t seed = 1;
  std::optional<int64_t> max_num_seqs, max_num_batched_tokens;
};

void declare_forecast(CLI::App& app, ForecastSettings& settings);
std::vector<Status> validate(const ForecastSettings& settings);

struct ForecastQuestion {
  std::string verb;  // for messages
  double prompt_tokens = 0;
  double output_tokens = 0;
  std::vector<int64_t> concurrencies;  // closed loops beside the rates
  double ttft_limit_ms = 0;
  double tpot_limit_ms = 0;
  bool json = false;
};

// Of the one deployment in settings.records that `filter` leaves. Prints text or one JSON object; gives the exit code.
int forecast_from_records(const ForecastSettings& settings, const ForecastQuestion& question,
                          const advisor::RecordFilter& filter);

// Of a deployment whose means are known under some loads; `provenance` says where from, `server` holds its limits.
int forecast_from_loads(const ForecastSettings& settings, const ForecastQuestion& question,
                        const advisor::RecordedDeployment& deployment, const advisor::StepShape& shape,
                        const std::string& provenance);

}  // namespace sextant::cli
