#include "server/gateway/gate.h"

#include <utility>

#include "engine/base/check.h"
#include "server/http/error_body.h"

namespace sextant {
namespace {

constexpr std::string_view kScheme = "bearer ";

// The key of "Authorization: Bearer KEY"; the scheme's case does not matter (RFC 9110, 11.1).
std::string_view bearer_key(std::string_view authorization) {
  if (authorization.size() < kScheme.size()) return {};
  for (size_t i = 0; i < kScheme.size(); ++i) {
    const char c = authorization[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c) != kScheme[i]) return {};
  }
  std::string_view key = authorization.substr(kScheme.size());
  while (!key.empty() && key.front() == ' ') key.remove_prefix(1);
  while (!key.empty() && key.back() == ' ') key.remove_suffix(1);
  return key;
}

}  // namespace

bool equal_in_constant_time(std::string_view given, std::string_view secret) {
  unsigned difference = given.size() == secret.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i) {
    const char other = secret.empty() ? '\0' : secret[i % secret.size()];
    difference |= static_cast<unsigned char>(given[i]) ^ static_cast<unsigned char>(other);
  }
  return difference == 0;
}

Gate::Gate(std::string api_key, const Health& health) : api_key_(std::move(api_key)), health_(health) {}

void Gate::add_routes(http::Router& front, std::span<const RouteName> routes) {
  for (const RouteName& route : routes) {
    routes_.push_back(route);
    front.add(route.method, route.path,
              [this, route](std::shared_ptr<http::Exchange> exchange) { handle(route, std::move(exchange)); });
  }
}

void Gate::open(std::shared_ptr<const http::Router> api) {
  for (const RouteName& route : routes_) {
    CHECK(api->find(route.method, route.path).handler != nullptr) << route.method << " " << route.path;
  }
  api_ = std::move(api);
  open_api_.store(api_.get(), std::memory_order_release);
}

bool Gate::admit(http::Exchange& exchange) const {
  if (!api_key_.empty()) {
    const std::string_view authorization = exchange.request().header("Authorization");
    if (!equal_in_constant_time(bearer_key(authorization), api_key_)) {
      http::HttpResponse response = http::error_response(
          401,
          authorization.empty() ? "This server needs an API key: send it as 'Authorization: Bearer KEY'."
                                : "The API key in the Authorization header is not the one of this server.",
          {}, "invalid_api_key");
      response.headers.push_back({"WWW-Authenticate", "Bearer"});
      exchange.respond(std::move(response));
      return false;
    }
  }
  const Health::Snapshot health = health_.snapshot();
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

void Gate::handle(const RouteName& route, std::shared_ptr<http::Exchange> exchange) const {
  if (!admit(*exchange)) return;
  const http::Router* api = open_api_.load(std::memory_order_acquire);
  CHECK(api != nullptr) << "ready before open()";
  const http::Router::Match match = api->find(route.method, route.path);
  (*match.handler)(std::move(exchange));
}

}  // namespace sextant
