// SharedLimits: what keys and tenants use of their limits on all replicas together, in a Redis: one script for each check, so
// that each is one decision. Requests at once and tokens reserved of a day are leases there, renewed while they are held, so
// that a replica that dies holds none for long; a Redis that lost its data gets them again. Names of keys and tenants are
// hashed. While Redis is away the caller decides alone (fair_use.h), and what was used meanwhile is added when it is back.
//
// Threads: all calls from any; none waits for Redis. Answers come on a thread of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "server/redis/redis_link.h"

namespace sextant {

class SharedLimits {
 public:
  struct Options {
    redis::Address address;
    std::chrono::milliseconds timeout{100};
    std::chrono::milliseconds lease_ttl{15'000};  // what a replica that died holds is free after this
    std::function<int64_t()> unix_now_s;          // decides the day; empty: the system's
    redis::Link::Options link = {};               // for tests; its address, time-out and words are set here
  };
  explicit SharedLimits(Options options);
  ~SharedLimits();

  // So much per second, and so much at once; per_s 0: no limit.
  struct Rate {
    double per_s = 0, burst = 0;
  };
  // One request of a key.
  struct RequestAsk {
    std::string key_id;
    Rate requests, tokens;     // of tokens only what is left is told
    int64_t most_at_once = 0;  // 0: any
  };
  struct RequestAnswer {
    enum class Verdict { kAdmitted, kTooManyAtOnce, kTooOften };
    Verdict verdict = Verdict::kAdmitted;
    double requests_left = 0, tokens_left = 0;
  };
  // Tokens of one request, before it runs.
  struct TokenAsk {
    std::string key_id, tenant;
    int64_t amount = 0;
    Rate tokens;
    int64_t most_per_day = 0;  // of the tenant; 0: any
    int64_t known_used = 0;    // of the day, by the state store: Redis may have forgotten
  };
  struct TokenAnswer {
    enum class Verdict { kGranted, kQuota, kTooMany };
    Verdict verdict = Verdict::kGranted;
    double tokens_left = 0;
    int64_t spoken_for = 0;  // of the day: used or reserved, this amount included where it was granted
  };

  // What is held until it is let go; also when it was granted without Redis, which learns of it when it is back.
  struct Lease {
    std::string name;  // of the set; empty: none is held
    std::string member;
    bool operator<(const Lease& other) const { return std::tie(name, member) < std::tie(other.name, other.member); }
  };
  Lease request_lease(const RequestAsk& ask);
  Lease token_lease(const TokenAsk& ask);

  // False: Redis is away, and `then` is not called. Else it is, once, on another thread; with none where Redis did not say.
  // With a verdict in favour the lease is held.
  bool check_request(const RequestAsk& ask, const Lease& lease, std::function<void(std::optional<RequestAnswer>)> then);
  bool reserve(const TokenAsk& ask, const Lease& lease, std::function<void(std::optional<TokenAnswer>)> then);
  // It was granted here alone.
  void hold(const Lease& lease);
  void release(const Lease& lease) { book_->release(lease); }
  // The end of what reserve() asked: `was_shared`: Redis granted it, and takes back what was not used.
  void settle(const TokenAsk& ask, const Lease& lease, bool was_shared, int64_t num_used);

  struct Health {
    bool is_up = false;
    uint64_t num_failures = 0;  // times since start that Redis went away
    uint64_t num_local = 0;     // checks since start that were decided here alone
  };
  Health health() const;

  // What remembers leases; may outlive this object, and then does nothing. For what lets go late.
  class Book {
   public:
    void release(const Lease& lease);

   private:
    friend class SharedLimits;
    std::mutex mutex_;
    redis::Link* link_ = nullptr;               // guarded by mutex_; null: the end
    std::map<Lease, int64_t> held_;             // likewise
    std::map<std::string, int64_t> unwritten_;  // likewise: tokens used, by the name of the day's count
  };
  std::shared_ptr<Book> book() const { return book_; }

 private:
  void on_tick(bool is_new);
  void renew_leases();
  void write_used();
  std::string day() const;

  const Options options_;
  const std::string replica_;
  const std::shared_ptr<Book> book_ = std::make_shared<Book>();
  std::atomic<uint64_t> next_lease_{0};
  std::atomic<uint64_t> num_local_{0};
  std::chrono::steady_clock::time_point renewed_{};  // of the link's thread
  std::unique_ptr<redis::Link> link_;                // last
};

}  // namespace sextant
