// FairUse where limits are shared by replicas: what SharedLimits answers becomes what this process would have said. All that is
// granted there is counted here too, so that the local limit that holds without Redis begins where the shared one was.
#include <algorithm>
#include <utility>

#include "server/gateway/fair_use.h"

namespace sextant {

SharedLimits::RequestAsk FairUse::request_ask(const Identity& identity) {
  const UsageLimits& limits = identity.limits;
  const auto tokens = static_cast<double>(limits.tokens_per_minute);
  return {.key_id = identity.key_id,
          .requests = {limits.requests_per_s, std::max(1.0, limits.request_burst)},
          .tokens = {tokens / 60, tokens},
          .most_at_once = limits.concurrent_requests};
}

SharedLimits::TokenAsk FairUse::token_ask(const Identity& identity, int64_t amount) const {
  const auto tokens = static_cast<double>(identity.limits.tokens_per_minute);
  return {.key_id = identity.key_id,
          .tenant = identity.tenant,
          .amount = amount,
          .tokens = {tokens / 60, tokens},
          .most_per_day = identity.limits.tokens_per_day,
          .known_used = keeper_ != nullptr ? keeper_->tokens_today(identity.tenant) : 0};
}

std::optional<SharedLimits::Health> FairUse::shared_health() const {
  if (shared_ == nullptr) return std::nullopt;
  return shared_->health();
}

bool FairUse::admit_elsewhere(const Identity& identity, std::function<void(Admission)> then) {
  if (shared_ == nullptr) return false;
  if (identity.limits.requests_per_s <= 0 && identity.limits.concurrent_requests <= 0) return false;
  const SharedLimits::RequestAsk ask = request_ask(identity);
  SharedLimits::Lease lease = shared_->request_lease(ask);
  return shared_->check_request(
      ask, lease,
      [this, identity, lease, then = std::move(then)](const std::optional<SharedLimits::RequestAnswer>& answer) {
        then(answer ? admission_of(identity, *answer, lease) : admit(identity));
      });
}

FairUse::Admission FairUse::admission_of(const Identity& identity, const SharedLimits::RequestAnswer& answer,
                                         SharedLimits::Lease lease) {
  using Verdict = SharedLimits::RequestAnswer::Verdict;
  const UsageLimits& limits = identity.limits;
  Admission admission;
  if (answer.verdict == Verdict::kTooManyAtOnce) {
    count(Refusal::kConcurrency);
    admission = refused_admission(limits, Refusal::kConcurrency, 1);
  } else if (answer.verdict == Verdict::kTooOften) {
    count(Refusal::kRate);
    admission =
        refused_admission(limits, Refusal::kRate, std::max(0.0, 1 - answer.requests_left) / limits.requests_per_s);
  }
  const int64_t now_ns = clock_.now_ns();
  const std::lock_guard lock(keys_->mutex);
  KeyUse& use = use_of(identity, now_ns);
  if (admission.is_admitted) {
    use.requests.take_up_to(1, now_ns);
    if (limits.concurrent_requests > 0) {
      ++use.num_running;
      admission.lease = make_lease(identity.key_id, std::move(lease));
    }
  }
  add_request_headers(limits, answer.requests_left, &admission.headers);
  add_token_headers(identity, answer.tokens_left, tokens_shown(identity), &admission.headers);
  return admission;
}

bool FairUse::reserve_elsewhere(const Identity& identity, const Ask& ask, std::function<void(Grant)> then) {
  if (shared_ == nullptr) return false;
  if (identity.limits.tokens_per_minute <= 0 && identity.limits.tokens_per_day <= 0) return false;
  Grant grant;
  if (check_caps(identity.limits, ask, &grant)) return false;  // reserve() says why not
  SharedLimits::TokenAsk shared = token_ask(identity, grant.reserved);
  SharedLimits::Lease lease = shared_->token_lease(shared);
  return shared_->reserve(shared, lease,
                          [this, identity, ask, grant = std::move(grant), shared, lease,
                           then = std::move(then)](const std::optional<SharedLimits::TokenAnswer>& answer) {
                            then(answer ? grant_of(identity, grant, shared, lease, *answer) : reserve(identity, ask));
                          });
}

TokenBudget::Grant FairUse::grant_of(const Identity& identity, Grant grant, SharedLimits::TokenAsk ask,
                                     SharedLimits::Lease lease, const SharedLimits::TokenAnswer& answer) {
  using Verdict = SharedLimits::TokenAnswer::Verdict;
  const UsageLimits& limits = identity.limits;
  if (answer.verdict == Verdict::kQuota) {
    count(Refusal::kQuota);
    grant = over_quota(identity, grant.reserved, answer.spoken_for);
  } else if (answer.verdict == Verdict::kTooMany) {
    count(Refusal::kTokens);
    const double missing = static_cast<double>(grant.reserved) - answer.tokens_left;
    grant = over_rate(
        limits, grant.reserved,
        limits.tokens_per_minute > 0 ? std::max(0.0, missing) * 60 / static_cast<double>(limits.tokens_per_minute) : 1);
  } else {
    const int64_t now_ns = clock_.now_ns();
    const std::lock_guard lock(keys_->mutex);
    reserved_by_tenant_[identity.tenant] += grant.reserved;
    if (limits.tokens_per_minute > 0)
      use_of(identity, now_ns).tokens.take_up_to(static_cast<double>(grant.reserved), now_ns);
    grant.shared = std::make_shared<SharedGrant>(SharedGrant{std::move(ask), std::move(lease), true});
  }
  add_token_headers(identity, answer.tokens_left, answer.spoken_for, &grant.headers);
  return grant;
}

}  // namespace sextant
