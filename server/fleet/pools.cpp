#include "server/fleet/pools.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "engine/base/nearest.h"

namespace sextant::fleet {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxPools = 1000;
constexpr size_t kMaxMembers = 10'000;
constexpr size_t kMaxName = 200;

// One object's fields, taken by name; what nobody took is unknown.
class Fields {
 public:
  Fields(const ordered_json& object, std::string where, std::vector<Status>& errors)
      : object_(object), where_(std::move(where)), errors_(errors) {}

  const ordered_json* find(const char* key) {
    known_.emplace_back(key);
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  void error(const std::string& key, const std::string& what) {
    errors_.push_back(invalid_argument(where_ + key + " " + what, where_ + key));
  }

  void text(const char* key, std::string& field) {
    const ordered_json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_string()) return error(key, "must be a text");
    const auto& given = value->get_ref<const std::string&>();
    if (given.size() > kMaxName * 20 ||
        std::ranges::any_of(given, [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
      return error(key, "holds control characters, or is too long");
    field = given;
  }
  void number(const char* key, double& field, double low, double high) {
    const ordered_json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_number() || !(value->get<double>() >= low) || !(value->get<double>() <= high))
      return error(key, "must be a number from " + plain(low) + " to " + plain(high));
    field = value->get<double>();
  }
  void count(const char* key, int64_t& field, int64_t low, int64_t high) {
    const ordered_json* value = find(key);
    if (value == nullptr) return;
    const bool fits = value->is_number_integer() && value->get<int64_t>() >= low && value->get<int64_t>() <= high &&
                      !(value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(high));
    if (!fits) return error(key, "must be a whole number from " + std::to_string(low) + " to " + std::to_string(high));
    field = value->get<int64_t>();
  }
  void count(const char* key, std::optional<int64_t>& field, int64_t low, int64_t high) {
    int64_t value = low - 1;
    count(key, value, low, high);
    if (value >= low) field = value;
  }
  template <typename Each>
  void list(const char* key, size_t most, Each each) {
    const ordered_json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_array() || value->size() > most)
      return error(key, "must be a list of at most " + std::to_string(most));
    for (size_t i = 0; i < value->size(); ++i) each((*value)[i], std::string(key) + "[" + std::to_string(i) + "]");
  }
  template <typename Each>
  void object(const char* key, Each each) {
    const ordered_json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_object()) return error(key, "must hold fields of its own");
    Fields inner(*value, where_ + key + ".", errors_);
    each(inner);
    inner.refuse_unknown();
  }
  void refuse_unknown() {
    for (const auto& item : object_.items()) {
      if (std::ranges::find(known_, item.key()) != known_.end()) continue;
      const std::optional<std::string> nearest = nearest_name(item.key(), known_);
      error(item.key().substr(0, 60), "is not known" + (nearest ? "; did you mean " + *nearest + "?" : std::string()));
    }
  }

 private:
  static std::string plain(double value) {
    return value == std::floor(value) ? std::to_string(static_cast<int64_t>(value)) : std::to_string(value);
  }

  const ordered_json& object_;
  const std::string where_;
  std::vector<Status>& errors_;
  std::vector<std::string> known_;
};

void read_policy(Fields& fields, PoolConfig& pool) {
  std::string name(name_of(pool.policy));
  fields.text("policy", name);
  for (const Policy policy : {Policy::kLeastTokens, Policy::kLeastConnections, Policy::kPrefixAffinity}) {
    if (name != name_of(policy)) continue;
    pool.policy = policy;
    return;
  }
  fields.error("policy",
               "must be least_tokens, least_connections or prefix_affinity, not '" + name.substr(0, 60) + "'");
}

void read_members(Fields& fields, PoolConfig& pool) {
  std::set<std::string> seen;
  const ordered_json* given = fields.find("members");
  fields.list("members", kMaxMembers, [&](const ordered_json& value, const std::string& place) {
    if (!value.is_string()) return fields.error(place, "must be a text such as http://gpu-1:8000");
    Result<http::Endpoint> endpoint = http::Endpoint::parse(value.get_ref<const std::string&>());
    if (!endpoint.ok()) return fields.error(place, endpoint.status().message());
    if (!seen.insert(endpoint->authority()).second)
      return fields.error(place, "stands here twice: " + endpoint->authority());
    pool.members.push_back(std::move(*endpoint));
  });
  fields.text("members_file", pool.members_file);
  std::string name;
  fields.text("members_dns", name);
  if (!name.empty()) {
    Result<http::Endpoint> endpoint = http::Endpoint::parse(name);
    if (!endpoint.ok()) return fields.error("members_dns", endpoint.status().message());
    pool.members_dns = *endpoint;
  }
  const int num_sources = (given != nullptr ? 1 : 0) + (pool.members_file.empty() ? 0 : 1) + (name.empty() ? 0 : 1);
  if (num_sources > 1 || (num_sources == 0 && pool.path.empty()))
    fields.error("members", num_sources == 0
                                ? "must be given, or members_file, members_dns or path: a pool needs servers"
                                : "and members_file and members_dns exclude each other");
  else if (given != nullptr && given->is_array() && given->empty())
    fields.error("members", "must not be empty: a pool needs servers");
}

void read_pool(Fields& fields, PoolConfig& pool) {
  fields.text("model", pool.model);
  if (pool.model.empty()) fields.error("model", "must be given: the name that clients use");
  pool.name = pool.model;
  fields.text("name", pool.name);
  if (pool.name.size() > kMaxName || pool.model.size() > kMaxName) fields.error("name", "is too long");
  fields.list("aliases", 1000, [&](const ordered_json& value, const std::string& place) {
    if (!value.is_string() || value.get_ref<const std::string&>().empty()) return fields.error(place, "must be a name");
    pool.aliases.push_back(value.get<std::string>());
  });
  fields.text("upstream_model", pool.upstream_model);
  fields.text("region", pool.region);
  fields.text("path", pool.path);
  read_members(fields, pool);
  fields.number("discovery_interval_s", pool.discovery_interval_s, 0.1, 3600);
  read_policy(fields, pool);
  fields.number("bounded_load", pool.bounded_load, 1, 100);
  fields.count("default_max_tokens", pool.default_max_tokens, 1, 1 << 24);
  fields.object("probe", [&](Fields& probe) {
    probe.text("path", pool.probe.path);
    if (!pool.probe.path.empty() && !pool.probe.path.starts_with('/')) probe.error("path", "must begin with /");
    probe.number("interval_s", pool.probe.interval_s, 0.05, 3600);
    probe.number("timeout_s", pool.probe.timeout_s, 0.05, 600);
    probe.count("up_after", pool.probe.up_after, 1, 100);
    probe.count("down_after", pool.probe.down_after, 1, 100);
  });
  fields.object("ejection", [&](Fields& ejection) {
    ejection.count("consecutive_failures", pool.ejection.consecutive_failures, 1, 1000);
    ejection.number("base_s", pool.ejection.base_s, 0.05, 3600);
    ejection.number("most_s", pool.ejection.most_s, 0.05, 24 * 3600);
    ejection.number("slow_ratio", pool.ejection.slow_ratio, 0, 1000);
    ejection.number("slow_floor_ms", pool.ejection.slow_floor_ms, 0, 600e3);
    if (pool.ejection.most_s < pool.ejection.base_s) ejection.error("most_s", "must not be below base_s");
    if (pool.ejection.slow_ratio > 0 && pool.ejection.slow_ratio < 1)
      ejection.error("slow_ratio", "must be 0 or at least 1");
  });
  fields.number("slow_start_s", pool.slow_start_s, 0, 3600);
  fields.number("connect_timeout_s", pool.connect_timeout_s, 0.01, 600);
  fields.number("first_byte_timeout_s", pool.first_byte_timeout_s, 0.05, 24 * 3600);
  fields.number("idle_timeout_s", pool.idle_timeout_s, 0.05, 24 * 3600);
  fields.number("retry_ratio", pool.retry_ratio, 0, 1);
  fields.count("retry_burst", pool.retry_burst, 0, 100'000);
  fields.text("api_key_env", pool.api_key_env);
  fields.text("failover", pool.failover);
  fields.count("num_workers", pool.num_workers, 1, kMaxMembers);
  fields.count("max_num_seqs", pool.max_num_seqs, 1, 1 << 20);
  fields.count("max_model_len", pool.max_model_len, 1, int64_t{1} << 32);
  fields.list("gpu_ids", 10'000, [&](const ordered_json& value, const std::string& place) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > 4096)
      return fields.error(place, "must be a GPU's number");
    pool.gpu_ids.push_back(value.get<int64_t>());
  });
  fields.list("args", 1000, [&](const ordered_json& value, const std::string& place) {
    if (!value.is_string() || value.get_ref<const std::string&>().find('\0') != std::string::npos)
      return fields.error(place, "must be a text, one for each word of the command line");
    pool.args.push_back(value.get<std::string>());
  });
  fields.text("quantization", pool.quantization);
  if (pool.starts_workers() && !pool.api_key_env.empty())
    fields.error("api_key_env", "is for servers that are started elsewhere: workers get a key of their own");
  if (pool.starts_workers() && !pool.quantization.empty())
    fields.error("quantization", "is of servers that are started elsewhere: a worker serves its files as they are");
  if (!pool.starts_workers() && !pool.args.empty())
    fields.error("args", "are for workers: a pool with a path and no members");
  const auto num_workers = static_cast<size_t>(pool.num_workers.value_or(1));
  if (pool.starts_workers() && !pool.gpu_ids.empty() && pool.gpu_ids.size() % num_workers != 0)
    fields.error("gpu_ids", "must be as many for each worker: " + std::to_string(pool.gpu_ids.size()) + " for " +
                                std::to_string(num_workers) + " workers");
  fields.refuse_unknown();
}

// Names that mean two things, and takings-over that lead nowhere or in a circle.
void check_names(const PoolsConfig& config, std::vector<Status>& errors) {
  const auto error = [&](const std::string& where, const std::string& what) {
    errors.push_back(invalid_argument(where + " " + what, where));
  };
  std::map<std::string, size_t> by_name;
  for (size_t i = 0; i < config.pools.size(); ++i) {
    const std::string where = "pools[" + std::to_string(i) + "].";
    if (!by_name.emplace(config.pools[i].name, i).second && !config.pools[i].name.empty())
      error(where + "name",
            "'" + config.pools[i].name + "' is the name of two pools: say name where models are the same");
  }
  std::set<std::string> is_standby;  // pools that others fail over to may serve the same names
  for (const PoolConfig& pool : config.pools)
    if (!pool.failover.empty() && pool.failover != pool.name) is_standby.insert(pool.failover);
  std::map<std::string, std::string> owner;
  for (size_t i = 0; i < config.pools.size(); ++i) {
    const PoolConfig& pool = config.pools[i];
    if (is_standby.count(pool.name) > 0) continue;
    std::vector<std::string> names = pool.aliases;
    names.insert(names.begin(), pool.model);
    for (const std::string& name : names) {
      const auto [found, is_new] = owner.emplace(name, pool.name);
      if (!is_new && !name.empty())
        error("pools[" + std::to_string(i) + "]", "serves '" + name + "', and so does pool " + found->second);
    }
  }
  for (size_t i = 0; i < config.pools.size(); ++i) {
    const std::string where = "pools[" + std::to_string(i) + "].failover";
    std::set<std::string> passed = {config.pools[i].name};
    for (std::string next = config.pools[i].failover; !next.empty();) {
      const auto found = by_name.find(next);
      if (found == by_name.end()) {
        if (passed.size() == 1) error(where, "'" + next + "' is no pool");
        break;
      }
      if (!passed.insert(next).second) {
        error(where, "leads in a circle: " + config.pools[i].name + " -> ... -> " + next);
        break;
      }
      next = config.pools[found->second].failover;
    }
  }
}

}  // namespace

std::string_view name_of(Policy policy) {
  switch (policy) {
    case Policy::kLeastTokens: return "least_tokens";
    case Policy::kLeastConnections: return "least_connections";
    case Policy::kPrefixAffinity: return "prefix_affinity";
  }
  return "";
}

std::vector<Status> read_pools(const ordered_json& value, PoolsConfig& config) {
  std::vector<Status> errors;
  if (!value.is_object()) return {invalid_argument("it must hold one field, pools: a list", "pools")};
  Fields top(value, "", errors);
  const ordered_json* pools = top.find("pools");
  if (pools == nullptr || !pools->is_array() || pools->empty() || pools->size() > kMaxPools)
    top.error("pools", "must be a list of 1 to " + std::to_string(kMaxPools) + " pools");
  top.refuse_unknown();
  if (!errors.empty()) return errors;
  for (size_t i = 0; i < pools->size(); ++i) {
    const std::string where = "pools[" + std::to_string(i) + "]";
    PoolConfig pool;
    if ((*pools)[i].is_object()) {
      Fields fields((*pools)[i], where + ".", errors);
      read_pool(fields, pool);
    } else {
      errors.push_back(invalid_argument(where + " must hold fields", where));
    }
    config.pools.push_back(std::move(pool));
  }
  check_names(config, errors);
  return errors;
}

}  // namespace sextant::fleet
