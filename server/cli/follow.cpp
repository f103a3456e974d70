// follow(): a node above 0 of a group. It has no API: /health, /ready and /metrics alone. It ends when the leader has ended, and
// with an error when the group has failed. A SIGTERM is not its end: where a whole group is stopped, the leader drains what runs
// for its clients, and needs this node for it.
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>

#include "engine/base/log.h"
#include "engine/engine.h"
#include "server/cli/serve.h"
#include "server/cli/stop_signals.h"
#include "server/health.h"
#include "server/http/io_threads.h"
#include "server/http/listener.h"
#include "server/metrics.h"
#include "server/metrics_tls.h"

namespace sextant::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

class FollowerServer {
 public:
  explicit FollowerServer(const ServeOptions& options)
      : options_(options),
        metrics_(options.engine.model.served_model_name),
        io_(static_cast<int>(options.server.num_io_threads)),
        signals_(io_.context()) {}
  ~FollowerServer() {
    http_.reset();
    io_.stop();
    metrics_.set_rank_readings_source({});
  }

  Status listen() {
    ASSIGN_OR_RETURN(tls_, http::TlsCertificates::open(options_.server.tls));
    auto routes = std::make_shared<http::Router>();
    add_health_routes(*routes, health_,
                      {.version = version_text(),
                       .render_metrics = [this] { return metrics_.render() + render_tls_metrics(tls_.get()); },
                       .metrics_content_type = ServerMetrics::content_type()});
    http::HttpServer::Options http_options;
    http_options.host = options_.server.host;
    http_options.port = static_cast<uint16_t>(options_.server.port);
    http_options.limits = options_.server.limits();
    http_options.tls = tls_;
    http_options.on_request = [](const http::RequestRecord&) {};
    http_.emplace(io_.context(), std::move(http_options), std::move(routes));
    RETURN_IF_ERROR(http_->start());
    LOG_INFO << "listening at " << url_of(options_.server.host, http_->local_port(), tls_ != nullptr)
             << " (health and metrics), node " << options_.engine.parallel.node_rank << " of "
             << options_.engine.parallel.nnodes;
    return ok_status();
  }

  Status load() {
    health_.set_loading("joining the group");
    Engine::Options engine_options;
    engine_options.config = options_.engine;
    engine_options.version = version_text();
    engine_options.on_memory_plan = [this](const std::string& plan) {
      health_.set_loading("reading the weights");
      std::istringstream lines(plan);
      for (std::string line; std::getline(lines, line);) LOG_INFO << line;
    };
    ASSIGN_OR_RETURN(follower_, GroupFollower::create(std::move(engine_options)));
    metrics_.set_rank_readings_source([this] { return follower_->rank_readings(); });
    return ok_status();
  }

  // ok: the leader has ended.
  Status follow() {
    signals_.set_nothing_to_drain(false);
    health_.set_ready();
    LOG_INFO << "ready: follows the leader";
    std::atomic<bool> ended = false;
    Status status;
    std::thread work([&] {
      status = follower_->follow();
      ended.store(true);
    });
    std::optional<steady_clock::time_point> patience_ends;
    while (!ended.load()) {
      if (patience_ends) {
        std::this_thread::sleep_for(milliseconds(50));
        if (steady_clock::now() < *patience_ends) continue;
        LOG_WARNING << "the leader did not end in time: leaving the group";
        follower_->leave("it was asked to stop");
        break;
      }
      if (!signals_.wait_for(milliseconds(50))) continue;
      LOG_INFO << "asked to stop: follows the leader for as long as that drains, at most "
               << options_.server.shutdown_timeout + kMarginS << " s";
      health_.set_draining();
      patience_ends = steady_clock::now() + std::chrono::seconds(options_.server.shutdown_timeout + kMarginS);
    }
    work.join();
    if (!status.ok()) health_.set_failed(status.message());
    return status;
  }

  // Before anything else goes: what a failed group's devices hold may never come back.
  void drop() { follower_.reset(); }

 private:
  // What the leader has beside its own drain.
  static constexpr int64_t kMarginS = 5;

  const ServeOptions& options_;
  Health health_;
  ServerMetrics metrics_;
  http::IoThreads io_;
  StopSignals signals_;
  std::unique_ptr<GroupFollower> follower_;
  std::shared_ptr<http::TlsCertificates> tls_;  // null: plain HTTP
  std::optional<http::HttpServer> http_;
};

}  // namespace

int follow(const ServeOptions& options) {
  std::signal(SIGPIPE, SIG_IGN);
  FollowerServer server(options);
  for (const auto step : {&FollowerServer::listen, &FollowerServer::load}) {
    if (const Status status = (server.*step)(); !status.ok()) {
      LOG_ERROR << status.message();
      return kExitFailed;
    }
  }
  if (const Status status = server.follow(); !status.ok()) {
    LOG_ERROR << "stopped because the group failed: " << status.message();
    std::_Exit(kExitFailed);  // a rank may be inside a driver that never answers
  }
  server.drop();
  LOG_INFO << "stopped: the leader has ended";
  return kExitDone;
}

}  // namespace sextant::cli
