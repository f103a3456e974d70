// StateKeeper: the state in memory, where every request looks: keys by their hash, and tokens used today. One thread of
// its own reads the store again when its revision moved (a key that another process revoked stops working within a
// second), and writes what was used down twice a second. While the store is away what is known goes on being used: that
// is said once in the log and in /metrics. Threads: all calls from any; none but the constructor and the destructor block.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>

#include "server/gateway/authenticator.h"
#include "server/gateway/state_store.h"

namespace sextant {

class StateKeeper final : public Authenticator {
 public:
  struct Options {
    UsageLimits default_limits;
    std::function<int64_t()> unix_now_s;  // empty: the system's
    std::chrono::milliseconds poll_interval{200};
    std::chrono::milliseconds write_interval{500};
  };

  // Fails when the state cannot be read.
  static Result<std::unique_ptr<StateKeeper>> start(std::unique_ptr<StateStore> store, Options options);
  ~StateKeeper() override;  // writes what is left of usage
  StateKeeper(const StateKeeper&) = delete;
  StateKeeper& operator=(const StateKeeper&) = delete;

  Credential authenticate(std::string_view token, bool may_verify) const override;
  // What a tenant may, for identities that are from elsewhere (tokens): its limits, models and weight are filled in.
  void complete(Identity& identity) const;

  StateStore& store() { return *store_; }
  // After a change through store(): what it made is in force when this returns. Blocks.
  Status reload();

  // To what the tenant used. `now_s` decides the day.
  void count(const Identity& identity, const std::string& model, const UsageCount& used);
  int64_t tokens_today(const std::string& tenant) const;
  // What the store and this memory know of a tenant; its keys have stopped working when this returns. Blocks.
  Result<StateStore::Erased> erase_tenant(const std::string& tenant);
  // Writes all that was counted. Blocks.
  Status write_usage();

  struct Health {
    bool is_up = true;
    uint64_t num_failures = 0;       // times since start that the store went away
    int64_t unwritten_requests = 0;  // whose usage is in memory alone
  };
  Health health() const;
  int64_t unix_now_s() const { return options_.unix_now_s(); }

 private:
  struct KeyHash {
    size_t operator()(const Sha256& hash) const;
  };
  struct Entry {
    std::shared_ptr<const Identity> identity;
    int64_t revoked_s = 0;
  };
  struct Table {
    int64_t revision = 0;
    std::unordered_map<Sha256, Entry, KeyHash> keys;
    std::unordered_map<std::string, TenantRecord> tenants;
  };
  using UsageKey = std::tuple<std::string, std::string, std::string, std::string>;  // day, tenant, key, model

  StateKeeper(std::unique_ptr<StateStore> store, Options options);
  void run();
  std::shared_ptr<const Table> table() const;
  Status read_day_totals();
  void set_store_is_up(const Status& status);

  const std::unique_ptr<StateStore> store_;
  const Options options_;
  std::atomic<bool> store_is_up_{true};
  std::atomic<uint64_t> num_store_failures_{0};

  mutable std::mutex table_mutex_;
  std::shared_ptr<const Table> table_;  // guarded by table_mutex_

  std::mutex store_mutex_;  // reading the table, writing usage: one after the other
  mutable std::mutex usage_mutex_;
  std::map<UsageKey, UsageCount> unwritten_;                  // guarded by usage_mutex_
  std::unordered_map<std::string, int64_t> written_today_;    // by tenant; likewise
  std::unordered_map<std::string, int64_t> unwritten_today_;  // likewise
  std::string today_;                                         // likewise

  std::mutex stop_mutex_;
  std::condition_variable stop_condition_;
  bool stopping_ = false;  // guarded by stop_mutex_
  std::thread thread_;     // last
};

// The keeper's keys, and `api_key` (when it is not empty) as one more with the role inference. `keeper` outlives it.
std::unique_ptr<Authenticator> stored_keys_authenticator(const StateKeeper& keeper, std::string api_key);

}  // namespace sextant
