#include "server/gateway/gate.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <utility>

#include "engine/base/check.h"
#include "server/http/error_body.h"

namespace sextant {

Gate::Gate(const Authenticator& authenticator, const Health& health, Services services)
    : authenticator_(authenticator), health_(health), services_(std::move(services)) {}

void Gate::add_routes(http::Router& front, std::span<const RouteName> routes) {
  for (const RouteName& route : routes) {
    routes_.push_back(route);
    api_routes_.push_back(route);
    front.add(route.method, route.path, [this, route](std::shared_ptr<http::Exchange> exchange) {
      handle(route, std::move(exchange), nullptr, true);
    });
  }
}

void Gate::add_routes(http::Router& front, std::span<const RouteName> routes,
                      std::shared_ptr<const http::Router> handlers) {
  for (const RouteName& route : routes) {
    const http::Handler* handler = handlers->find(route.method, route.path).handler;
    CHECK(handler != nullptr) << route.method << " " << route.path;
    routes_.push_back(route);
    front.add(route.method, route.path, [this, route, handler](std::shared_ptr<http::Exchange> exchange) {
      handle(route, std::move(exchange), handler, true);
    });
  }
  front_handlers_.push_back(std::move(handlers));
}

void Gate::check_complete(const http::Router& front) const {
  for (const auto& route : front.routes()) {
    CHECK(std::ranges::any_of(routes_,
                              [&](const RouteName& r) { return r.method == route.first && r.path == route.second; }))
        << route.first << " " << route.second << " was not declared with what it asks for";
  }
}

void Gate::open(std::shared_ptr<const http::Router> api) {
  for (const RouteName& route : api_routes_) {
    CHECK(api->find(route.method, route.path).handler != nullptr) << route.method << " " << route.path;
  }
  api_ = std::move(api);
  open_api_.store(api_.get(), std::memory_order_release);
}

void Gate::count(Refusal reason) const {
  if (services_.refusals != nullptr) services_.refusals->add(reason);
}

void Gate::refuse(const RouteName& route, http::Exchange& exchange, const Identity* identity, int status,
                  const std::string& message, const std::string& code, double retry_after_s) const {
  if (services_.audit != nullptr) {
    const http::HttpRequest& request = exchange.request();
    using namespace std::chrono;
    services_.audit->record({.unix_ms = duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count(),
                             .who = identity != nullptr ? identity->key_id : "",
                             .tenant = identity != nullptr ? identity->tenant : "",
                             .client_address = request.client_address,
                             .request_id = request.request_id,
                             .action = "authorise",
                             .target = std::string(route.method) + " " + route.path,
                             .outcome = "refused",
                             .detail = code});
  }
  http::HttpResponse response = http::error_response(status, message, {}, code);
  if (status == 401) response.headers.push_back({"WWW-Authenticate", "Bearer"});
  http::set_retry_after(response, retry_after_s);
  exchange.respond(std::move(response));
}

bool Gate::admit(const RouteName& route, http::Exchange& exchange, const Credential& credential,
                 const std::string& client_address) const {
  const Identity* identity = credential.identity.get();
  if (identity == nullptr) {
    if (services_.fair_use != nullptr && credential.status == 401) {
      const bool showed_none = bearer_token(exchange.request().header("Authorization")).empty();
      const bool is_within = showed_none ? services_.fair_use->count_unauthenticated(client_address)
                                         : services_.fair_use->count_failed_login(client_address);
      if (!is_within) {
        count(showed_none ? Refusal::kAddress : Refusal::kFailedLogins);
        refuse(route, exchange, nullptr, 429, "Too many requests without a valid key came from this address.",
               "too_many_failures", showed_none ? 1 : 60);
        return false;
      }
    }
    count(Refusal::kCredentials);
    refuse(route, exchange, nullptr, credential.status, credential.message, credential.code);
    return false;
  }
  if (!may_enter(identity->roles, route.access)) {
    count(Refusal::kRole);
    refuse(route, exchange, identity, 403,
           "This key has the roles " + role_names(identity->roles) + "; " + route.path + " needs " +
               name_of(route.access) + ".",
           "insufficient_role");
    return false;
  }
  exchange.set_identity(credential.identity);
  return true;
}

void Gate::admit_use(const RouteName& route, std::shared_ptr<http::Exchange> exchange,
                     const http::Handler* handler) const {
  const std::shared_ptr<const Identity> identity = exchange->identity();
  // The exchange is released on its own executor.
  const boost::asio::any_io_executor executor = exchange->executor();
  const bool is_asked = services_.fair_use->admit_elsewhere(
      *identity, [this, route, exchange, handler, executor](FairUse::Admission admission) mutable {
        boost::asio::post(executor, [this, route, exchange = std::move(exchange), handler,
                                     admission = std::move(admission)]() mutable {
          if (apply(route, *exchange, std::move(admission))) enter(route, std::move(exchange), handler);
        });
      });
  if (is_asked) return;
  if (apply(route, *exchange, services_.fair_use->admit(*identity))) enter(route, std::move(exchange), handler);
}

bool Gate::apply(const RouteName& route, http::Exchange& exchange, FairUse::Admission admission) const {
  for (auto& [name, value] : admission.headers) exchange.set_response_header(std::move(name), std::move(value));
  if (admission.is_admitted) {
    if (admission.lease.use_count() > 0) exchange.hold(std::move(admission.lease));
    return true;
  }
  refuse(route, exchange, exchange.identity().get(), 429, admission.message, admission.code, admission.retry_after_s);
  return false;
}

bool Gate::is_serving(http::Exchange& exchange) const {
  const Health::Snapshot health = health_.snapshot();
  if (health.state == Health::State::kReady) return true;
  count(Refusal::kNotServing);
  switch (health.state) {
    case Health::State::kReady: return true;
    case Health::State::kLoading:
      exchange.respond(http::error_response(503, "The model is still loading (" + health.reason + "); try again."));
      return false;
    case Health::State::kDraining:
      exchange.respond(http::error_response(503, "The server is stopping and takes no new requests."));
      return false;
    case Health::State::kFailed:
      exchange.respond(http::error_response(503, "The engine has failed: " + health.reason));
      return false;
  }
  return false;
}

// Probes and scrapes have none: there would be little else.
void Gate::begin_trace(const RouteName& route, http::Exchange& exchange) const {
  http::RequestNotes* notes = exchange.notes();
  const bool is_work = route.access != Access::kOpen && route.access != Access::kMetrics;
  if (!services_.begins_traces || !is_work || notes == nullptr || notes->trace) return;
  notes->trace = http::trace_of(exchange.request());
  exchange.set_response_header("traceparent", notes->trace->traceparent());
}

void Gate::handle(const RouteName& route, std::shared_ptr<http::Exchange> exchange, const http::Handler* handler,
                  bool may_wait) const {
  begin_trace(route, *exchange);
  const std::string client_address = address_group(services_.trusted_proxies.client_of(exchange->request()));
  if (route.access == Access::kOpen) {
    if (services_.fair_use != nullptr && !services_.fair_use->count_unauthenticated(client_address)) {
      count(Refusal::kAddress);
      refuse(route, *exchange, nullptr, 429, "Too many requests without a key came from this address.",
             "too_many_requests", 1);
      return;
    }
  } else {
    const std::string_view token = bearer_token(exchange->request().header("Authorization"));
    const bool is_barred = services_.fair_use != nullptr && services_.fair_use->is_barred(client_address);
    Credential credential = authenticator_.authenticate(token, !is_barred);
    if (credential.identity == nullptr && credential.is_pending && may_wait) {
      // The exchange is released on its own executor.
      const boost::asio::any_io_executor executor = exchange->executor();
      authenticator_.wait([this, route, exchange = std::move(exchange), handler, executor]() mutable {
        boost::asio::post(executor, [this, route, exchange = std::move(exchange), handler]() mutable {
          handle(route, std::move(exchange), handler, false);
        });
      });
      return;
    }
    if (!admit(route, *exchange, credential, client_address)) return;
    if (services_.fair_use != nullptr && route.access == Access::kInference) {
      admit_use(route, std::move(exchange), handler);
      return;
    }
  }
  enter(route, std::move(exchange), handler);
}

void Gate::enter(const RouteName& route, std::shared_ptr<http::Exchange> exchange, const http::Handler* handler) const {
  if (route.access == Access::kInference || route.access == Access::kAdvisor) {
    if (http::RequestNotes* notes = exchange->notes()) notes->is_served = true;
    if (services_.may_work && !services_.may_work()) {
      count(Refusal::kAudit);
      exchange->respond(http::error_response(
          503, "The audit log cannot be written, and without it nothing is served; the operator must make room."));
      return;
    }
  }
  if (handler == nullptr) {
    if (!is_serving(*exchange)) return;
    const http::Router* api = open_api_.load(std::memory_order_acquire);
    CHECK(api != nullptr) << "ready before open()";
    handler = api->find(route.method, route.path).handler;
  }
  (*handler)(std::move(exchange));
}

}  // namespace sextant
