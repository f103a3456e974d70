#include "server/fleet/fleet.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <thread>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/log.h"
#include "server/fleet/forward.h"
#include "server/fleet/prober.h"
#include "server/fleet/workers.h"
#include "server/http/error_body.h"

namespace sextant::fleet {
namespace {

using nlohmann::ordered_json;

// What is passed on: ours, and what other servers have beside it. The body of each names its model.
constexpr std::pair<const char*, const char*> kForwarded[] = {
    {"POST", "/v1/chat/completions"},
    {"POST", "/v1/completions"},
    {"POST", "/v1/stream"},
    {"POST", "/generate"},
    {"POST", "/tokenize"},
    {"POST", "/detokenize"},
    {"POST", "/v1/embeddings"},
    {"POST", "/v1/responses"},
    {"POST", "/rerank"},
    {"POST", "/v1/rerank"},
    {"POST", "/score"},
    {"POST", "/v1/score"},
    {"POST", "/pooling"},
    {"POST", "/classify"},
};
constexpr std::pair<const char*, const char*> kModels = {"GET", "/v1/models"};

// 256 bits, for a worker's process and nobody else.
std::string random_key() {
  std::array<unsigned char, 32> bytes{};
  CHECK(getentropy(bytes.data(), bytes.size()) == 0) << "the kernel has no random bytes";
  std::string key;
  for (const unsigned char byte : bytes) {
    key += "0123456789abcdef"[byte >> 4];
    key += "0123456789abcdef"[byte & 15];
  }
  return key;
}

WorkerOptions worker_options(const PoolConfig& pool, const std::string& program, const std::string& api_key,
                             double stop_timeout_s) {
  WorkerOptions options;
  options.pool = pool.name;
  options.program = program;
  options.stop_timeout_s = stop_timeout_s;
  const std::string& served = pool.upstream_model.empty() ? pool.model : pool.upstream_model;
  options.arguments = {
      "serve", pool.path, "--host", "127.0.0.1", "--port", "0", "--served-model-name", served, "--limit-requests-per-s",
      "0"};
  const auto add = [&](const char* flag, const std::optional<int64_t>& value) {
    if (value) options.arguments.insert(options.arguments.end(), {flag, std::to_string(*value)});
  };
  add("--max-num-seqs", pool.max_num_seqs);
  add("--max-model-len", pool.max_model_len);
  options.arguments.insert(options.arguments.end(), pool.args.begin(), pool.args.end());
  // The router's own: a worker is asked by the router alone, with the key that it was given.
  options.hidden_variables = {"SEXTANT_STATE_DIR", "SEXTANT_DATABASE_URL"};
  const auto num_workers = static_cast<size_t>(pool.num_workers.value_or(1));
  const size_t gpus_each = pool.gpu_ids.size() / num_workers;
  for (size_t i = 0; i < num_workers; ++i) {
    std::vector<std::string> environment = {"SEXTANT_API_KEY=" + api_key};
    if (gpus_each > 0) {
      std::string devices;
      for (size_t gpu = i * gpus_each; gpu < (i + 1) * gpus_each; ++gpu)
        devices += (devices.empty() ? "" : ",") + std::to_string(pool.gpu_ids[gpu]);
      environment.push_back("CUDA_VISIBLE_DEVICES=" + devices);
    }
    options.environments.push_back(std::move(environment));
  }
  return options;
}

}  // namespace

int64_t steady_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Fleet::Fleet(boost::asio::io_context& io)
    : io_(io),
      client_(io, {}),
      created_unix_s_(
          std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
              .count()) {}

Fleet::~Fleet() = default;

Result<std::shared_ptr<Fleet>> Fleet::create(boost::asio::io_context& io, const PoolsConfig& config,
                                             const Environment& environment, const std::string& program,
                                             double stop_timeout_s) {
  std::shared_ptr<Fleet> fleet(new Fleet(io));
  std::map<std::string, NamedPool*> by_name;
  for (const PoolConfig& pool_config : config.pools) {
    auto named = std::make_unique<NamedPool>();
    if (!pool_config.api_key_env.empty()) {
      const char* key = environment(pool_config.api_key_env.c_str());
      if (key == nullptr || *key == '\0')
        return invalid_argument("pool " + pool_config.name + ": the variable " + pool_config.api_key_env +
                                " of api_key_env is not set");
      named->api_key = key;
    }
    named->pool =
        std::make_unique<Pool>(pool_config, [raw = fleet.get()](const MemberEvent& event) { raw->on_event(event); });
    if (pool_config.starts_workers()) named->api_key = random_key();
    named->prober = std::make_shared<Prober>(io, fleet->client_, *named->pool, named->api_key);
    named->discovery =
        std::make_shared<Discovery>(io, *named->pool, [prober = named->prober.get()] { prober->look(); });
    if (pool_config.starts_workers()) {
      named->workers = std::make_unique<Workers>(
          worker_options(pool_config, program, named->api_key, stop_timeout_s),
          [pool = named->pool.get(), prober = named->prober.get()](const std::vector<http::Endpoint>& endpoints) {
            pool->set_members(endpoints, steady_ns());
            prober->look();
          });
    }
    by_name[pool_config.name] = named.get();
    fleet->pools_.push_back(std::move(named));
  }
  std::set<std::string> is_standby;
  for (const auto& named : fleet->pools_) {
    const std::string& failover = named->pool->config().failover;
    if (failover.empty()) continue;
    named->failover = by_name.at(failover);
    is_standby.insert(failover);
  }
  // A pool that others fail over to serves its own names where nobody else does.
  for (const bool standby : {false, true}) {
    for (const auto& named : fleet->pools_) {
      const PoolConfig& pool_config = named->pool->config();
      if ((is_standby.count(pool_config.name) > 0) != standby) continue;
      fleet->by_model_.emplace(pool_config.model, named.get());
      for (const std::string& alias : pool_config.aliases) fleet->by_model_.emplace(alias, named.get());
    }
  }
  for (const auto& named : fleet->pools_) {
    if (const Status status = named->discovery->prepare(); !status.ok())
      return invalid_argument("pool " + named->pool->config().name + ": " + status.message(), status.param());
  }
  return fleet;
}

void Fleet::start() {
  for (const auto& named : pools_) {
    named->prober->start();
    named->discovery->start();
    if (named->workers) named->workers->start();
  }
}

void Fleet::stop_workers() {
  std::vector<std::thread> stopping;  // all at once: each may take its time
  for (const auto& named : pools_)
    if (named->workers) stopping.emplace_back([workers = named->workers.get()] { workers->stop(); });
  for (std::thread& thread : stopping) thread.join();
}

void Fleet::stop() {
  for (const auto& named : pools_) {
    named->discovery->stop();
    named->prober->stop();
  }
}

std::vector<std::pair<const char*, const char*>> Fleet::routes() {
  std::vector<std::pair<const char*, const char*>> routes(std::begin(kForwarded), std::end(kForwarded));
  routes.push_back(kModels);
  return routes;
}

void Fleet::register_routes(http::Router& router) {
  for (const auto& [method, path] : kForwarded) {
    router.add(method, path, [this](std::shared_ptr<http::Exchange> exchange) {
      std::make_shared<Forward>(shared_from_this(), std::move(exchange))->start();
    });
  }
  router.add(kModels.first, kModels.second,
             [this](const std::shared_ptr<http::Exchange>& exchange) { list_models(*exchange); });
}

void Fleet::list_models(http::Exchange& exchange) const {
  ordered_json data = ordered_json::array();
  for (const auto& [model, named] : by_model_) {
    ordered_json entry = {{"id", model}, {"object", "model"}, {"created", created_unix_s_}, {"owned_by", "sextant"}};
    if (model != named->pool->config().model) entry["root"] = named->pool->config().model;
    if (const auto& length = named->pool->config().max_model_len) entry["max_model_len"] = *length;
    data.push_back(std::move(entry));
  }
  http::HttpResponse response;
  response.body = ordered_json{{"object", "list"}, {"data", std::move(data)}}.dump();
  exchange.respond(std::move(response));
}

Fleet::NamedPool* Fleet::find(std::string_view model) {
  if (model.empty()) {
    // Standbys are no choice of the client's.
    NamedPool* only = nullptr;
    for (const auto& [name, named] : by_model_) {
      if (only != nullptr && only != named) return nullptr;
      only = named;
    }
    return only;
  }
  const auto found = by_model_.find(model);
  return found == by_model_.end() ? nullptr : found->second;
}

bool Fleet::is_ready() const {
  const int64_t now = steady_ns();
  for (const auto& named : pools_)
    if (named->pool->can_serve(now)) return true;
  return false;
}

ordered_json Fleet::status() const {
  const int64_t now = steady_ns();
  ordered_json pools = ordered_json::array();
  for (const auto& named : pools_) {
    const PoolConfig& config = named->pool->config();
    ordered_json pool = {{"name", config.name},
                         {"model", config.model},
                         {"aliases", config.aliases},
                         {"policy", name_of(config.policy)}};
    if (!config.region.empty()) pool["region"] = config.region;
    if (!config.failover.empty()) pool["failover"] = config.failover;
    if (!config.path.empty()) pool["path"] = config.path;
    if (config.num_workers) pool["num_workers"] = *config.num_workers;
    if (config.max_num_seqs) pool["max_num_seqs"] = *config.max_num_seqs;
    if (config.max_model_len) pool["max_model_len"] = *config.max_model_len;
    if (!config.gpu_ids.empty()) pool["gpu_ids"] = config.gpu_ids;
    if (!config.quantization.empty()) pool["quantization"] = config.quantization;
    pool["members"] = ordered_json::array();
    for (const MemberStatus& member : named->pool->status(now)) {
      pool["members"].push_back({{"member", member.name},
                                 {"state", member.state},
                                 {"reason", member.reason},
                                 {"requests_running", member.in_flight},
                                 {"outstanding_tokens", member.outstanding_tokens},
                                 {"requests", member.num_requests},
                                 {"failures", member.num_failures},
                                 {"ejections", member.num_ejections},
                                 {"first_byte_ms", member.first_byte_ms}});
    }
    pools.push_back(std::move(pool));
  }
  return {{"pools", std::move(pools)}};
}

std::string Fleet::render_metrics() {
  const int64_t now = steady_ns();
  std::vector<FleetMetrics::PoolStatus> status;
  for (const auto& named : pools_) status.push_back({named->pool->config().name, named->pool->status(now)});
  return metrics_.render(status, client_.num_idle());
}

void Fleet::add_waiting(const std::shared_ptr<Forward>& forward) {
  const std::lock_guard lock(mutex_);
  waiting_.emplace(forward.get(), forward);
}

void Fleet::remove_waiting(const Forward* forward) {
  const std::lock_guard lock(mutex_);
  waiting_.erase(forward);
}

void Fleet::on_event(const MemberEvent& event) {
  metrics_.on_member_event(event);
  const std::string text =
      "pool " + event.pool + ": " + event.member + " " + event.what + (event.reason.empty() ? "" : ": " + event.reason);
  if (event.what == "down" || event.what == "ejected") {
    LOG_WARNING << text;
  } else {
    LOG_INFO << text;
  }
  if (event.what != "down") return;
  std::vector<std::shared_ptr<Forward>> waiting;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [raw, weak] : waiting_)
      if (auto forward = weak.lock()) waiting.push_back(std::move(forward));
  }
  for (const auto& forward : waiting) forward->on_member_down();
}

}  // namespace sextant::fleet
