// RefusalCounts: how many requests the gateway turned away, and why. Any thread; an add is one atomic increment.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace sextant {

enum class Refusal {
  kRate,          // 429: requests per second of a key
  kTokens,        // 429 or 400: tokens per minute of a key
  kConcurrency,   // 429: requests at once of a key
  kQuota,         // 429: tokens per day of a tenant
  kCap,           // 400: max_tokens, n or context of a key
  kAddress,       // 429: requests without a key from one address
  kFailedLogins,  // 429: wrong keys from one address
  kConnections,   // 503 or a closed door: connections of one address, or of all
  kCredentials,   // 401: no key, or one that does not hold
  kRole,          // 403: a key without the role
  kShed,          // 503: the server has more work than it can do in time
  kNotServing,    // 503: loading, stopping or failed
  kAudit,         // 503: no record could be kept
};
inline constexpr const char* kRefusalNames[] = {"rate",    "tokens",        "concurrency", "quota",       "cap",
                                                "address", "failed_logins", "connections", "credentials", "role",
                                                "shed",    "not_serving",   "audit"};

static_assert(std::size(kRefusalNames) == static_cast<size_t>(Refusal::kAudit) + 1);

class RefusalCounts {
 public:
  void add(Refusal reason) { counts_[static_cast<size_t>(reason)].fetch_add(1, std::memory_order_relaxed); }
  uint64_t of(Refusal reason) const { return counts_[static_cast<size_t>(reason)].load(std::memory_order_relaxed); }
  // As a metric's label names them.
  std::vector<std::pair<std::string, uint64_t>> by_name() const {
    std::vector<std::pair<std::string, uint64_t>> named;
    for (size_t i = 0; i < counts_.size(); ++i)
      named.emplace_back(kRefusalNames[i], counts_[i].load(std::memory_order_relaxed));
    return named;
  }

 private:
  std::array<std::atomic<uint64_t>, std::size(kRefusalNames)> counts_{};
};

}  // namespace sextant
