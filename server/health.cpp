#include "server/health.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace sextant {
namespace {

using nlohmann::json;

const char* name_of(Health::State state) {
  switch (state) {
    case Health::State::kLoading: return "loading";
    case Health::State::kReady: return "ready";
    case Health::State::kDraining: return "draining";
    case Health::State::kFailed: return "failed";
  }
  return "failed";
}

http::HttpResponse state_response(const Health::Snapshot& snapshot, bool is_good) {
  json body = {{"status", name_of(snapshot.state)}};
  if (!snapshot.reason.empty()) body["reason"] = snapshot.reason;
  http::HttpResponse response;
  response.status = is_good ? 200 : 503;
  response.body = body.dump(-1, ' ', false, json::error_handler_t::replace);
  response.headers.push_back({"Cache-Control", "no-store"});
  if (!is_good && snapshot.state == Health::State::kLoading) response.headers.push_back({"Retry-After", "1"});
  return response;
}

}  // namespace

void Health::set(State state, std::string reason) {
  const std::lock_guard lock(mutex_);
  if (snapshot_.state == State::kFailed) return;
  // A load that ends while the server is being stopped does not make it ready again.
  if (snapshot_.state == State::kDraining && state != State::kFailed) return;
  snapshot_ = {state, std::move(reason)};
}

void Health::set_loading(std::string what) { set(State::kLoading, std::move(what)); }
void Health::set_ready() { set(State::kReady, {}); }
void Health::set_draining() { set(State::kDraining, "the server is stopping; running requests are being finished"); }
void Health::set_failed(std::string reason) { set(State::kFailed, std::move(reason)); }

Health::Snapshot Health::snapshot() const {
  const std::lock_guard lock(mutex_);
  return snapshot_;
}

void add_health_routes(http::Router& router, const Health& health, HealthRoutes routes) {
  const http::Handler alive = [&health](const std::shared_ptr<http::Exchange>& exchange) {
    const Health::Snapshot snapshot = health.snapshot();
    exchange->respond(state_response(snapshot, snapshot.state != Health::State::kFailed));
  };
  router.add("GET", "/health", alive);
  router.add("GET", "/ping", alive);
  router.add("POST", "/ping", alive);
  router.add("GET", "/ready", [&health](const std::shared_ptr<http::Exchange>& exchange) {
    const Health::Snapshot snapshot = health.snapshot();
    exchange->respond(state_response(snapshot, snapshot.state == Health::State::kReady));
  });
  router.add("GET", "/version", [version = routes.version](const std::shared_ptr<http::Exchange>& exchange) {
    http::HttpResponse response;
    response.body = json{{"version", version}}.dump();
    exchange->respond(std::move(response));
  });
  if (!routes.render_metrics) return;
  router.add("GET", "/metrics", [routes = std::move(routes)](const std::shared_ptr<http::Exchange>& exchange) {
    http::HttpResponse response;
    response.content_type = routes.metrics_content_type;
    response.body = routes.render_metrics();
    exchange->respond(std::move(response));
  });
}

}  // namespace sextant
