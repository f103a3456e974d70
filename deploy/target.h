// Target: what one deployment is made from: the facts of one option of a plan, checked, with the user's options resolved.
// Everything that is emitted reads this and nothing else of the plan. Pure.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "deploy/options.h"
#include "engine/base/result.h"

namespace sextant::deploy {

inline constexpr int kHttpPort = 8000;
inline constexpr int kGroupPort = 29501;
inline constexpr int kDrainSeconds = 45;        // --shutdown-timeout
inline constexpr int kGracePeriodSeconds = 75;  // to kill: the endpoints' update, then the drain
// The one key of the Secret carries the whole service: what may wait limits it, not what is right for one of many keys.
inline constexpr const char* kNoLimitOfKey = "--limit-requests-per-s=0";

struct LatencyGoal {
  std::string field;  // "target_ttft_p90_ms"
  std::string what;   // ttft, tpot, e2e
  double quantile = 0.9;
  double limit_ms = 0;
};

// `compliance` of a plan, of which these files can do a part: nodes of the plan's region, TLS for what comes from outside, and the
// rest as annotations for whoever runs the cluster.
struct ComplianceNeeds {
  std::vector<std::string> regulations;    // gdpr, hipaa...; empty: nothing is asked
  int64_t audit_retention_days = 0;        // 0: no audit log is asked for
  int64_t content_retention_days_max = 0;  // of prompts and answers; 0: any
  bool encryption_in_transit = false;
  std::string names() const;  // "gdpr, hipaa"
};

struct Target {
  Options options;  // with auto, 0 and -1 replaced by what they mean

  std::string plan_id, title, version, as_of, planned_engine;
  std::string model_id, quantization, gpu;
  std::string region, provider, instance;
  int64_t tensor_parallel = 1, pipeline_parallel = 1, expert_parallel = 1;
  int64_t replicas = 1;
  int64_t num_nodes = 1;      // of one replica
  int64_t gpus_per_node = 1;  // of one pod
  int64_t max_num_seqs = 256, max_model_len = 0;
  int64_t cpus = 8, memory_gib = 32;  // of one pod
  double weights_gib = 0;             // of one replica
  double load_seconds = 0;            // predicted: container start to ready, the weights being there
  double download_seconds = 0;        // of the weights, by a pod that has none
  double peak_rps_per_replica = 0, limit_rps_per_replica = 0, peak_rps = 0;
  double usd_per_replica_hour = 0, usd_per_month = 0;
  double availability_pct = 99.9;  // the SLO of success
  int64_t zones = 1;
  std::vector<LatencyGoal> goals;
  ComplianceNeeds compliance;
  nlohmann::ordered_json option;         // the plan's, for what only describes
  nlohmann::ordered_json specification;  // completed
  std::vector<std::string> notes;

  bool simulate() const { return options.simulate; }
  bool ours() const { return options.runtime == "sextant"; }
  // vLLM fetches its weights inside its container; ours in a container before it.
  double start_seconds() const { return load_seconds + (ours() ? 0 : download_seconds); }
  bool uses_gpus() const { return !simulate(); }
  bool gpu_resource_is_nvidia() const { return !gpu.starts_with("MI"); }
  int64_t gpus_per_replica() const { return tensor_parallel * pipeline_parallel; }
  double error_budget() const;  // share of the requests that may fail: 0.001 of 99.9%
  int64_t spot_replicas() const;
  const std::string& name() const { return options.name; }
  const std::string& ns() const { return options.namespace_name; }
  std::string kind() const { return options.kind; }
};

// The value of label nvidia.com/gpu.product of nodes with this GPU (NVIDIA GPU feature discovery); empty when not known.
std::string gpu_product_of(const std::string& gpu);

inline constexpr size_t kMaxPlanBytes = 16u << 20;

// From the text of a sextant.plan/1 document. All errors at once, each naming the field of the plan or of the options.
std::vector<Status> read_target(const nlohmann::ordered_json& plan, const Options& options, Target& target);
// UTF-8, JSON, of bounded size and depth.
Result<nlohmann::ordered_json> parse_plan(std::string_view text);

// Parts and regions of a plan, for rendering all of them: options with `part` and `region` set, and a folder's name for each.
struct Choice {
  std::string folder;
  Options options;
};
std::vector<Choice> choices_of(const nlohmann::ordered_json& plan, const Options& options);

// "Llama-3.1 8B" -> "llama-3-1-8b": letters of the name that a DNS label may have, at most 40.
std::string slug_of(const std::string& text);

}  // namespace sextant::deploy
