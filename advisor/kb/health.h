// Data health: what in the knowledge base cannot be, is old, or points nowhere. Rows that physics forbids are quarantined:
// they stay stored and named, and train nothing. Pure; any thread.
#pragma once

#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "advisor/kb/knowledge_base.h"

namespace sextant::advisor {

struct HealthIssue {
  enum class Severity { kWarning, kImpossible };
  Severity severity = Severity::kWarning;
  std::string kind;  // of document
  std::string id;
  std::string rule;
  std::string message;
};

struct HealthReport {
  std::vector<HealthIssue> issues;    // impossible ones first, then by kind, id and rule
  std::set<std::string> quarantined;  // ids of benchmarks
  size_t benchmarks = 0, gpus = 0, prices = 0, models = 0;
};

// `as_of` is a date; prices are judged by it.
HealthReport check_health(const KbSnapshot& snapshot, const std::string& as_of);

// One claimed operating point, of which any part may be unknown. What physics says against it; empty: nothing.
// tokens/s and requests/s are of all replicas together.
struct OperatingClaim {
  std::string model_id;
  std::string gpu;
  std::string quantization = "bf16";
  double tensor_parallel = 1;
  double replicas = 1;
  std::optional<double> tpot_ms, concurrency, prompt_tokens, output_tokens, output_tokens_per_s, requests_per_s;
};
Result<std::vector<HealthIssue>> check_claim(const OperatingClaim& claim, const FactsTable& facts,
                                             const GpuTable& gpus);

// Days from `from` to `to`, both dates; nothing when one is none.
std::optional<int> days_between(const std::string& from, const std::string& to);

nlohmann::ordered_json to_json(const HealthReport& report);

}  // namespace sextant::advisor
