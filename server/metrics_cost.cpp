// Shares out money by tokens.
#include "server/metrics_cost.h"

#include <utility>

namespace sextant {

CostMeter::CostMeter(prometheus::Registry& registry, std::string model, double usd_per_hour, int64_t now_ns)
    : model_(std::move(model)),
      usd_per_hour_(usd_per_hour),
      cost_(prometheus::BuildCounter()
                .Name("llm_cost_usd_total")
                .Help("Cost of this process's time at the configured price, by the tenants whose requests ended in it.")
                .Register(registry)),
      per_1k_(prometheus::BuildGauge()
                  .Name("llm_cost_usd_per_1k_tokens")
                  .Help("Cost since start over thousands of tokens of ended requests, idle time included.")
                  .Register(registry)),
      last_ns_(now_ns) {}

void CostMeter::add_tokens(const std::string& tenant, int64_t num_tokens) {
  const std::lock_guard lock(mutex_);
  tokens_since_[tenant] += num_tokens;
}

void CostMeter::update(int64_t now_ns) {
  const std::lock_guard lock(mutex_);
  const double usd = static_cast<double>(now_ns - std::exchange(last_ns_, now_ns)) * 1e-9 / 3600 * usd_per_hour_;
  total_usd_ += usd;
  int64_t num_tokens = 0;
  for (const auto& [tenant, tokens] : tokens_since_) num_tokens += tokens;
  if (num_tokens == 0) {
    cost_.Add({{"model", model_}, {"tenant", "idle"}}).Increment(usd);
  } else {
    for (const auto& [tenant, tokens] : tokens_since_) {
      const double share = static_cast<double>(tokens) / static_cast<double>(num_tokens);
      cost_.Add({{"model", model_}, {"tenant", tenant}}).Increment(usd * share);
    }
  }
  tokens_since_.clear();
  total_tokens_ += num_tokens;
  if (total_tokens_ > 0) {
    per_1k_.Add({{"model", model_}}).Set(total_usd_ / static_cast<double>(total_tokens_) * 1000);
  }
}

}  // namespace sextant
