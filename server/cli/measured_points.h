// Benchmark files as points for a simulation: sextant.benchmark/1 (JSON lines), or a JSON list of the planner's older form
// ("tensor_parallel_degree", "ttft_p50_ms"), also under "benchmarks".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/sim/record_time.h"

namespace sextant::cli {

struct MeasuredDeployment {
  std::string model_id;
  std::string gpu_type;  // as the file spells it
  int64_t tensor_parallel = 1;
  std::vector<sim::MeasuredPoint> points;
};

// What the file measured, by deployment. Simulated records, and those without TPOT, are left out.
Result<std::vector<MeasuredDeployment>> read_measured_points(const std::string& path);

// The one deployment of this model on these GPUs; empty names match any. kInvalidArgument says what there is.
Result<MeasuredDeployment> choose_deployment(const std::vector<MeasuredDeployment>& deployments,
                                             const std::string& model_id, const std::string& gpu_type,
                                             std::optional<int64_t> tensor_parallel, const std::string& path);

}  // namespace sextant::cli
