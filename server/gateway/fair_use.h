// FairUse: what each key may do at a time: requests per second, requests at once, tokens per minute (reserved as prompt and
// max_tokens, given back at the end), its tenant's tokens per day, caps of one request; and what each client address may:
// requests without a key, failed log-ins. With SharedLimits what keys may is one limit for all replicas (fair_use_shared.cpp);
// while these do not answer, and for addresses always, it is this process' alone. Any thread; never blocks but for a short lock.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/clock.h"
#include "server/gateway/identity.h"
#include "server/gateway/refusals.h"
#include "server/gateway/shared_limits.h"
#include "server/gateway/state_keeper.h"
#include "server/gateway/token_bucket.h"
#include "server/gateway/token_budget.h"

namespace sextant {

class FairUse final : public TokenBudget {
 public:
  struct Options {
    double unauthenticated_per_s = 200;                // of one client address; twice as many at once; 0: no limit
    double failed_logins_per_minute = 30;              // likewise; that many at once
    int64_t shed_above_requests = 0;                   // waiting in the engine; 0: nothing is shed
    int64_t shed_max_tokens = 0;                       // 0: what is shed is refused; else shortened to that
    std::function<int64_t()> num_waiting = {};         // requests in the engine's queue; empty: none
    RefusalCounts* refusals = nullptr;                 // what is refused here is counted there; outlives this
    std::optional<SharedLimits::Options> shared = {};  // the limits of keys hold for all replicas together
  };
  // `keeper` (daily quotas, usage) may be null; the clock outlives this.
  FairUse(Options options, StateKeeper* keeper, const Clock& clock = SteadyClock::instance());
  ~FairUse() override;

  struct Admission {
    bool is_admitted = true;
    double retry_after_s = 0;
    std::string message, code;
    std::vector<std::pair<std::string, std::string>> headers;
    std::shared_ptr<void> lease;  // a place among the requests at once, until it is let go
  };
  // One request of a key. The lease may outlive this object.
  Admission admit(const Identity& identity);
  // The same of all replicas together, where limits are shared: `then` is called once, on another thread. False, and it is not
  // called: they are not, or not now; admit() decides.
  bool admit_elsewhere(const Identity& identity, std::function<void(Admission)> then);

  // One request of an address that showed no key, or a log-in that failed: false when it was one too many.
  bool count_unauthenticated(const std::string& client_address);
  bool count_failed_login(const std::string& client_address);
  // No more of its log-ins are looked into for now.
  bool is_barred(const std::string& client_address);

  Grant reserve(const Identity& identity, const Ask& ask) override;
  bool reserve_elsewhere(const Identity& identity, const Ask& ask, std::function<void(Grant)> then) override;
  void settle(const Identity& identity, const std::string& model, const Grant& grant, const Used& used) override;

  // None: limits are this process' alone.
  std::optional<SharedLimits::Health> shared_health() const;

  // Set when there is an engine; before any request reaches it.
  void set_num_waiting(std::function<int64_t()> num_waiting);

 private:
  struct KeyUse {
    TokenBucket requests, tokens;
    int64_t num_running = 0;
  };
  struct AddressUse {
    TokenBucket unauthenticated, failed;
  };
  // The leases hold it too.
  struct Keys {
    std::mutex mutex;
    std::unordered_map<std::string, KeyUse> by_key;  // guarded by mutex
  };

  using Headers = std::vector<std::pair<std::string, std::string>>;
  void count(Refusal reason);
  // What is left of what applies, as OpenAI's headers say it.
  static void add_request_headers(const UsageLimits& limits, double left, Headers* headers);
  void add_token_headers(const Identity& identity, double left, int64_t spoken_for, Headers* headers) const;
  int64_t unix_now_s() const;
  struct Refused {
    Refusal reason;
    Grant grant;
  };
  // What a request may not whatever was used before it; sets the grant's max_tokens and what it reserves.
  std::optional<Refused> check_caps(const UsageLimits& limits, const Ask& ask, Grant* grant) const;
  // Why not.
  static Admission refused_admission(const UsageLimits& limits, Refusal reason, double retry_after_s);
  Grant over_quota(const Identity& identity, int64_t reserved, int64_t spoken_for) const;
  static Grant over_rate(const UsageLimits& limits, int64_t reserved, double retry_after_s);
  std::shared_ptr<void> make_lease(const std::string& key_id, SharedLimits::Lease shared) const;
  static SharedLimits::RequestAsk request_ask(const Identity& identity);
  SharedLimits::TokenAsk token_ask(const Identity& identity, int64_t amount) const;
  Admission admission_of(const Identity& identity, const SharedLimits::RequestAnswer& answer,
                         SharedLimits::Lease lease);
  Grant grant_of(const Identity& identity, Grant grant, SharedLimits::TokenAsk ask, SharedLimits::Lease lease,
                 const SharedLimits::TokenAnswer& answer);
  int64_t tokens_spoken_for(const std::string& tenant) const;  // today: used or reserved; under the keys' mutex
  int64_t tokens_shown(const Identity& identity) const;        // the same, where headers say it; else 0
  KeyUse& use_of(const Identity& identity, int64_t now_ns);
  AddressUse& address_of(const std::string& client_address, int64_t now_ns);

  Options options_;
  StateKeeper* const keeper_;
  const Clock& clock_;
  const std::shared_ptr<Keys> keys_ = std::make_shared<Keys>();
  std::unordered_map<std::string, int64_t> reserved_by_tenant_;  // guarded by keys_->mutex
  std::mutex address_mutex_;
  std::unordered_map<std::string, AddressUse> addresses_;  // guarded by address_mutex_
  std::unique_ptr<SharedLimits> shared_;                   // null: there are none. Last: its thread calls back
};

// What a grant has in SharedLimits.
struct SharedGrant {
  SharedLimits::TokenAsk ask;
  SharedLimits::Lease lease;
  bool was_shared = false;  // it was granted there
};

}  // namespace sextant
