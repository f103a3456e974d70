#include "server/http/router.h"

#include "engine/base/check.h"

namespace sextant::http {

void Router::add(std::string_view method, std::string_view path, Handler handler) {
  CHECK(handler != nullptr) << path;
  CHECK(!path.empty() && (path.front() == '/' || path == "*")) << path;
  const bool is_prefix = path.ends_with("/*");
  CHECK(path == "*" || path.find('*') >= path.size() - (is_prefix ? 1 : 0)) << "a star inside " << path;
  for (Route& route : routes_) {
    if (route.path != path) continue;
    CHECK(route.methods.emplace(method, std::move(handler)).second) << method << " " << path << " was added before";
    return;
  }
  Route route{.path = std::string(path), .is_prefix = is_prefix, .methods = {}};
  route.methods.emplace(method, std::move(handler));
  routes_.push_back(std::move(route));
}

std::vector<std::pair<std::string, std::string>> Router::routes() const {
  std::vector<std::pair<std::string, std::string>> all;
  for (const Route& route : routes_) {
    for (const auto& [method, handler] : route.methods) all.emplace_back(method, route.path);
  }
  return all;
}

Router::Match Router::find(std::string_view method, std::string_view path) const {
  // An exact path wins over a prefix, a longer prefix over a shorter one.
  const Route* best = nullptr;
  for (const Route& route : routes_) {
    if (!route.is_prefix) {
      if (route.path != path) continue;
      best = &route;
      break;
    }
    const std::string_view prefix = std::string_view(route.path).substr(0, route.path.size() - 1);
    if (path.starts_with(prefix) && (best == nullptr || route.path.size() > best->path.size())) best = &route;
  }
  Match match;
  if (best == nullptr) return match;
  match.pattern = best->path;
  match.path_exists = true;
  auto found = best->methods.find(method);
  if (found == best->methods.end() && method == "HEAD") found = best->methods.find("GET");
  if (found != best->methods.end()) {
    match.handler = &found->second;
    return match;
  }
  for (const auto& [name, handler] : best->methods) {
    if (!match.allowed_methods.empty()) match.allowed_methods += ", ";
    match.allowed_methods += name;
    if (name == "GET" && !best->methods.contains("HEAD")) match.allowed_methods += ", HEAD";
  }
  return match;
}

}  // namespace sextant::http
