// Gate: the door before the API routes: asks for the API key, and refuses work while the model is loading or the server
// is stopping. The HTTP server listens before there is an API to call; open() puts it behind the gate later.
// Threads: handlers run on any; open() once, from one. Must not know what the routes mean.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "server/health.h"
#include "server/http/router.h"

namespace sextant {

// Equal strings; the time taken depends on the length of `given` only, not on where the two differ.
bool equal_in_constant_time(std::string_view given, std::string_view secret);

class Gate {
 public:
  struct RouteName {
    const char* method;
    const char* path;
  };

  // `api_key` empty: nobody is asked. `health` outlives the gate.
  Gate(std::string api_key, const Health& health);

  // The handlers point at this object; it outlives `front` and its sessions.
  void add_routes(http::Router& front, std::span<const RouteName> routes);
  // From here on requests go to `api`'s handlers. It must have every route that add_routes() named (CHECK).
  void open(std::shared_ptr<const http::Router> api);

 private:
  bool admit(http::Exchange& exchange) const;  // false: it was answered
  void handle(const RouteName& route, std::shared_ptr<http::Exchange> exchange) const;

  const std::string api_key_;
  const Health& health_;
  std::vector<RouteName> routes_;
  std::shared_ptr<const http::Router> api_;
  std::atomic<const http::Router*> open_api_{nullptr};
};

}  // namespace sextant
