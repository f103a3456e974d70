// FairUse: what each key may do at a time: requests per second, requests at once, tokens per minute (reserved as prompt and
// max_tokens, given back at the end), its tenant's tokens per day, caps of one request; and what each client address may:
// requests without a key, failed log-ins. Local to this process. Any thread; never blocks but for a short lock.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/clock.h"
#include "server/gateway/identity.h"
#include "server/gateway/refusals.h"
#include "server/gateway/state_keeper.h"
#include "server/gateway/token_bucket.h"
#include "server/gateway/token_budget.h"

namespace sextant {

class FairUse final : public TokenBudget {
 public:
  struct Options {
    double unauthenticated_per_s = 200;         // of one client address; twice as many at once; 0: no limit
    double failed_logins_per_minute = 30;       // likewise; that many at once
    int64_t shed_above_requests = 0;            // waiting in the engine; 0: nothing is shed
    int64_t shed_max_tokens = 0;                // 0: what is shed is refused; else shortened to that
    std::function<int64_t()> num_waiting = {};  // requests in the engine's queue; empty: none
    RefusalCounts* refusals = nullptr;          // what is refused here is counted there; outlives this
  };
  // `keeper` (daily quotas, usage) may be null; the clock outlives this.
  FairUse(Options options, StateKeeper* keeper, const Clock& clock = SteadyClock::instance());

  struct Admission {
    bool is_admitted = true;
    double retry_after_s = 0;
    std::string message, code;
    std::vector<std::pair<std::string, std::string>> headers;
    std::shared_ptr<void> lease;  // a place among the requests at once, until it is let go
  };
  // One request of a key. The lease may outlive this object.
  Admission admit(const Identity& identity);

  // One request of an address that showed no key, or a log-in that failed: false when it was one too many.
  bool count_unauthenticated(const std::string& client_address);
  bool count_failed_login(const std::string& client_address);
  // No more of its log-ins are looked into for now.
  bool is_barred(const std::string& client_address);

  Grant reserve(const Identity& identity, const Ask& ask) override;
  void settle(const Identity& identity, const std::string& model, const Grant& grant, const Used& used) override;

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
  // What is left of what applies, as OpenAI's headers say it. Under the keys' mutex.
  void add_request_headers(const UsageLimits& limits, KeyUse& use, int64_t now_ns, Headers* headers) const;
  void add_token_headers(const Identity& identity, KeyUse& use, int64_t now_ns, Headers* headers) const;
  int64_t tokens_spoken_for(const std::string& tenant) const;  // today: used or reserved; under the keys' mutex
  KeyUse& use_of(const Identity& identity, int64_t now_ns);
  AddressUse& address_of(const std::string& client_address, int64_t now_ns);

  Options options_;
  StateKeeper* const keeper_;
  const Clock& clock_;
  const std::shared_ptr<Keys> keys_ = std::make_shared<Keys>();
  std::unordered_map<std::string, int64_t> reserved_by_tenant_;  // guarded by keys_->mutex
  std::mutex address_mutex_;
  std::unordered_map<std::string, AddressUse> addresses_;  // guarded by address_mutex_
};

}  // namespace sextant
