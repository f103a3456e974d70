// GatewayMeter: what the gateway and what it writes to say of themselves: requests that were refused and why, the state store,
// the audit log, backups. Totals are kept by those who count; this shows them. Series come with what there is. Any one thread
// at a time. Must not know how limits or logs work.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sextant {

// A counter whose total is kept elsewhere; the total starts again from zero with a new engine.
class TotalCounter {
 public:
  explicit TotalCounter(prometheus::Counter& counter) : counter_(counter) {}
  void set(double total) {
    if (total < last_) last_ = 0;
    counter_.Increment(total - last_);
    last_ = total;
  }

 private:
  prometheus::Counter& counter_;
  double last_ = 0;
};

// Of the audit log, since start.
struct AuditReading {
  uint64_t records = 0;
  uint64_t lost = 0;
  uint64_t waiting = 0;  // now, for the disk
  bool is_failing = false;
};

// Of the backups that this server makes, since start.
struct BackupReading {
  uint64_t made = 0;
  uint64_t failed = 0;
  double last_unix_s = 0;  // 0: none
};

// Of the store of keys, tenants and usage, now.
struct StateStoreReading {
  bool is_up = true;
  uint64_t failures = 0;            // times since start that it went away
  uint64_t unwritten_requests = 0;  // whose usage is in memory alone
};

// Of the Redis that limits are shared in.
struct SharedLimitsReading {
  bool is_up = true;
  uint64_t failures = 0;      // times since start that it went away
  uint64_t local_checks = 0;  // since start, that were decided without it
};

// Of the keys of signed tokens, now.
struct TokenKeysReading {
  bool is_up = true;               // the last try to read them worked
  uint64_t failures = 0;           // tries since start that did not
  uint64_t keys = 0;               // in use
  double last_success_unix_s = 0;  // 0: none yet
};

// Of traces of requests, since start.
struct TracesReading {
  uint64_t exported = 0, dropped = 0;  // spans
  uint64_t failures = 0;               // posts to the collector
  bool is_up = true;                   // the last one worked
};

// Since start, by reason; and what else there is.
struct GatewayReading {
  std::vector<std::pair<std::string, uint64_t>> refused;  // a few reasons, always the same
  std::optional<StateStoreReading> store;
  std::optional<SharedLimitsReading> shared_limits;
  std::optional<TokenKeysReading> token_keys;
  std::optional<AuditReading> audit;
  std::optional<BackupReading> backups;
  std::optional<TracesReading> traces;
};

class GatewayMeter {
 public:
  explicit GatewayMeter(prometheus::Registry& registry);
  void apply(const GatewayReading& reading);
  // Refused by the engine's queue, which was full: it counts these itself.
  void set_refused_by_queue(double total) { set_refused("queue", total); }

 private:
  void set_refused(const std::string& reason, double total);

  struct Store {
    prometheus::Gauge& is_up;
    TotalCounter failures;
    prometheus::Gauge& unwritten;
  };
  struct SharedLimits {
    prometheus::Gauge& is_up;
    TotalCounter failures, local_checks;
  };
  struct TokenKeys {
    prometheus::Gauge& is_up;
    TotalCounter failures;
    prometheus::Gauge& keys;
    prometheus::Gauge& last_success;
  };
  struct Audit {
    TotalCounter records, lost;
    prometheus::Gauge& waiting;
    prometheus::Gauge& is_failing;
  };
  struct Traces {
    TotalCounter exported, dropped, failures;
    prometheus::Gauge& is_up;
  };
  struct Backups {
    TotalCounter made, failed;
    prometheus::Gauge& last;
  };

  prometheus::Registry& registry_;
  prometheus::Family<prometheus::Counter>& refused_;
  std::map<std::string, TotalCounter> refused_by_reason_;
  std::optional<Store> store_;
  std::optional<SharedLimits> shared_limits_;
  std::optional<TokenKeys> token_keys_;
  std::optional<Audit> audit_;
  std::optional<Backups> backups_;
  std::optional<Traces> traces_;
};

}  // namespace sextant
