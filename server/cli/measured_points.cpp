#include "server/cli/measured_points.h"

#include <algorithm>
#include <utility>

#include "bench/record/benchmark_record.h"
#include "engine/format/json_file.h"
#include "server/cli/simulated_gpu.h"

namespace sextant::cli {
namespace {

using nlohmann::json;

constexpr size_t kMaxFileBytes = size_t{256} << 20;

void add_point(std::vector<MeasuredDeployment>& deployments, const std::string& model_id, const std::string& gpu_type,
               int64_t tensor_parallel, sim::MeasuredPoint point) {
  auto found = std::find_if(deployments.begin(), deployments.end(), [&](const MeasuredDeployment& d) {
    return d.model_id == model_id && d.gpu_type == gpu_type && d.tensor_parallel == tensor_parallel;
  });
  if (found == deployments.end()) {
    found = deployments.insert(deployments.end(), {model_id, gpu_type, tensor_parallel, {}});
  }
  found->points.push_back(point);
}

void add_record(std::vector<MeasuredDeployment>& deployments, const bench::BenchmarkRecord& record) {
  const auto& metrics = record.metrics;
  if (record.source == bench::RecordSource::kSimulated || !metrics.tpot_ms) return;
  sim::MeasuredPoint point;
  point.tpot_s = metrics.tpot_ms->p50.value_or(metrics.tpot_ms->mean) * 1e-3;
  if (metrics.ttft_ms) point.ttft_s = metrics.ttft_ms->p50.value_or(metrics.ttft_ms->mean) * 1e-3;
  if (metrics.itl_ms && metrics.itl_ms->p50 && metrics.itl_ms->p90) {
    point.tpot_cv = sim::cv_of_percentiles(*metrics.itl_ms->p50, *metrics.itl_ms->p90);
  }
  const auto& conditions = record.test_conditions;
  // An open loop's mean requests in flight, by Little's law.
  double concurrency = static_cast<double>(conditions.concurrency.value_or(1));
  if (!conditions.concurrency && metrics.e2e_ms && metrics.request_rps) {
    concurrency = std::max(1.0, metrics.e2e_ms->mean * 1e-3 * *metrics.request_rps);
  }
  point.concurrency = concurrency;
  point.prompt_tokens = conditions.prompt_tokens.mean;
  point.output_tokens = conditions.output_tokens.mean;
  add_point(deployments, record.model_id, record.gpu_type.value_or(""), record.tensor_parallel, point);
}

// Of the planner's form. Throws json's exceptions.
void add_planner_entry(std::vector<MeasuredDeployment>& deployments, const json& entry) {
  const json& metrics = entry.at("metrics");
  const json& conditions = entry.at("test_conditions");
  sim::MeasuredPoint point;
  point.tpot_s = metrics.at("tpot_p50_ms").get<double>() * 1e-3;
  if (metrics.contains("ttft_p50_ms")) point.ttft_s = metrics["ttft_p50_ms"].get<double>() * 1e-3;
  if (metrics.contains("tpot_p90_ms")) {
    point.tpot_cv = sim::cv_of_percentiles(point.tpot_s, metrics["tpot_p90_ms"].get<double>() * 1e-3);
  }
  point.concurrency = conditions.value("concurrency", 1.0);
  point.prompt_tokens = conditions.at("prompt_length_avg").get<double>();
  point.output_tokens = conditions.at("generation_length_avg").get<double>();
  add_point(deployments, entry.at("model_id").get<std::string>(), entry.at("gpu_type").get<std::string>(),
            entry.value("tensor_parallel_degree", int64_t{1}), point);
}

std::string canonical_gpu(const std::string& name) {
  const Result<sim::SimGpu> gpu = find_simulated_gpu(name);
  return gpu.ok() ? gpu->name : name;
}

}  // namespace

Result<std::vector<MeasuredDeployment>> read_measured_points(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxFileBytes));
  std::vector<MeasuredDeployment> deployments;
  const json document = json::parse(text, nullptr, false);
  const json* list = document.is_array()                                       ? &document
                     : document.is_object() && document.contains("benchmarks") ? &document["benchmarks"]
                                                                               : nullptr;
  if (list != nullptr) {
    size_t idx = 0;
    try {
      for (const json& entry : *list) {
        add_planner_entry(deployments, entry);
        ++idx;
      }
    } catch (const json::exception& error) {
      return invalid_argument("benchmarks '" + path + "': entry " + std::to_string(idx) + ": " + error.what(),
                              "benchmarks");
    }
  } else {
    Result<std::vector<bench::BenchmarkRecord>> records = bench::read_records(text, path);
    if (!records.ok()) return invalid_argument("benchmarks " + records.status().message(), "benchmarks");
    for (const bench::BenchmarkRecord& record : *records) add_record(deployments, record);
  }
  if (deployments.empty()) {
    return invalid_argument("benchmarks '" + path + "' holds no measured record with a TPOT", "benchmarks");
  }
  return deployments;
}

Result<MeasuredDeployment> choose_deployment(const std::vector<MeasuredDeployment>& deployments,
                                             const std::string& model_id, const std::string& gpu_type,
                                             std::optional<int64_t> tensor_parallel, const std::string& path) {
  const MeasuredDeployment* chosen = nullptr;
  std::string list;
  int num_matches = 0;
  for (const MeasuredDeployment& d : deployments) {
    const std::string name =
        d.model_id + " on " + std::to_string(d.tensor_parallel) + " x " + (d.gpu_type.empty() ? "CPU" : d.gpu_type);
    if (list.size() < 400) list += (list.empty() ? "" : "; ") + name;
    if (!model_id.empty() && d.model_id != model_id) continue;
    if (!gpu_type.empty() && canonical_gpu(d.gpu_type) != canonical_gpu(gpu_type)) continue;
    if (tensor_parallel && d.tensor_parallel != *tensor_parallel) continue;
    ++num_matches;
    chosen = &d;
  }
  if (num_matches == 1) return *chosen;
  return invalid_argument(
      "benchmarks '" + path + "' has " + (num_matches == 0 ? "nothing" : "more than one deployment") + " for model '" +
          model_id + "' on '" + gpu_type + "'" + (tensor_parallel ? " x " + std::to_string(*tensor_parallel) : "") +
          "; it has " + list + ". Choose with --served-model-name, --gpu-type and --tensor-parallel-size",
      "benchmarks");
}

}  // namespace sextant::cli
