// PoolsConfig: what `sextant route` stands in front of: pools of servers that serve one model each. Read from a structure
// (YAML or JSON), checked whole: every error at once. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/status.h"
#include "server/http/upstream.h"

namespace sextant::fleet {

// Who gets the next request. Loads are weighed by slow start.
enum class Policy {
  kLeastTokens,       // the fewest tokens outstanding: prompts by their bytes, answers by max_tokens less what has come
  kLeastConnections,  // the fewest requests
  kPrefixAffinity,    // who has had the longest beginning of this prompt, unless it has far more requests than others
};
std::string_view name_of(Policy policy);

struct ProbeSettings {
  std::string path;  // empty: /ready, and /health of those that have no such route
  double interval_s = 10;
  double timeout_s = 5;
  int64_t up_after = 2;    // probes in a row
  int64_t down_after = 3;  // likewise
};

// A member out of the rotation for a while, by what its answers were (a circuit that opens).
struct EjectionSettings {
  int64_t consecutive_failures = 5;  // no connection, no answer, 500, 502, 504 in a row
  double base_s = 10;                // doubled each time in a row
  double most_s = 300;
  double slow_ratio = 5;  // first bytes later than the others' median by this factor, and by slow_floor_ms; 0: never
  double slow_floor_ms = 500;
};

struct PoolConfig {
  std::string name;                  // default: the model's
  std::string model;                 // as clients name it
  std::vector<std::string> aliases;  // other names of the same
  std::string upstream_model;        // as the members name it; empty: model
  std::string region;

  // Where the members are: exactly one of these three, or none and `path`: then the router starts them itself (workers.h).
  std::vector<http::Endpoint> members;
  std::string members_file;                   // one endpoint a line, read again when it changes
  std::optional<http::Endpoint> members_dns;  // all addresses of a name
  double discovery_interval_s = 5;

  Policy policy = Policy::kLeastTokens;
  double bounded_load = 1.2;         // prefix_affinity: at most so many times the mean of requests
  int64_t default_max_tokens = 256;  // of a request that says none, for least_tokens
  ProbeSettings probe;
  EjectionSettings ejection;
  double slow_start_s = 10;
  double connect_timeout_s = 2;
  double first_byte_timeout_s = 600;
  double idle_timeout_s = 600;
  double retry_ratio = 0.1;   // retries to requests
  int64_t retry_burst = 100;  // retries that may come at once
  std::string api_key_env;    // variable with the key that members ask for; empty: the client's is passed on
  std::string failover;       // pool that takes over when no member can be had

  // What its servers are started with. Where they are started elsewhere, /admin/v1/pools says it and that is all.
  std::string path;  // of the model: a file, a directory or a name of the cache
  std::optional<int64_t> num_workers, max_num_seqs, max_model_len;
  std::vector<int64_t> gpu_ids;   // dealt out to the workers in turn; empty: all see all
  std::vector<std::string> args;  // more flags of `serve`
  std::string quantization;

  bool starts_workers() const { return !path.empty() && members.empty() && members_file.empty() && !members_dns; }
};

struct PoolsConfig {
  std::vector<PoolConfig> pools;
};

// {"pools": [{...}]}. Unknown keys come with the nearest known one.
std::vector<Status> read_pools(const nlohmann::ordered_json& value, PoolsConfig& config);

}  // namespace sextant::fleet
