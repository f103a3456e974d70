#include "server/gateway/fair_use.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

namespace sextant {
namespace {

// Entries that would be made again as they are go first.
constexpr size_t kMaxKeys = 100'000;
constexpr size_t kMaxAddresses = 65'536;

double burst_of(const UsageLimits& limits) { return std::max(1.0, limits.request_burst); }

// As OpenAI writes it: "6m0s", "1s", "20ms".
std::string duration_text(double seconds) {
  char text[48];
  if (seconds < 1) {
    std::snprintf(text, sizeof text, "%.0fms", std::ceil(seconds * 1e3));
  } else if (seconds < 60) {
    std::snprintf(text, sizeof text, "%.0fs", std::ceil(seconds));
  } else {
    const double whole = std::ceil(seconds);
    std::snprintf(text, sizeof text, "%.0fm%.0fs", std::floor(whole / 60), std::fmod(whole, 60));
  }
  return text;
}

std::string whole_text(double value) { return std::to_string(static_cast<int64_t>(std::floor(value + 1e-6))); }

double seconds_to_midnight(int64_t unix_s) { return static_cast<double>(86400 - unix_s % 86400); }

}  // namespace

FairUse::FairUse(Options options, StateKeeper* keeper, const Clock& clock)
    : options_(std::move(options)), keeper_(keeper), clock_(clock) {
  if (!options_.shared) return;
  SharedLimits::Options shared = *options_.shared;
  if (!shared.unix_now_s) shared.unix_now_s = [this] { return unix_now_s(); };
  shared_ = std::make_unique<SharedLimits>(std::move(shared));
}

// What waits for an answer of other replicas gets one from here meanwhile.
FairUse::~FairUse() { shared_.reset(); }

void FairUse::set_num_waiting(std::function<int64_t()> num_waiting) { options_.num_waiting = std::move(num_waiting); }

void FairUse::count(Refusal reason) {
  if (options_.refusals != nullptr) options_.refusals->add(reason);
}

int64_t FairUse::tokens_spoken_for(const std::string& tenant) const {
  const auto reserved = reserved_by_tenant_.find(tenant);
  return (keeper_ != nullptr ? keeper_->tokens_today(tenant) : 0) +
         (reserved == reserved_by_tenant_.end() ? 0 : reserved->second);
}

int64_t FairUse::tokens_shown(const Identity& identity) const {
  const UsageLimits& limits = identity.limits;
  return limits.tokens_per_minute <= 0 && limits.tokens_per_day > 0 ? tokens_spoken_for(identity.tenant) : 0;
}

int64_t FairUse::unix_now_s() const {
  if (keeper_ != nullptr) return keeper_->unix_now_s();
  return std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
}

void FairUse::add_request_headers(const UsageLimits& limits, double left, Headers* headers) {
  if (limits.requests_per_s <= 0) return;
  const double burst = burst_of(limits);
  headers->insert(headers->end(),
                  {{"x-ratelimit-limit-requests", whole_text(burst)},
                   {"x-ratelimit-remaining-requests", whole_text(left)},
                   {"x-ratelimit-reset-requests", duration_text(std::max(0.0, burst - left) / limits.requests_per_s)}});
}

// Those of the minute; where there is only a quota, those of the day.
void FairUse::add_token_headers(const Identity& identity, double left, int64_t spoken_for, Headers* headers) const {
  const UsageLimits& limits = identity.limits;
  const auto add = [&](int64_t limit, double remaining, double reset_s) {
    headers->insert(headers->end(), {{"x-ratelimit-limit-tokens", std::to_string(limit)},
                                     {"x-ratelimit-remaining-tokens", whole_text(std::max(0.0, remaining))},
                                     {"x-ratelimit-reset-tokens", duration_text(reset_s)}});
  };
  if (limits.tokens_per_minute > 0) {
    const auto burst = static_cast<double>(limits.tokens_per_minute);
    add(limits.tokens_per_minute, left, std::max(0.0, burst - left) * 60 / burst);
  } else if (limits.tokens_per_day > 0 && (keeper_ != nullptr || shared_ != nullptr)) {
    add(limits.tokens_per_day, static_cast<double>(limits.tokens_per_day - spoken_for),
        seconds_to_midnight(unix_now_s()));
  }
}

FairUse::KeyUse& FairUse::use_of(const Identity& identity, int64_t now_ns) {
  const UsageLimits& limits = identity.limits;
  const double tokens = static_cast<double>(limits.tokens_per_minute);
  auto found = keys_->by_key.find(identity.key_id);
  if (found == keys_->by_key.end()) {
    if (keys_->by_key.size() >= kMaxKeys) {
      std::erase_if(keys_->by_key, [&](const auto& entry) {
        const KeyUse& use = entry.second;
        return use.num_running == 0 && use.requests.is_full(now_ns) && use.tokens.is_full(now_ns);
      });
    }
    found = keys_->by_key
                .emplace(identity.key_id, KeyUse{TokenBucket(limits.requests_per_s, burst_of(limits), now_ns),
                                                 TokenBucket(tokens / 60, tokens, now_ns)})
                .first;
  }
  found->second.requests.set_limits(limits.requests_per_s, burst_of(limits), now_ns);
  found->second.tokens.set_limits(tokens / 60, tokens, now_ns);
  return found->second;
}

FairUse::Admission FairUse::refused_admission(const UsageLimits& limits, Refusal reason, double retry_after_s) {
  Admission admission;
  admission.is_admitted = false;
  admission.retry_after_s = retry_after_s;
  if (reason == Refusal::kConcurrency) {
    admission.code = "concurrency_limit_exceeded";
    admission.message = "This key may have " + std::to_string(limits.concurrent_requests) +
                        " requests at once, and has them; wait for one to end.";
  } else {
    admission.code = "rate_limit_exceeded";
    admission.message = "This key may send " + whole_text(limits.requests_per_s) + " requests per second (" +
                        whole_text(burst_of(limits)) + " at once); wait before the next.";
  }
  return admission;
}

std::shared_ptr<void> FairUse::make_lease(const std::string& key_id, SharedLimits::Lease shared) const {
  const std::shared_ptr<SharedLimits::Book> book = shared_ != nullptr ? shared_->book() : nullptr;
  return {nullptr, [keys = keys_, key_id, book, shared = std::move(shared)](void*) {
            {
              const std::lock_guard release(keys->mutex);
              if (const auto found = keys->by_key.find(key_id); found != keys->by_key.end())
                --found->second.num_running;
            }
            if (book != nullptr) book->release(shared);
          }};
}

FairUse::Admission FairUse::admit(const Identity& identity) {
  Admission admission;
  const UsageLimits& limits = identity.limits;
  if (limits.requests_per_s <= 0 && limits.concurrent_requests <= 0 && limits.tokens_per_minute <= 0 &&
      limits.tokens_per_day <= 0)
    return admission;
  const int64_t now_ns = clock_.now_ns();
  const std::lock_guard lock(keys_->mutex);
  KeyUse& use = use_of(identity, now_ns);
  if (limits.concurrent_requests > 0 && use.num_running >= limits.concurrent_requests) {
    count(Refusal::kConcurrency);
    admission = refused_admission(limits, Refusal::kConcurrency, 1);
  } else if (limits.requests_per_s > 0 && !use.requests.try_take(1, now_ns)) {
    count(Refusal::kRate);
    admission = refused_admission(limits, Refusal::kRate, use.requests.seconds_until(1, now_ns));
  }
  add_request_headers(limits, use.requests.level(now_ns), &admission.headers);
  add_token_headers(identity, use.tokens.level(now_ns), tokens_shown(identity), &admission.headers);
  if (admission.is_admitted && limits.concurrent_requests > 0) {
    ++use.num_running;
    SharedLimits::Lease lease;
    if (shared_ != nullptr) {  // which hears of it later
      lease = shared_->request_lease(request_ask(identity));
      shared_->hold(lease);
    }
    admission.lease = make_lease(identity.key_id, std::move(lease));
  }
  return admission;
}

FairUse::AddressUse& FairUse::address_of(const std::string& client_address, int64_t now_ns) {
  const auto found = addresses_.find(client_address);
  if (found != addresses_.end()) return found->second;
  if (addresses_.size() >= kMaxAddresses) {
    std::erase_if(addresses_, [&](const auto& entry) {
      return entry.second.unauthenticated.is_full(now_ns) && entry.second.failed.is_full(now_ns);
    });
    // All of them misbehave: memory stays bounded, and the count begins again.
    if (addresses_.size() >= kMaxAddresses) addresses_.clear();
  }
  const double anonymous = std::max(options_.unauthenticated_per_s, 1e-9);
  const double failed = std::max(options_.failed_logins_per_minute, 1e-9);
  return addresses_
      .emplace(client_address, AddressUse{TokenBucket(anonymous, std::max(1.0, 2 * anonymous), now_ns),
                                          TokenBucket(failed / 60, std::max(1.0, failed), now_ns)})
      .first->second;
}

bool FairUse::count_unauthenticated(const std::string& client_address) {
  if (options_.unauthenticated_per_s <= 0) return true;
  const std::lock_guard lock(address_mutex_);
  const int64_t now_ns = clock_.now_ns();
  return address_of(client_address, now_ns).unauthenticated.try_take(1, now_ns);
}

bool FairUse::count_failed_login(const std::string& client_address) {
  if (options_.failed_logins_per_minute <= 0) return true;
  const std::lock_guard lock(address_mutex_);
  const int64_t now_ns = clock_.now_ns();
  return address_of(client_address, now_ns).failed.try_take(1, now_ns);
}

bool FairUse::is_barred(const std::string& client_address) {
  if (options_.failed_logins_per_minute <= 0) return false;
  const std::lock_guard lock(address_mutex_);
  const auto found = addresses_.find(client_address);
  return found != addresses_.end() && found->second.failed.level(clock_.now_ns()) < 1;
}

std::optional<FairUse::Refused> FairUse::check_caps(const UsageLimits& limits, const Ask& ask, Grant* grant) const {
  const auto refuse = [&](Refusal reason, Status status, double retry_after_s = 0) {
    Grant refused = *grant;
    refused.status = std::move(status);
    refused.retry_after_s = retry_after_s;
    return Refused{reason, std::move(refused)};
  };
  grant->max_tokens = ask.max_tokens;
  const auto cap = [&](int64_t most, const char* what) -> std::optional<Refused> {
    if (grant->max_tokens <= most) return std::nullopt;
    if (ask.is_max_tokens_asked || most < 1) {
      return refuse(Refusal::kCap,
                    invalid_argument("This key may use " + std::string(what) + "; the request has " +
                                         std::to_string(ask.longest_prompt_tokens) + " prompt tokens and asks for " +
                                         std::to_string(ask.max_tokens) + " more.",
                                     "max_tokens", "key_limit_exceeded"));
    }
    grant->max_tokens = most;
    return std::nullopt;
  };
  if (limits.max_n > 0 && ask.n > limits.max_n) {
    return refuse(Refusal::kCap,
                  invalid_argument("This key may ask for up to " + std::to_string(limits.max_n) + " choices.", "n",
                                   "key_limit_exceeded"));
  }
  if (limits.max_tokens > 0) {
    auto refused = cap(limits.max_tokens, ("up to " + std::to_string(limits.max_tokens) + " max_tokens").c_str());
    if (refused) return refused;
  }
  if (limits.max_context > 0) {
    auto refused = cap(limits.max_context - ask.longest_prompt_tokens,
                       ("a context of up to " + std::to_string(limits.max_context) + " tokens").c_str());
    if (refused) return refused;
  }
  if (options_.shed_above_requests > 0 && options_.num_waiting &&
      options_.num_waiting() > options_.shed_above_requests) {
    if (options_.shed_max_tokens == 0) {
      return refuse(Refusal::kShed, unavailable("The server has more work than it can do in time; try again later."),
                    1);
    }
    grant->max_tokens = std::min(grant->max_tokens, options_.shed_max_tokens);
  }
  grant->reserved = ask.num_prompt_tokens + grant->max_tokens * ask.num_choices;
  if (limits.tokens_per_minute > 0 && grant->reserved > limits.tokens_per_minute) {
    return refuse(Refusal::kTokens,
                  invalid_argument("This key may use " + std::to_string(limits.tokens_per_minute) +
                                       " tokens per minute; this request may use " + std::to_string(grant->reserved) +
                                       " (prompt and max_tokens). Ask for fewer.",
                                   "max_tokens", "key_limit_exceeded"));
  }
  return std::nullopt;
}

TokenBudget::Grant FairUse::over_quota(const Identity& identity, int64_t reserved, int64_t spoken_for) const {
  Grant refused;
  refused.status = Status(StatusCode::kResourceExhausted,
                          "Tenant " + identity.tenant + " may use " + std::to_string(identity.limits.tokens_per_day) +
                              " tokens per day (UTC) and has used or reserved " + std::to_string(spoken_for) +
                              "; this request may use " + std::to_string(reserved) + ".",
                          {}, "insufficient_quota");
  refused.retry_after_s = seconds_to_midnight(unix_now_s());
  return refused;
}

TokenBudget::Grant FairUse::over_rate(const UsageLimits& limits, int64_t reserved, double retry_after_s) {
  Grant refused;
  refused.status = Status(StatusCode::kResourceExhausted,
                          "This key may use " + std::to_string(limits.tokens_per_minute) +
                              " tokens per minute; this request may use " + std::to_string(reserved) +
                              " (prompt and max_tokens). Wait, or ask for fewer.",
                          {}, "rate_limit_exceeded");
  refused.retry_after_s = retry_after_s;
  return refused;
}

TokenBudget::Grant FairUse::reserve(const Identity& identity, const Ask& ask) {
  const UsageLimits& limits = identity.limits;
  Grant grant;
  auto capped = check_caps(limits, ask, &grant);
  if (capped) count(capped->reason);
  if (capped && capped->reason != Refusal::kTokens) return capped->grant;
  const int64_t now_ns = clock_.now_ns();
  const std::lock_guard lock(keys_->mutex);
  KeyUse* use = limits.tokens_per_minute > 0 || limits.tokens_per_day > 0 ? &use_of(identity, now_ns) : nullptr;
  const auto decide = [&]() -> Grant {
    if (capped) return capped->grant;
    if (limits.tokens_per_day > 0 && keeper_ != nullptr) {
      const int64_t used = tokens_spoken_for(identity.tenant);
      if (used + grant.reserved > limits.tokens_per_day) {
        count(Refusal::kQuota);
        return over_quota(identity, grant.reserved, used);
      }
    }
    const auto amount = static_cast<double>(grant.reserved);
    if (limits.tokens_per_minute <= 0 || use->tokens.try_take(amount, now_ns)) return grant;
    count(Refusal::kTokens);
    return over_rate(limits, grant.reserved, use->tokens.seconds_until(amount, now_ns));
  };
  Grant decided = decide();
  if (decided.status.ok()) {
    reserved_by_tenant_[identity.tenant] += decided.reserved;
    if (shared_ != nullptr && limits.tokens_per_day > 0) {  // which hears of it later
      SharedLimits::TokenAsk shared = token_ask(identity, decided.reserved);
      SharedLimits::Lease lease = shared_->token_lease(shared);
      shared_->hold(lease);
      decided.shared = std::make_shared<SharedGrant>(SharedGrant{std::move(shared), std::move(lease), false});
    }
  }
  if (use != nullptr) add_token_headers(identity, use->tokens.level(now_ns), tokens_shown(identity), &decided.headers);
  return decided;
}

void FairUse::settle(const Identity& identity, const std::string& model, const Grant& grant, const Used& used) {
  const int64_t num_used = used.prompt_tokens + used.completion_tokens;
  // Counted before the reservation goes, so that a quota is at no moment larger than it is.
  if (keeper_ != nullptr)
    keeper_->count(identity, model, {1, used.prompt_tokens, used.cached_tokens, used.completion_tokens});
  if (shared_ != nullptr && grant.shared != nullptr)
    shared_->settle(grant.shared->ask, grant.shared->lease, grant.shared->was_shared, num_used);
  const int64_t now_ns = clock_.now_ns();
  const std::lock_guard lock(keys_->mutex);
  if (const auto found = reserved_by_tenant_.find(identity.tenant); found != reserved_by_tenant_.end()) {
    found->second -= grant.reserved;
    if (found->second == 0) reserved_by_tenant_.erase(found);
  }
  if (identity.limits.tokens_per_minute > 0 && grant.reserved > num_used)
    use_of(identity, now_ns).tokens.give_back(static_cast<double>(grant.reserved - num_used), now_ns);
}

}  // namespace sextant
