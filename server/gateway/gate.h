// Gate: the door before all routes: each is declared with what it asks for, and the gate finds out who is there, whether
// they may, and refuses work while the model is loading or the server is stopping. The HTTP server listens before there is
// an API to call; open() puts it behind the gate later.
// Threads: handlers run on any; open() once, from one. Must not know what the routes mean.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/gateway/audit_sink.h"
#include "server/gateway/authenticator.h"
#include "server/gateway/client_address.h"
#include "server/gateway/fair_use.h"
#include "server/gateway/refusals.h"
#include "server/health.h"
#include "server/http/router.h"

namespace sextant {

class Gate {
 public:
  struct RouteName {
    const char* method;
    const char* path;
    Access access;
  };

  // Each may be null, and outlives the gate.
  struct Services {
    AuditSink* audit = nullptr;   // hears of refusals
    FairUse* fair_use = nullptr;  // says how much each key and each address may; null: everything
    RefusalCounts* refusals = nullptr;
    TrustedProxies trusted_proxies;
    bool begins_traces = false;  // requests get a trace: their caller's, or a new one; else its headers are passed over
    std::function<bool()> may_work = {};  // false: no work is taken for now, for no record of it could be kept
  };
  // The references outlive the gate.
  Gate(const Authenticator& authenticator, const Health& health) : Gate(authenticator, health, Services()) {}
  Gate(const Authenticator& authenticator, const Health& health, Services services);

  // The handlers point at this object; it outlives `front` and its sessions. Routes of the API: closed until open(), and
  // in the states of health in which no work is taken.
  void add_routes(http::Router& front, std::span<const RouteName> routes);
  // Routes that answer in every state of health, by `handlers`.
  void add_routes(http::Router& front, std::span<const RouteName> routes, std::shared_ptr<const http::Router> handlers);
  // From here on requests go to `api`'s handlers. It must have every route that add_routes() named (CHECK).
  void open(std::shared_ptr<const http::Router> api);
  // Every route of `front` was declared here (CHECK).
  void check_complete(const http::Router& front) const;
  const std::vector<RouteName>& routes() const { return routes_; }

 private:
  void handle(const RouteName& route, std::shared_ptr<http::Exchange> exchange, const http::Handler* handler,
              bool may_wait) const;
  void begin_trace(const RouteName& route, http::Exchange& exchange) const;
  // False: it was answered.
  bool admit(const RouteName& route, http::Exchange& exchange, const Credential& credential,
             const std::string& client_address) const;
  // Within its limits; then enter().
  void admit_use(const RouteName& route, std::shared_ptr<http::Exchange> exchange, const http::Handler* handler) const;
  bool apply(const RouteName& route, http::Exchange& exchange, FairUse::Admission admission) const;
  // What was let in.
  void enter(const RouteName& route, std::shared_ptr<http::Exchange> exchange, const http::Handler* handler) const;
  bool is_serving(http::Exchange& exchange) const;
  void refuse(const RouteName& route, http::Exchange& exchange, const Identity* identity, int status,
              const std::string& message, const std::string& code, double retry_after_s = 0) const;
  void count(Refusal reason) const;

  const Authenticator& authenticator_;
  const Health& health_;
  const Services services_;
  std::vector<RouteName> routes_;
  std::vector<RouteName> api_routes_;
  std::vector<std::shared_ptr<const http::Router>> front_handlers_;
  std::shared_ptr<const http::Router> api_;
  std::atomic<const http::Router*> open_api_{nullptr};
};

}  // namespace sextant
