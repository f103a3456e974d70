// `sextant route`: the pools file, the flags, and the order of life: gate and fleet, then the port, then probes. It is ready once
// a server of some pool is.
#include "server/cli/route.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <thread>

#include <CLI/CLI.hpp>

#include "deploy/yaml.h"
#include "engine/base/log.h"
#include "engine/format/json_file.h"
#include "server/cli/gateway_setup.h"
#include "server/cli/log_sink.h"
#include "server/cli/serve.h"
#include "server/cli/stop_signals.h"
#include "server/fleet/fleet.h"
#include "server/gateway/gate.h"
#include "server/health.h"
#include "server/http/io_threads.h"
#include "server/http/listener.h"
#include "server/metrics.h"
#include "server/metrics_tls.h"

namespace sextant::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr size_t kMaxPoolsBytes = size_t{4} << 20;

// Of the server's settings those that a router has no use for: it has neither an engine nor answers of its own.
bool is_of_router(const std::string& key) {
  static const std::set<std::string> others = {
      "limit_tokens_per_minute", "limit_tokens_per_day", "limit_max_tokens",   "limit_max_n",
      "limit_max_context",       "shed_above_requests",  "shed_max_tokens",    "shed_fallback_model",
      "response_cache_bytes",    "response_cache_ttl_s", "price_usd_per_hour", "sse_heartbeat_s",
      "num_text_threads"};
  return others.count(key) == 0;
}

std::vector<Setting> settings_of(ServerConfig& config) {
  std::vector<Setting> settings;
  SettingCollector collector(settings);
  visit_server_config(config, collector);
  std::erase_if(settings, [](const Setting& setting) { return !is_of_router(setting.key); });
  return settings;
}

Result<nlohmann::ordered_json> read_structure(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxPoolsBytes));
  // JSON is YAML, but for what our reader of YAML refuses.
  if (path.ends_with(".json")) {
    ASSIGN_OR_RETURN(const nlohmann::json value, parse_json(text, path));
    return nlohmann::ordered_json(value);
  }
  Result<std::vector<nlohmann::ordered_json>> documents = deploy::parse_yaml_stream(text);
  if (!documents.ok()) return invalid_argument(path + ": " + documents.status().message());
  if (documents->size() != 1) return invalid_argument(path + " must hold one document");
  return std::move(documents->front());
}

class Router {
 public:
  Router(const ServerConfig& config, const fleet::PoolsConfig& pools)
      : config_(config), pools_(pools), io_(static_cast<int>(config.num_io_threads)), signals_(io_.context()) {
    signals_.set_nothing_to_drain(false);
  }

  Status start() {
    ASSIGN_OR_RETURN(tls_, http::TlsCertificates::open(config_.tls));
    ASSIGN_OR_RETURN(gateway_, make_gateway(config_));
    ASSIGN_OR_RETURN(TrustedProxies proxies, TrustedProxies::parse(config_.trusted_proxies));
    ASSIGN_OR_RETURN(fleet_, fleet::Fleet::create(
                                 io_.context(), pools_, [](const char* name) { return std::getenv(name); },
                                 std::filesystem::read_symlink("/proc/self/exe").string(),
                                 static_cast<double>(config_.shutdown_timeout)));
    gate_.emplace(*gateway_.authenticator, health_,
                  Gate::Services{.audit = nullptr,
                                 .fair_use = gateway_.fair_use.get(),
                                 .refusals = gateway_.refusals.get(),
                                 .trusted_proxies = proxies});
    auto front = std::make_shared<http::Router>();
    add_routes(*front);
    http::HttpServer::Options options;
    options.host = config_.host;
    options.port = static_cast<uint16_t>(config_.port);
    options.limits = config_.limits();
    options.tls = tls_;
    options.websocket_path = "/v1/stream";
    options.client_of = [proxies](const std::string& address) {
      return proxies.trusts(address) ? std::string() : address_group(address);
    };
    options.on_request = [this](const http::RequestRecord& record) { log_request(record, config_.access_log); };
    http_.emplace(io_.context(), std::move(options), std::move(front));
    health_.set_loading("no server of any pool has answered yet");
    RETURN_IF_ERROR(http_->start());
    auto api = std::make_shared<http::Router>();
    fleet_->register_routes(*api);
    gate_->open(std::move(api));
    fleet_->start();
    LOG_INFO << "listening at " << url() << ", " << pools_.pools.size() << " pools";
    return ok_status();
  }

  // Until a signal comes. Ready is said once, when a first server has been up: what comes later is 503 by pool, not by router.
  void run() {
    while (!signals_.wait_for(milliseconds(health_.ready() ? 200 : 20))) {
      if (health_.ready() || !fleet_->is_ready()) continue;
      health_.set_ready();
      LOG_INFO << "ready at " << url();
    }
  }

  void drain() {
    const auto deadline = steady_clock::now() + std::chrono::seconds(config_.shutdown_timeout);
    health_.set_draining();
    LOG_INFO << "stopping: " << http_->num_requests() << " requests under way get up to " << config_.shutdown_timeout
             << " s";
    while (http_->num_requests() > 0 && steady_clock::now() < deadline) std::this_thread::sleep_for(milliseconds(5));
    http_->stop_accepting();
    http_->close_idle();
    if (const size_t left = http_->num_requests(); left > 0)
      LOG_WARNING << "cutting off " << left << " requests that did not finish in time";
    http_->close_all();
    fleet_->stop();
    fleet_->stop_workers();
    LOG_INFO << "stopped";
  }

  ~Router() {
    if (fleet_) {
      fleet_->stop();
      fleet_->stop_workers();
    }
    http_.reset();
    io_.stop();
  }

 private:
  void add_routes(http::Router& front) {
    auto status = std::make_shared<http::Router>();
    add_health_routes(*status, health_,
                      {.version = version_text(),
                       .render_metrics = [this] { return fleet_->render_metrics() + render_tls_metrics(tls_.get()); },
                       .metrics_content_type = ServerMetrics::content_type()});
    status->add("GET", "/admin/v1/pools", [this](const std::shared_ptr<http::Exchange>& exchange) {
      http::HttpResponse response;
      response.body = fleet_->status().dump(2) + "\n";
      exchange->respond(std::move(response));
    });
    // Where --api-key is all there is, nobody could have a key of another role.
    const bool open = !gateway_.has_admins;
    const Gate::RouteName of_status[] = {
        {"GET", "/health", Access::kOpen},
        {"GET", "/ping", Access::kOpen},
        {"POST", "/ping", Access::kOpen},
        {"GET", "/ready", Access::kOpen},
        {"GET", "/version", open ? Access::kOpen : Access::kAnyKey},
        {"GET", "/metrics", open ? Access::kOpen : Access::kMetrics},
        {"GET", "/admin/v1/pools", open ? Access::kAnyKey : Access::kAdmin},
    };
    gate_->add_routes(front, of_status, std::move(status));
    std::vector<Gate::RouteName> of_fleet;
    for (const auto& [method, path] : fleet::Fleet::routes()) of_fleet.push_back({method, path, Access::kInference});
    gate_->add_routes(front, of_fleet);
    gate_->check_complete(front);
  }

  std::string url() const { return url_of(config_.host, http_->local_port(), tls_ != nullptr); }

  const ServerConfig& config_;
  const fleet::PoolsConfig& pools_;
  Health health_;
  http::IoThreads io_;
  StopSignals signals_;
  Gateway gateway_;
  std::optional<Gate> gate_;
  std::shared_ptr<fleet::Fleet> fleet_;
  std::shared_ptr<http::TlsCertificates> tls_;  // null: plain HTTP
  std::optional<http::HttpServer> http_;
};

class RouteVerb final : public Verb {
 public:
  std::string name() const override { return "route"; }
  std::string description() const override { return "one address in front of several servers, ours or vLLM's"; }
  std::string examples() const override {
    return "  sextant route --config pools.yaml --port 9000\n"
           "  sextant route --config pools.yaml --check          (what is wrong with it, and nothing else)\n"
           "  curl localhost:9000/admin/v1/pools                 (who is up, who was ejected, and why)\n"
           "\n"
           "pools.yaml:\n"
           "  pools:\n"
           "    - model: smollm2                                 # as clients name it\n"
           "      members: [http://gpu-1:8000, http://gpu-2:8000]\n"
           "      policy: prefix_affinity                        # or least_tokens, least_connections\n"
           "      failover: far                                  # that pool takes over when no member can be had\n"
           "    - name: far\n"
           "      model: smollm2\n"
           "      members_dns: http://sextant.eu.svc:8000        # all addresses of a name; or members_file: FILE\n"
           "      api_key_env: FAR_KEY                           # sent instead of the client's key\n"
           "    - model: phi                                     # or the router starts and keeps its servers itself\n"
           "      path: /models/phi-3\n"
           "      num_workers: 2\n"
           "      gpu_ids: [0, 1]\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("--config", path_, "the pools, in YAML or (.json) JSON")->type_name("FILE")->required();
    app.add_flag("--check", check_, "read the configuration, say what is wrong with it, and exit");
    add_flags(app, settings_of(config_), flags_);
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    const auto append = [&](std::vector<Status> more) {
      for (Status& error : more) errors.push_back(std::move(error));
    };
    const auto from_environment = [](const char* name, std::string& field) {
      if (const char* value = std::getenv(name); value != nullptr && *value != '\0') field = value;
    };
    from_environment("SEXTANT_API_KEY", config_.api_key);
    from_environment("SEXTANT_STATE_DIR", config_.state_dir);
    from_environment("SEXTANT_DATABASE_URL", config_.database_url);
    from_environment("SEXTANT_SSL_KEYFILE_PASSWORD", config_.tls.keyfile_password);
    append(apply_flags(settings_of(config_), flags_));
    append(config_.validate());
    if (!config_.otlp_traces_endpoint.empty()) {
      errors.push_back(
          invalid_argument("otlp_traces_endpoint is for the servers behind a router, which passes traceparent on and "
                           "has no spans itself",
                           "otlp_traces_endpoint"));
    }
    fleet::PoolsConfig pools;
    if (const Result<nlohmann::ordered_json> structure = read_structure(path_); structure.ok()) {
      for (const Status& error : fleet::read_pools(*structure, pools))
        errors.push_back(invalid_argument(path_ + ": " + error.message(), error.param()));
    } else {
      errors.push_back(structure.status());
    }
    if (!errors.empty()) return report_bad_input(name(), errors);
    if (check_) {
      std::printf("%s: %zu pools, nothing is wrong with them\n", path_.c_str(), pools.pools.size());
      return kExitDone;
    }
    install_log_sink(config_.log_level, config_.log_format);
    std::signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    Router router(config_, pools);
    if (const Status status = router.start(); !status.ok()) {
      LOG_ERROR << status.message();
      return status.code() == StatusCode::kInvalidArgument ? kExitBadInput : kExitFailed;
    }
    router.run();
    router.drain();
    return kExitDone;
  }

 private:
  std::string path_;
  bool check_ = false;
  GivenFlags flags_;
  ServerConfig config_;
};

}  // namespace

std::unique_ptr<Verb> make_route_verb() { return std::make_unique<RouteVerb>(); }

}  // namespace sextant::cli
