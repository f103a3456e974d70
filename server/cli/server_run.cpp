// serve(): builds the server's parts, runs them and drains. Order of life: I/O threads and health first, so that the port
// answers while the model loads; then tokenizer, engine, API. They go in reverse, after the I/O threads were joined.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>

#include "engine/base/log.h"
#include "engine/engine.h"
#include "engine/text/chat_template.h"
#include "engine/text/id_tokenizer.h"
#include "engine/text/tokenizer.h"
#include "server/cli/advisor_routes.h"
#include "server/cli/gateway_setup.h"
#include "server/cli/log_sink.h"
#include "server/cli/serve.h"
#include "server/cli/stop_signals.h"
#include "server/gateway/admin_api.h"
#include "server/gateway/backup.h"
#include "server/gateway/gate.h"
#include "server/health.h"
#include "server/http/io_threads.h"
#include "server/http/listener.h"
#include "server/metrics.h"
#include "server/metrics_tls.h"
#include "server/openai/api.h"
#include "server/otlp/trace_exporter.h"
#include "server/status_page.h"

namespace sextant::cli {

std::string url_of(const std::string& host, uint16_t port, bool tls) {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return std::string(tls ? "https://" : "http://") + (is_ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr Gate::RouteName kApiRoutes[] = {
    {"POST", "/v1/completions", Access::kInference}, {"POST", "/v1/chat/completions", Access::kInference},
    {"POST", "/tokenize", Access::kInference},       {"POST", "/detokenize", Access::kInference},
    {"GET", "/v1/models", Access::kInference},       {"GET", "/v1/models/*", Access::kInference},
    {"POST", "/v1/stream", Access::kInference},      {"POST", "/generate", Access::kInference},
};

// They answer while there is no API yet, and when there is none any more.
constexpr Gate::RouteName kStatusRoutes[] = {
    {"GET", "/health", Access::kOpen}, {"GET", "/ping", Access::kOpen},      {"POST", "/ping", Access::kOpen},
    {"GET", "/", Access::kOpen},       {"GET", "/status.js", Access::kOpen}, {"GET", "/status.css", Access::kOpen},
    {"GET", "/ready", Access::kOpen},  {"GET", "/version", Access::kAnyKey}, {"GET", "/metrics", Access::kMetrics},
};
// Where --api-key is all there is, nobody could have a key for these.
std::vector<Gate::RouteName> status_routes(bool has_admins) {
  std::vector<Gate::RouteName> routes(std::begin(kStatusRoutes), std::end(kStatusRoutes));
  if (!has_admins) {
    for (Gate::RouteName& route : routes) route.access = Access::kOpen;
  }
  return routes;
}

// The file that replaces the model's own template, or that one; nothing when there is neither.
Result<std::optional<ChatTemplate>> load_chat_template(const ModelSource& source, const Tokenizer& tokenizer) {
  std::string text;
  std::string origin = source.model;
  if (!source.chat_template.empty()) {
    origin = source.chat_template;
    std::ifstream file(origin, std::ios::binary);
    std::ostringstream content;
    if (!file || !(content << file.rdbuf()))
      return invalid_argument(origin + ": cannot be read as a chat template", "chat_template");
    text = content.str();
  } else if (tokenizer.chat_template()) {
    text = *tokenizer.chat_template();
  } else {
    return std::optional<ChatTemplate>();
  }
  Result<ChatTemplate> parsed = ChatTemplate::parse(text);
  if (!parsed.ok()) return Status(parsed.status().code(), origin + ": chat template: " + parsed.status().message());
  return std::optional<ChatTemplate>(std::move(*parsed));
}

// Equal for servers whose answers to a seeded request are equal: same weights, same numerics. FNV-1a, as text.
std::string system_fingerprint(const EngineInfo& info) {
  uint64_t hash = 0xcbf29ce484222325;
  const std::string facts = version_text() + '\0' + info.architecture + '\0' + info.weight_type + '\0' + info.device +
                            '\0' + info.kv_cache_dtype + '\0' + std::to_string(info.num_parameters) + '\0' +
                            std::to_string(info.weight_bytes) + '\0' + std::to_string(info.vocab_size);
  for (const char c : facts) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  char text[24];
  std::snprintf(text, sizeof text, "fp_%010llx", static_cast<unsigned long long>(hash >> 24));
  return text;
}

int64_t unix_now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Headers, which may be a collector's secret, come from the environment, as OpenTelemetry has it.
Result<otlp::TraceExporter::Options> trace_options(const ServerConfig& config) {
  otlp::TraceExporter::Options traces;
  ASSIGN_OR_RETURN(traces.url, otlp::traces_url(config.otlp_traces_endpoint));
  const char* const headers = std::getenv("OTEL_EXPORTER_OTLP_HEADERS");
  ASSIGN_OR_RETURN(traces.headers, otlp::parse_headers(headers != nullptr ? headers : ""));
  const char* const name = std::getenv("OTEL_SERVICE_NAME");
  const http::TraceContext::SpanId instance = http::make_span_id();
  traces.resource = {name != nullptr && *name != 0 ? name : "sextant", version_text(),
                     http::hex_text(instance.data(), instance.size())};
  return traces;
}

void log_lines(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) LOG_INFO << line;
}

// All parts, in the order of their life.
class Server {
 public:
  Server(const ServeOptions& options, const EngineSource& source)
      : options_(options),
        source_(source),
        metrics_(options.engine.model.served_model_name),
        io_(static_cast<int>(options.server.num_io_threads)),
        signals_(io_.context()) {
    if (options.server.price_usd_per_hour > 0) metrics_.set_price(options.server.price_usd_per_hour);
  }

  Status listen() {
    ASSIGN_OR_RETURN(tls_, http::TlsCertificates::open(options_.server.tls));
    ASSIGN_OR_RETURN(gateway_, make_gateway(options_.server));
    ASSIGN_OR_RETURN(TrustedProxies proxies, TrustedProxies::parse(options_.server.trusted_proxies));
    gate_.emplace(
        *gateway_.authenticator, health_,
        Gate::Services{.audit = gateway_.audit.get(),
                       .fair_use = gateway_.fair_use.get(),
                       .refusals = gateway_.refusals.get(),
                       .trusted_proxies = proxies,
                       .begins_traces = options_.server.access_log || !options_.server.otlp_traces_endpoint.empty(),
                       .may_work = may_work()});
    if (!options_.server.backup_dir.empty()) {
      const char* knowledge_base = std::getenv("SEXTANT_KB");
      backups_.emplace(BackupKeeper::Options{options_.server.backup_dir, options_.server.backup_interval,
                                             options_.server.backup_keep},
                       BackupSource{&gateway_.keeper->store(), shown_config().dump(2) + "\n",
                                    knowledge_base != nullptr ? knowledge_base : "", version_text()});
    }
    if (!options_.server.otlp_traces_endpoint.empty()) {
      ASSIGN_OR_RETURN(otlp::TraceExporter::Options traces, trace_options(options_.server));
      traces_.emplace(std::move(traces));
    }
    admin_.emplace(gateway_.keeper.get(), gateway_.audit.get(), admin_hooks());
    note_life("server.start");
    auto front = std::make_shared<http::Router>();
    auto status = std::make_shared<http::Router>();
    add_health_routes(*status, health_,
                      {.version = version_text(),
                       .render_metrics = [this] { return metrics_.render() + render_tls_metrics(tls_.get()); },
                       .metrics_content_type = ServerMetrics::content_type()});
    add_status_page(*status);
    std::vector<Gate::RouteName> routes(std::begin(kApiRoutes), std::end(kApiRoutes));
    for (const advisor::Faces::Route& route : AdvisorRoutes::routes())
      routes.push_back({route.method, route.path, Access::kAdvisor});
    auto admin_routes = std::make_shared<http::Router>();
    admin_->register_routes(*admin_routes, *gate_);
    gate_->add_routes(*front, status_routes(gateway_.has_admins), std::move(status));
    gate_->add_routes(*front, AdminApi::routes(), std::move(admin_routes));
    gate_->add_routes(*front, routes);
    gate_->check_complete(*front);
    http::HttpServer::Options http_options;
    http_options.host = options_.server.host;
    http_options.port = static_cast<uint16_t>(options_.server.port);
    http_options.limits = options_.server.limits();
    http_options.tls = tls_;
    http_options.websocket_path = "/v1/stream";
    http_options.client_of = [proxies](const std::string& address) {
      return proxies.trusts(address) ? std::string() : address_group(address);
    };
    http_options.on_refused_connection = [this] { gateway_.refusals->add(Refusal::kConnections); };
    http_options.on_request = [this](const http::RequestRecord& record) {
      metrics_.on_http_request(record);
      if (gateway_.audit) gateway_.audit->on_request(record);
      if (traces_ && record.notes != nullptr && record.notes->trace && record.notes->trace->is_sampled)
        traces_->add(otlp::trace_of(record, unix_now_ns()));
      log_request(record, options_.server.access_log);
    };
    http_options.on_socket_event = source_.on_socket_event;
    http_.emplace(io_.context(), std::move(http_options), std::move(front));
    RETURN_IF_ERROR(http_->start());
    metrics_.set_connections_source([this] { return http_->num_connections(); });
    metrics_.set_gateway_source(
        [this] { return read_gateway(gateway_, backups_ ? &*backups_ : nullptr, traces_ ? &*traces_ : nullptr); });
    end_phase("listen");
    LOG_INFO << "listening at " << url() << ", loading " << options_.engine.model.model;
    return ok_status();
  }

  Status load() {
    const ModelSource& source = options_.engine.model;
    health_.set_loading("reading the tokenizer");
    ASSIGN_OR_RETURN(tokenizer_, source_.load_tokenizer());
    if (tokenizer_->knows_text()) {
      ASSIGN_OR_RETURN(chat_template_, load_chat_template(source, *tokenizer_));
      if (!chat_template_) LOG_WARNING << "the model has no chat template: /v1/chat/completions will answer 400";
    } else {
      LOG_INFO << "no tokenizer (--skip-tokenizer-init): /v1/completions takes and gives token ids; what needs text "
                  "answers 400";
    }
    end_phase("tokenizer");
    health_.set_loading("reading the weights");
    Engine::Options engine_options;
    engine_options.config = options_.engine;
    engine_options.version = version_text();
    engine_options.eos_token_ids = tokenizer_->eos_token_ids();
    engine_options.on_step = [this](const StepInfo& step) { metrics_.on_step(step); };
    engine_options.on_memory_plan = [](const std::string& plan) { log_lines(plan); };
    ASSIGN_OR_RETURN(engine_, source_.create_engine(std::move(engine_options), *tokenizer_));
    end_phase("model");
    metrics_.set_engine_info(engine_->info(), options_.engine);
    metrics_.set_engine_stats_source([this] { return engine_->stats(); });
    metrics_.set_device_readings_source([this] { return engine_->device_readings(); });
    metrics_.set_rank_readings_source([this] { return engine_->rank_readings(); });
    return ok_status();
  }

  void open() {
    openai::ApiOptions api_options;
    api_options.served_model_names = {options_.engine.model.served_model_name};
    api_options.model_root = options_.engine.model.model;
    api_options.system_fingerprint = system_fingerprint(engine_->info());
    api_options.num_text_threads = static_cast<size_t>(options_.server.num_text_threads);
    api_options.response_cache_bytes = options_.server.response_cache_bytes;
    api_options.response_cache_ttl_s = options_.server.response_cache_ttl_s;
    api_options.sse_heartbeat_s = options_.server.sse_heartbeat_s;
    api_options.num_event_sinks = static_cast<size_t>(options_.server.num_io_threads);
    api_options.budget = gateway_.fair_use.get();
    api_options.note_prompts = options_.server.audit_prompts;
    if (gateway_.fair_use) gateway_.fair_use->set_num_waiting([this] { return engine_->stats().num_requests_waiting; });
    api_.emplace(std::move(api_options), *engine_, *tokenizer_, chat_template_ ? &*chat_template_ : nullptr, &metrics_);
    open_api_.store(&*api_, std::memory_order_release);
    auto routes = std::make_shared<http::Router>();
    api_->register_routes(*routes);
    // Opens the knowledge base when it is first asked something; one that it was given is checked at start.
    advisor_.emplace(default_faces(""), 1);
    if (const char* given = std::getenv("SEXTANT_KB"); given != nullptr && *given != 0) advisor_->log_health();
    advisor_->add_to(*routes);
    gate_->open(std::move(routes));
    signals_.set_nothing_to_drain(false);
    end_phase("api");
    metrics_.on_startup_phase("total", std::chrono::duration<double>(steady_clock::now() - start_).count());
    health_.set_ready();
    const EngineInfo& info = engine_->info();
    LOG_INFO << "ready at " << url() << " (model " << options_.engine.model.served_model_name << ", context "
             << info.max_model_len << ", " << info.weight_type << " on " << info.device << ", loaded in "
             << static_cast<int64_t>(info.load_s * 1e3) << " ms)";
  }

  // Until a signal comes or the engine fails: it refuses new work by itself then, and has answered what it had.
  void run() {
    while (!signals_.wait_for(milliseconds(200)) && !drain_asked_ && engine_->stats().healthy) {
    }
  }

  // New work is refused with 503 while what runs may finish; then what is left is cut off. False when the device failed or
  // the engine's books do not add up at the end.
  bool drain() {
    const auto deadline = steady_clock::now() + std::chrono::seconds(options_.server.shutdown_timeout);
    if (device_failed()) health_.set_failed("the device failed");
    health_.set_draining();
    engine_->begin_drain();
    const size_t num_at_work = http_->num_requests();
    LOG_INFO << "stopping: " << num_at_work << " requests at work get up to " << options_.server.shutdown_timeout
             << " s";
    const bool finished = engine_->wait_drained(std::chrono::duration<double>(deadline - steady_clock::now()).count());
    // The engine is done before the last bytes are: rendering and sending follow. What only now arrives is answered 503.
    while (finished && http_->num_requests() > 0 && steady_clock::now() < deadline) {
      std::this_thread::sleep_for(milliseconds(5));
    }
    http_->stop_accepting();
    http_->close_idle();
    if (const size_t num_left = http_->num_requests(); num_left > 0) {
      LOG_WARNING << "cutting off " << num_left << " requests that did not finish in time";
    }
    http_->close_all();
    if (device_failed()) {
      LOG_ERROR << "stopped because the device failed";
      return false;
    }
    if (finished) {
      if (const Status status = engine_->check_integrity(); !status.ok()) {
        LOG_ERROR << "the KV cache's integrity was violated: " << status.message();
        return false;
      }
    }
    LOG_INFO << "stopped";
    return true;
  }

  bool device_failed() const { return engine_ != nullptr && !engine_->stats().healthy; }

  // The reverse of the order of life.
  ~Server() {
    metrics_.set_connections_source({});
    metrics_.set_gateway_source({});
    http_.reset();
    io_.stop();
    traces_.reset();  // sends what is left, within a moment
    note_life("server.stop");
    metrics_.set_engine_stats_source({});
    metrics_.set_device_readings_source({});
    metrics_.set_rank_readings_source({});
  }

 private:
  // startup_time_seconds: each phase from the end of the one before it.
  void end_phase(const std::string& phase) {
    const auto now = steady_clock::now();
    metrics_.on_startup_phase(phase, std::chrono::duration<double>(now - std::exchange(phase_start_, now)).count());
  }
  nlohmann::ordered_json shown_config() const {
    ServeOptions copy = options_;
    copy.of_verb.clear();  // they point into the verb
    return to_json(copy.settings());
  }
  AdminHooks admin_hooks() {
    const nlohmann::ordered_json config = shown_config();
    return {
        .config = [config] { return config; },
        .models =
            [this] {
              const ModelSource& model = options_.engine.model;
              return nlohmann::ordered_json{
                  {"models", {{{"name", model.served_model_name}, {"path", model.model}, {"ready", health_.ready()}}}}};
            },
        .log_level = log_level,
        .set_log_level =
            [](const std::string& level) {
              return set_log_level(level)
                         ? ok_status()
                         : invalid_argument("level must be one of debug, info, warning, error", "level");
            },
        .drain = [this] { drain_asked_ = true; },
        .backups = backups_ ? &*backups_ : nullptr,
        .cached_texts =
            [this](const std::string& tenant) {
              const openai::Api* api = open_api_.load(std::memory_order_acquire);
              return api != nullptr ? api->cached_texts(tenant) : std::vector<std::string>();
            },
        .forget_cached =
            [this](const std::string& tenant) {
              openai::Api* api = open_api_.load(std::memory_order_acquire);
              return api != nullptr ? api->forget_cached(tenant) : 0;
            }};
  }
  // With --audit-required: no work that no record could be kept of. Empty: always.
  std::function<bool()> may_work() const {
    if (!options_.server.audit_required) return {};
    return [audit = gateway_.audit.get()] { return audit->may_work(); };
  }
  void note_life(const char* action) {
    if (!gateway_.audit) return;
    AuditEvent event;
    event.action = action;
    event.outcome = "done";
    event.detail = version_text();
    gateway_.audit->record(event);
  }
  std::string url() const { return url_of(options_.server.host, http_->local_port(), tls_ != nullptr); }

  const ServeOptions& options_;
  const EngineSource& source_;
  const steady_clock::time_point start_ = steady_clock::now();
  steady_clock::time_point phase_start_ = start_;
  Health health_;
  ServerMetrics metrics_;
  http::IoThreads io_;
  StopSignals signals_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> chat_template_;
  std::unique_ptr<Engine> engine_;
  std::optional<openai::Api> api_;
  std::atomic<openai::Api*> open_api_{nullptr};  // api_, for who asks before it is there
  std::optional<AdvisorRoutes> advisor_;
  std::atomic<bool> drain_asked_{false};
  std::shared_ptr<http::TlsCertificates> tls_;  // null: plain HTTP
  Gateway gateway_;
  std::optional<BackupKeeper> backups_;
  std::optional<otlp::TraceExporter> traces_;
  std::optional<Gate> gate_;
  std::optional<AdminApi> admin_;
  std::optional<http::HttpServer> http_;
};

}  // namespace

EngineSource engine_from_files(const ServeOptions& options) {
  return {.load_tokenizer = [&options]() -> Result<std::unique_ptr<Tokenizer>> {
            if (options.engine.model.skip_tokenizer_init) return std::unique_ptr<Tokenizer>(new IdTokenizer);
            return load_tokenizer(options.engine.model.model);
          },
          .create_engine = [](Engine::Options engine_options,
                              const Tokenizer&) { return Engine::create(std::move(engine_options)); },
          .on_socket_event = {}};
}

int serve(const ServeOptions& options, const EngineSource& source) {
  std::signal(SIGPIPE, SIG_IGN);  // a client that went away is an error code, not a signal
  std::signal(SIGXFSZ, SIG_IGN);  // likewise a file that may not grow
  raise_descriptor_limit();
  const ServerConfig& config = options.server;
  if (!config.asks_for_keys() && !is_loopback_host(config.host)) {
    LOG_WARNING << "serving without an API key on " << config.host << ": everyone who can connect may use the model";
  }
  Server server(options, source);
  for (const auto step : {&Server::listen, &Server::load}) {
    if (Status status = (server.*step)(); !status.ok()) {
      LOG_ERROR << status.message();
      return kExitFailed;
    }
  }
  server.open();
  server.run();
  const bool drained = server.drain();
  // Giving back what a failed device holds may take for ever: a thread may be inside its driver, and each call may join it.
  // Everyone was answered, and each line of the log is out.
  if (server.device_failed()) std::_Exit(kExitFailed);
  return drained ? kExitDone : kExitFailed;
}

}  // namespace sextant::cli
