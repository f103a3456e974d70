#include "engine/core/fair_share.h"

#include <algorithm>
#include <cmath>

#include "engine/base/check.h"

namespace sextant {

FairShare::Charge FairShare::add(const std::string& tenant_name, int64_t num_prompt_tokens, int64_t max_output_tokens,
                                 int32_t num_choices) {
  if (tenants_.size() >= kMaxTenants)
    std::erase_if(tenants_, [](const auto& entry) { return entry.second.num_requests == 0; });
  Tenant& tenant = tenants_[tenant_name];
  Charge charge;
  charge.start = std::max({virtual_time_, tenant.finish, tenant.last_start});
  const auto guess = static_cast<int64_t>(std::ceil(tenant.mean_output));
  charge.guessed = std::min(max_output_tokens, guess) * num_choices;
  tenant.last_start = charge.start;
  tenant.finish = charge.start + num_prompt_tokens + charge.guessed;
  ++tenant.num_waiting;
  if (tenant.num_requests++ == 0) ++num_active_;
  return charge;
}

void FairShare::on_started(const std::string& tenant, int64_t start) {
  const auto found = tenants_.find(tenant);
  CHECK(found != tenants_.end()) << tenant;
  --found->second.num_waiting;
  virtual_time_ = std::max(virtual_time_, start);
}

void FairShare::on_ended(const std::string& tenant_name, const Charge& charge, bool was_started,
                         int64_t num_output_tokens, int32_t num_choices) {
  const auto found = tenants_.find(tenant_name);
  CHECK(found != tenants_.end()) << tenant_name;
  Tenant& tenant = found->second;
  if (was_started) {
    const double of_one = static_cast<double>(num_output_tokens) / num_choices;
    tenant.mean_output += kSmoothing * (of_one - tenant.mean_output);
  } else {
    --tenant.num_waiting;
  }
  tenant.finish += num_output_tokens - charge.guessed;
  // What it owes outlives its requests only as far as virtual time does not reach it.
  if (--tenant.num_requests > 0) return;
  --num_active_;
  if (tenant.finish <= virtual_time_) tenants_.erase(found);
}

void FairShare::reset() {
  virtual_time_ = 0;
  num_active_ = 0;
  tenants_.clear();
}

int64_t FairShare::num_waiting(const std::string& tenant) const {
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? 0 : found->second.num_waiting;
}

}  // namespace sextant
