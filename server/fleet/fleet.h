// Fleet: the pools behind `sextant route`: finds the pool of a request's model, keeps probing and discovering members, and
// says how they do. Threads: construct and start() before the I/O threads handle requests; the rest from any.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/fleet/fleet_metrics.h"
#include "server/fleet/pool.h"
#include "server/http/router.h"
#include "server/http/upstream.h"

namespace sextant::fleet {

int64_t steady_ns();

class Forward;
class Discovery;
class Prober;
class Workers;

class Fleet : public std::enable_shared_from_this<Fleet> {
 public:
  // Keys that pools send instead of the client's: the value of a variable, empty for none.
  using Environment = std::function<const char*(const char* name)>;

  // `io` outlives the fleet and what it started. Errors name the pool: a key that is not set, a file that cannot be read.
  // Workers are started with `program` and stopped after `stop_timeout_s` at most.
  static Result<std::shared_ptr<Fleet>> create(boost::asio::io_context& io, const PoolsConfig& config,
                                               const Environment& environment, const std::string& program,
                                               double stop_timeout_s);
  ~Fleet();

  void start();         // probing, discovering, workers
  void stop();          // of probing and discovering; requests under way go on
  void stop_workers();  // blocks until they have ended; not on an I/O thread
  // What clients ask: the routes of the API, passed on, and /v1/models.
  static std::vector<std::pair<const char*, const char*>> routes();
  void register_routes(http::Router& router);

  struct NamedPool {
    std::string api_key;  // empty: the client's goes on
    std::unique_ptr<Pool> pool;
    std::shared_ptr<Discovery> discovery;
    std::shared_ptr<Prober> prober;
    std::unique_ptr<Workers> workers;
    NamedPool* failover = nullptr;
  };
  // Null: no pool serves it. An empty name is the only pool's.
  NamedPool* find(std::string_view model);
  http::UpstreamClient& client() { return client_; }
  FleetMetrics& metrics() { return metrics_; }

  // Some pool can serve.
  bool is_ready() const;
  nlohmann::ordered_json status() const;
  std::string render_metrics();

  // Requests that wait for a first byte, to be taken elsewhere when their member is down.
  void add_waiting(const std::shared_ptr<Forward>& forward);
  void remove_waiting(const Forward* forward);

 private:
  explicit Fleet(boost::asio::io_context& io);
  void on_event(const MemberEvent& event);
  void list_models(http::Exchange& exchange) const;

  boost::asio::io_context& io_;
  http::UpstreamClient client_;
  FleetMetrics metrics_;
  std::vector<std::unique_ptr<NamedPool>> pools_;
  std::map<std::string, NamedPool*, std::less<>> by_model_;
  const int64_t created_unix_s_;
  mutable std::mutex mutex_;
  std::map<const Forward*, std::weak_ptr<Forward>> waiting_;  // guarded by mutex_
};

}  // namespace sextant::fleet
