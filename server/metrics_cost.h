// CostMeter: what this process costs, by tenant, from a configured price per hour. The money of the time between two readings is
// shared by the tokens of the requests that ended in it (prompt tokens that were computed, and output tokens); time in which
// none ended goes to the tenant "idle", so that all tenants together are what the machine cost. No price: no series.
// Any thread.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace sextant {

class CostMeter {
 public:
  CostMeter(prometheus::Registry& registry, std::string model, double usd_per_hour, int64_t now_ns);

  void add_tokens(const std::string& tenant, int64_t num_tokens);
  void update(int64_t now_ns);  // before a reading

 private:
  const std::string model_;
  const double usd_per_hour_;
  prometheus::Family<prometheus::Counter>& cost_;
  prometheus::Family<prometheus::Gauge>& per_1k_;
  std::mutex mutex_;
  std::map<std::string, int64_t> tokens_since_;  // by tenant, since last_ns_
  int64_t last_ns_;
  double total_usd_ = 0;
  int64_t total_tokens_ = 0;
};

}  // namespace sextant
