// Benchmark records of one deployment as loads that a step's cost is fitted to. Pure; any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "advisor/queueing/step_fit.h"
#include "bench/record/benchmark_record.h"

namespace sextant::advisor {

struct RecordedDeployment {
  std::string model_id;
  std::string gpu_type;  // empty: a CPU, or not known
  int64_t tensor_parallel = 1;
  std::string engine;
  std::string engine_version;
  bool simulated = false;
  QueueServer server;  // limits as the records' settings say, else vLLM's defaults; no cost yet
  std::vector<MeasuredLoad> loads;
  std::vector<std::string> left_out;  // records that are of no use, each with the reason
  std::vector<std::string> assumed;   // limits that no record states
};

struct RecordFilter {  // empty: any
  std::string model_id;
  std::string gpu_type;
  std::optional<int64_t> tensor_parallel;
};

// kInvalidArgument when the records that pass the filter are of no deployment or of several (the message lists them), or none has a
// TPOT. Measured and simulated records are never mixed: with both, the measured ones count.
Result<RecordedDeployment> loads_of_records(const std::vector<bench::BenchmarkRecord>& records,
                                            const RecordFilter& filter);

// The likely shape of a step there: the two parts add up on a CPU and hide each other on a GPU.
double likely_sharpness(const RecordedDeployment& deployment);

}  // namespace sextant::advisor
