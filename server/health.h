// Health: whether the process lives and may be given work, and the routes that say so. Any thread.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "server/http/router.h"

namespace sextant {

class Health {
 public:
  enum class State { kLoading, kReady, kDraining, kFailed };
  struct Snapshot {
    State state = State::kLoading;
    std::string reason;  // for people; empty when ready
  };

  void set_loading(std::string what);  // "reading weights"
  void set_ready();
  void set_draining();
  void set_failed(std::string reason);  // the engine died; nothing leads out of it

  Snapshot snapshot() const;
  bool ready() const { return snapshot().state == State::kReady; }

 private:
  void set(State state, std::string reason);

  mutable std::mutex mutex_;
  Snapshot snapshot_{State::kLoading, "starting"};
};

// GET /health (200 while the process lives; 503 once the engine died), /ready (503 with the reason unless
// ready), /version, /ping (as /health; also POST), and /metrics when `render_metrics` is given. `health` must
// outlive the router.
struct HealthRoutes {
  std::string version;
  std::function<std::string()> render_metrics;
  std::string metrics_content_type;
};
void add_health_routes(http::Router& router, const Health& health, HealthRoutes routes);

}  // namespace sextant
