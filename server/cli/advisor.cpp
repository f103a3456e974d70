// `sextant advisor`: the advisor's routes in a server of their own, and `sextant advise compare`.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <CLI/CLI.hpp>

#include "advisor/kb/importers.h"
#include "advisor/plan/plan.h"
#include "engine/base/log.h"
#include "server/cli/advise.h"
#include "server/cli/advisor_routes.h"
#include "server/cli/log_sink.h"
#include "server/cli/serve.h"
#include "server/cli/stop_signals.h"
#include "server/gateway/gate.h"
#include "server/health.h"
#include "server/http/io_threads.h"

namespace sextant::cli {
namespace {

class AdvisorVerb final : public Verb {
 public:
  std::string name() const override { return "advisor"; }
  std::string description() const override { return "serve the capacity advisor over HTTP, without a model"; }
  std::string examples() const override {
    return "  sextant advisor --port 8100\n"
           "  SEXTANT_API_KEY=secret sextant advisor --host 0.0.0.0 --kb postgresql://advisor@db/sextant\n"
           "  curl -d '{\"spec\": {\"task_type\": \"rag\", \"users\": 2000}}' "
           "localhost:8100/advisor/v1/recommendations\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("--host", host_, "address to listen on")->type_name("ADDRESS")->capture_default_str();
    app.add_option("--port", port_, "0: the kernel picks one")->type_name("PORT")->capture_default_str();
    app.add_option("--kb", location_, "a SQLite file or postgresql://...")->type_name("PATH|URL");
    add_flags(app, tls_settings(), tls_flags_);
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    if (const char* password = std::getenv("SEXTANT_SSL_KEYFILE_PASSWORD"); password != nullptr)
      tls_.keyfile_password = password;
    for (Status& error : apply_flags(tls_settings(), tls_flags_)) errors.push_back(std::move(error));
    for (Status& error : http::TlsCertificates::check(tls_)) errors.push_back(std::move(error));
    if (port_ < 0 || port_ > 65535) errors.push_back(invalid_argument("--port must be a number from 0 to 65535"));
    if (!errors.empty()) return report_bad_input(name(), errors);
    install_log_sink("info", "text");
    const char* key = std::getenv("SEXTANT_API_KEY");
    if ((key == nullptr || *key == 0) && !is_loopback_host(host_))
      LOG_WARNING << "serving without an API key on " << host_
                  << ": everyone who can connect may change the knowledge base";

    Health health;
    const auto authenticator = single_key_authenticator(key == nullptr ? "" : key);
    Gate gate(*authenticator, health);
    http::IoThreads io(2);
    AdvisorRoutes routes(default_faces(location_));  // its jobs post to the I/O threads: it goes before them
    StopSignals signals(io.context());
    auto front = std::make_shared<http::Router>();
    add_health_routes(*front, health, {.version = version_text(), .render_metrics = {}, .metrics_content_type = ""});
    std::vector<Gate::RouteName> names;
    for (const advisor::Faces::Route& route : AdvisorRoutes::routes())
      names.push_back({route.method, route.path, Access::kAdvisor});
    gate.add_routes(*front, names);
    Result<std::shared_ptr<http::TlsCertificates>> tls = http::TlsCertificates::open(tls_);
    if (!tls.ok()) return failed(tls.status());
    http::HttpServer::Options options;
    options.tls = *tls;
    options.host = host_;
    options.port = static_cast<uint16_t>(port_);
    http::HttpServer server(io.context(), std::move(options), front);
    if (Status status = server.start(); !status.ok()) return failed(status);
    LOG_INFO << "listening at " << url_of(host_, server.local_port(), tls_.wanted()) << ", reading the knowledge base";
    if (Status status = routes.faces().open(); !status.ok()) return failed(status);
    routes.log_health();
    auto api = std::make_shared<http::Router>();
    routes.add_to(*api);
    gate.open(api);
    signals.set_nothing_to_drain(false);
    health.set_ready();
    LOG_INFO << "ready at " << url_of(host_, server.local_port(), tls_.wanted())
             << " (GET /advisor/v1/openapi.json describes it)";
    while (!signals.wait_for(std::chrono::milliseconds(200))) {
    }
    health.set_draining();
    server.stop_accepting();
    server.close_idle();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (server.num_requests() > 0 && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    server.close_all();
    io.stop();
    LOG_INFO << "stopped";
    return kExitDone;
  }

 private:
  static int failed(const Status& status) {
    LOG_ERROR << status.message();
    return kExitFailed;
  }

  std::vector<Setting> tls_settings() {
    std::vector<Setting> settings;
    visit_tls_options(tls_, SettingCollector(settings));
    return settings;
  }

  std::string host_ = "127.0.0.1", location_;
  int port_ = 8100;
  http::TlsOptions tls_;
  GivenFlags tls_flags_;
};

class CompareVerb final : public Verb {
 public:
  std::string name() const override { return "advise compare"; }
  std::string description() const override {
    return "plans of several specs side by side, or one before and after new data";
  }
  std::string examples() const override {
    return "  sextant advise compare chat.json chat-faster.json chat-h200.json\n"
           "  sextant advise compare chat.json --kb-revision 3     what came since revision 3 changed\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("specs", paths_, "files of sextant.spec/1")->type_name("SPEC.json")->required();
    app.add_option("--kb-revision", revision_,
                   "plan the one spec with this state of the knowledge base, and with the newest")
        ->type_name("N");
    app.add_option("--as-of", as_of_, "the date by which prices are judged (default: today)")->type_name("DATE");
    app.add_option("--kb", location_, "a SQLite file or postgresql://...")->type_name("PATH|URL");
    app.add_flag("--json", json_, "one JSON object");
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    if (as_of_.empty()) as_of_ = today_text();
    if (!advisor::is_date(as_of_)) errors.push_back(invalid_argument("--as-of must be a date like 2026-01-31"));
    if (revision_ < 0) errors.push_back(invalid_argument("--kb-revision must be a number from 1"));
    if (revision_ > 0 ? paths_.size() != 1 : paths_.size() < 2)
      errors.push_back(invalid_argument(revision_ > 0 ? "--kb-revision compares one spec with itself: give one"
                                                      : "give at least two specs, or one and --kb-revision"));
    std::vector<std::string> texts;
    for (const std::string& path : paths_) {
      const auto text = advisor::read_text_file(path, advisor::kMaxSpecBytes);
      if (text.ok())
        texts.push_back(*text);
      else
        errors.push_back(text.status());
    }
    if (!errors.empty()) return report_bad_input(name(), errors);
    auto kb = advisor::KnowledgeBase::open(location_.empty() ? advisor::default_kb_location() : location_);
    if (!kb.ok()) return failed(kb.status());
    std::vector<std::optional<int64_t>> revisions = {std::nullopt};
    if (revision_ > 0) revisions.insert(revisions.begin(), revision_);
    std::vector<std::pair<std::string, nlohmann::ordered_json>> plans;
    for (const auto& revision : revisions) {
      const auto world = advisor::load_world(
          *kb, {.as_of = as_of_, .version = version_text(), .cache_directory = std::nullopt, .revision = revision});
      if (!world.ok()) return report_bad_input(name(), {world.status()});
      for (size_t i = 0; i < texts.size(); ++i) {
        advisor::PlanRequest request;
        errors = advisor::read_spec(texts[i], (*world)->use_cases, request.spec);
        for (Status& error : errors) error = Status(error.code(), paths_[i] + ": " + error.message());
        if (!errors.empty()) return report_bad_input(name(), errors);
        auto plan = advisor::make_plan(**world, request);
        if (!plan.ok())
          return report_bad_input(name(), {Status(plan.status().code(), paths_[i] + ": " + plan.status().message())});
        const std::string named = revision_ > 0 ? "knowledge base " + (*world)->kb_revision.substr(0, 12) : paths_[i];
        plans.emplace_back(named, *std::move(plan));
      }
    }
    const auto comparison = advisor::compare_plans(plans);
    std::printf("%s", json_ ? (comparison.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n").c_str()
                            : advisor::comparison_text(comparison).c_str());
    return kExitDone;
  }

 private:
  int failed(const Status& status) const {
    std::fprintf(stderr, "sextant %s: %s\n", name().c_str(), status.message().c_str());
    return kExitFailed;
  }

  std::vector<std::string> paths_;
  std::string as_of_, location_;
  int64_t revision_ = 0;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_advisor_verb() { return std::make_unique<AdvisorVerb>(); }
std::unique_ptr<Verb> make_advise_compare_verb() { return std::make_unique<CompareVerb>(); }

}  // namespace sextant::cli
