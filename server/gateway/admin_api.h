// AdminApi: /admin/v1: keys, tenants, usage, audit, backup, routes, models, config, log level, drain. What asks the state store runs on a
// thread of its own, one call after the other; every action is told to the audit sink. Threads: construct before the I/O
// threads handle requests, destroy after they were joined.
#pragma once

#include <atomic>
#include <boost/asio/thread_pool.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/gateway/backup.h"
#include "server/gateway/gate.h"
#include "server/gateway/request_audit.h"
#include "server/gateway/state_keeper.h"
#include "server/http/router.h"

namespace sextant {

// What of the process it shows and steers. All are called on I/O threads and must not block.
struct AdminHooks {
  std::function<nlohmann::ordered_json()> config;  // with secrets hidden
  std::function<nlohmann::ordered_json()> models;
  std::function<std::string()> log_level;
  std::function<Status(const std::string&)> set_log_level;
  std::function<void()> drain;      // as SIGTERM
  BackupKeeper* backups = nullptr;  // null: this server makes none
  // Of the response cache; empty: there is none. Not on I/O threads.
  std::function<std::vector<std::string>(const std::string& tenant)> cached_texts;
  std::function<size_t(const std::string& tenant)> forget_cached;
};

class AdminApi {
 public:
  // `keeper` null: there is no state, and what needs it answers so. `audit` may be null. Both outlive this.
  AdminApi(StateKeeper* keeper, RequestAudit* audit, AdminHooks hooks);
  ~AdminApi();  // waits for what runs

  static std::span<const Gate::RouteName> routes();
  // `gate` is asked for all of its routes; the handlers point at this object.
  void register_routes(http::Router& router, const Gate& gate);

 private:
  struct Reply {
    int status = 200;
    nlohmann::ordered_json body;
    std::string csv, json_lines;  // instead of a body
    std::string target;           // for the audit
  };
  using Work = std::function<Result<Reply>(const http::HttpRequest& request)>;
  enum class Needs { kNothing, kState, kAuditLog, kBackups };  // what waits for a disk runs on the pool
  void add(http::Router& router, const char* method, const char* path, std::string action, Needs needs, Work work);
  void answer(http::Exchange& exchange, const std::string& action, Result<Reply> reply);
  void record(const http::Exchange& exchange, const std::string& action, const std::string& target,
              const Status& status);

  Result<Reply> create_key(const http::HttpRequest& request);
  Result<Reply> change_key(const http::HttpRequest& request);
  Result<Reply> put_tenant(const http::HttpRequest& request);
  Result<Reply> export_tenant(const http::HttpRequest& request);
  Result<Reply> erase_tenant(const http::HttpRequest& request);
  Result<Reply> usage(const http::HttpRequest& request);
  Result<Reply> read_audit(const http::HttpRequest& request);
  Result<Reply> verify_log(const http::HttpRequest& request);
  Result<Reply> erase_records(const http::HttpRequest& request);

  StateKeeper* const keeper_;
  RequestAudit* const audit_;
  const AdminHooks hooks_;
  std::atomic<size_t> num_waiting_{0};
  boost::asio::thread_pool pool_{1};
};

// A key or a tenant as JSON asks for it; the same for HTTP and the command line. Errors name the field.
Result<KeyRecord> key_from_json(const nlohmann::json& object, int64_t now_s);
Result<TenantRecord> tenant_from_json(const nlohmann::json& object);
nlohmann::ordered_json to_json(const TenantRecord& tenant);
nlohmann::ordered_json to_json(const MadeKey& made, int64_t now_s);  // with the secret
nlohmann::ordered_json to_json(const UsageRow& row);
nlohmann::ordered_json to_json(const AuditReport& report);
std::string usage_csv(std::span<const UsageRow> rows);

}  // namespace sextant
