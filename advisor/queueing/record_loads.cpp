#include "advisor/queueing/record_loads.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

namespace sextant::advisor {
namespace {

using bench::BenchmarkRecord;
using Key = std::tuple<std::string, std::string, int64_t, std::string, std::string>;

Key key_of(const BenchmarkRecord& record) {
  return {record.model_id, record.gpu_type.value_or(""), record.tensor_parallel, record.engine,
          record.engine_version.value_or("")};
}
std::string name_of(const Key& key) {
  const auto& [model, gpu, ranks, engine, version] = key;
  return model + " on " + std::to_string(ranks) + " x " + (gpu.empty() ? "CPU" : gpu) + " with " + engine + " " +
         (version.empty() ? "of unknown version" : version);
}

// Of a log-normal distribution with this median and 95th percentile; lengths that are all alike have none.
double cv_of(const bench::LengthSummary& lengths) {
  if (!lengths.p50 || !lengths.p95 || *lengths.p50 <= 0 || *lengths.p95 <= *lengths.p50) return 0;
  const double sigma = std::log(*lengths.p95 / *lengths.p50) / 1.645;
  return std::min(5.0, std::sqrt(std::expm1(sigma * sigma)));
}
Lengths lengths_of(const bench::LengthSummary& lengths) {
  return {lengths.mean, cv_of(lengths), lengths.max.value_or(0)};
}

// Empty when the record is of use.
std::string why_left_out(const BenchmarkRecord& record) {
  const auto& conditions = record.test_conditions;
  const auto& metrics = record.metrics;
  if (!metrics.tpot_ms || !(metrics.tpot_ms->mean > 0)) return "no TPOT";
  if (record.validity.over_saturated.value_or(false)) return "over-saturated: its latencies depend on how long it ran";
  if (metrics.error_rate.value_or(0) > 0.05) return "more than 5% of its requests failed";
  if (conditions.prompt_tokens.mean < 1 || conditions.output_tokens.mean < 1) return "no lengths";
  const bool closed = conditions.load == "concurrency" && conditions.concurrency.value_or(0) >= 1;
  const bool open = (conditions.load == "poisson" || conditions.load == "gamma" || conditions.load == "constant") &&
                    conditions.request_rate.value_or(0) > 0 && std::isfinite(*conditions.request_rate) &&
                    !conditions.concurrency;
  if (!closed && !open) return "a load of kind '" + conditions.load + "', neither a fixed concurrency nor a plain rate";
  return "";
}

MeasuredLoad load_of(const BenchmarkRecord& record) {
  const auto& conditions = record.test_conditions;
  MeasuredLoad load;
  if (conditions.load == "concurrency") {
    load.traffic.concurrency = *conditions.concurrency;
  } else {
    load.traffic.request_rate = *conditions.request_rate;
    load.traffic.arrival_cv = conditions.burstiness_cv.value_or(conditions.load == "constant" ? 0 : 1);
  }
  load.traffic.prompt = lengths_of(conditions.prompt_tokens);
  load.traffic.output = lengths_of(conditions.output_tokens);
  load.num_requests = conditions.num_requests;
  const auto seconds = [](const std::optional<double>& ms) {
    return ms && *ms > 0 ? std::optional(*ms * 1e-3) : std::nullopt;
  };
  load.tpot_mean_s = record.metrics.tpot_ms->mean * 1e-3;
  load.tpot_p50_s = seconds(record.metrics.tpot_ms->p50);
  if (record.metrics.ttft_ms) {
    load.ttft_mean_s = seconds(record.metrics.ttft_ms->mean);
    load.ttft_p50_s = seconds(record.metrics.ttft_ms->p50);
  }
  return load;
}

// A positive whole number of the settings under this key.
std::optional<int64_t> setting(const BenchmarkRecord& record, const char* key) {
  if (!record.engine_config.is_object()) return std::nullopt;
  const auto found = record.engine_config.find(key);
  if (found == record.engine_config.end() || !found->is_number_integer()) return std::nullopt;
  const auto value = found->get<int64_t>();
  return value >= 1 && value <= 100'000'000 ? std::optional(value) : std::nullopt;
}

// What a server's settings are when nobody says: ours, and vLLM's.
void read_limits(const BenchmarkRecord& record, RecordedDeployment& out) {
  const auto take = [&](const char* key, int64_t fallback, int64_t& limit) {
    limit = setting(record, key).value_or(fallback);
    if (!setting(record, key)) out.assumed.push_back(std::string(key) + " " + std::to_string(fallback));
  };
  take("max_num_seqs", 256, out.server.max_num_seqs);
  take("max_num_batched_tokens", record.engine == "sextant" ? 512 : 8192, out.server.max_num_batched_tokens);
  out.server.max_num_batched_tokens = std::max(out.server.max_num_batched_tokens, out.server.max_num_seqs);
  const auto num_blocks = setting(record, "num_gpu_blocks");
  out.server.block_size = setting(record, "block_size").value_or(16);
  if (num_blocks) {
    out.server.kv_tokens = static_cast<double>(*num_blocks * out.server.block_size);
  } else {
    out.assumed.push_back("a KV cache that holds them all");
  }
  out.server.max_steps_in_flight = setting(record, "max_steps_in_flight").value_or(out.gpu_type.empty() ? 1 : 2);
}

}  // namespace

Result<RecordedDeployment> loads_of_records(const std::vector<BenchmarkRecord>& records, const RecordFilter& filter) {
  std::map<Key, std::vector<const BenchmarkRecord*>> deployments;
  for (const BenchmarkRecord& record : records) {
    if (!filter.model_id.empty() && record.model_id != filter.model_id) continue;
    if (!filter.gpu_type.empty() && record.gpu_type.value_or("") != filter.gpu_type) continue;
    if (filter.tensor_parallel && record.tensor_parallel != *filter.tensor_parallel) continue;
    deployments[key_of(record)].push_back(&record);
  }
  if (deployments.size() != 1) {
    std::string list;
    for (const BenchmarkRecord& record : records) {
      const std::string name = name_of(key_of(record));
      if (list.find(name) == std::string::npos && list.size() < 600) list += (list.empty() ? "" : "; ") + name;
    }
    return invalid_argument(std::string(deployments.empty() ? "no record is of that deployment"
                                                            : "the records are of several deployments") +
                                "; there is " + (list.empty() ? "none" : list) +
                                ". Choose with --model, --gpu and --tensor-parallel",
                            "records");
  }
  const auto& [key, chosen] = *deployments.begin();
  RecordedDeployment out;
  std::tie(out.model_id, out.gpu_type, out.tensor_parallel, out.engine, out.engine_version) = key;
  out.simulated = std::all_of(chosen.begin(), chosen.end(), [](const BenchmarkRecord* record) {
    return record->source == bench::RecordSource::kSimulated;
  });
  read_limits(*chosen.front(), out);
  for (const BenchmarkRecord* record : chosen) {
    std::string why = why_left_out(*record);
    if (why.empty() && !out.simulated && record->source == bench::RecordSource::kSimulated) {
      why = "simulated, and there are measured ones";
    }
    if (why.empty()) {
      out.loads.push_back(load_of(*record));
    } else {
      out.left_out.push_back(record->record_id.substr(0, 12) + ": " + why);
    }
  }
  if (out.loads.empty()) {
    return invalid_argument(
        "no record is of use: " + out.left_out.front() +
            (out.left_out.size() > 1 ? ", and " + std::to_string(out.left_out.size() - 1) + " more" : ""),
        "records");
  }
  return out;
}

double likely_sharpness(const RecordedDeployment& deployment) {
  return deployment.gpu_type.empty() && !deployment.simulated ? 1 : 8;
}

}  // namespace sextant::advisor
