// FairUse over SharedLimits, against a Redis that says what a test wants; that its scripts count right is shown by
// tests/e2e/test_shared_limits.py with a real one.
#include "server/gateway/shared_limits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "server/gateway/fair_use.h"
#include "tests/support/scripted_redis.h"

namespace sextant {
namespace {

using std::chrono::milliseconds;
using testing_support::greeting;
using testing_support::ScriptedRedis;
using Words = ScriptedRedis::Words;

constexpr size_t kCheckWords = 14;  // of a check of requests or tokens; what is told has fewer

template <typename Condition>
void wait_until(Condition&& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "did not come true";
    std::this_thread::sleep_for(milliseconds(1));
  }
}

std::string verdict(int code, const std::string& left, const std::string& right) {
  const auto text = [](const std::string& value) {
    return "$" + std::to_string(value.size()) + "\r\n" + value + "\r\n";
  };
  return "*3\r\n:" + std::to_string(code) + "\r\n" + text(left) + text(right);
}

Identity identity_of(UsageLimits limits) {
  Identity identity;
  identity.key_id = "key-of-ann";
  identity.tenant = "shop";
  identity.roles = Role::kInference;
  identity.limits = limits;
  return identity;
}

std::string header(const std::vector<std::pair<std::string, std::string>>& headers, const std::string& name) {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

class SharedLimitsTest : public testing::Test {
 protected:
  void start(std::function<std::string(const Words&)> answer) {
    server_ = std::make_unique<ScriptedRedis>([this, answer = std::move(answer)](const Words& words) {
      if (is_away_) return std::optional<std::string>();
      const auto known = greeting(words);
      if (known) return known;
      return std::optional(words.size() == kCheckWords ? answer(words) : ":1\r\n");
    });
  }
  void make_use(milliseconds lease_ttl = milliseconds(60'000)) {
    FairUse::Options options;
    options.refusals = &refusals_;
    options.shared.emplace();
    options.shared->address.host = "127.0.0.1";
    options.shared->address.port = server_->port();
    options.shared->timeout = milliseconds(60'000);
    options.shared->lease_ttl = lease_ttl;
    options.shared->link.first_retry = options.shared->link.longest_retry = milliseconds(5);
    options.shared->link.tick = milliseconds(10);
    use_ = std::make_unique<FairUse>(options, nullptr, clock_);
    wait_until([&] { return use_->shared_health()->is_up; });
  }
  // What Redis made of it, or none where nobody was asked.
  std::optional<FairUse::Admission> admit(const Identity& identity) {
    auto promise = std::make_shared<std::promise<FairUse::Admission>>();
    auto future = promise->get_future();
    if (!use_->admit_elsewhere(identity, [promise](FairUse::Admission a) { promise->set_value(std::move(a)); }))
      return std::nullopt;
    return future.get();
  }
  std::optional<FairUse::Grant> reserve(const Identity& identity, int64_t max_tokens) {
    auto promise = std::make_shared<std::promise<FairUse::Grant>>();
    auto future = promise->get_future();
    const FairUse::Ask ask{.num_prompt_tokens = 10, .longest_prompt_tokens = 10, .max_tokens = max_tokens};
    if (!use_->reserve_elsewhere(identity, ask, [promise](FairUse::Grant g) { promise->set_value(std::move(g)); }))
      return std::nullopt;
    return future.get();
  }
  // Commands that have this word.
  size_t num_with(const std::string& word) const {
    size_t num = 0;
    for (const Words& words : server_->asked()) num += std::ranges::find(words, word) != words.end() ? 1 : 0;
    return num;
  }

  std::atomic<bool> is_away_{false};
  ManualClock clock_;
  RefusalCounts refusals_;
  std::unique_ptr<ScriptedRedis> server_;
  std::unique_ptr<FairUse> use_;
};

TEST_F(SharedLimitsTest, WhatRedisSaysHolds) {
  std::atomic<int> code{0};
  start([&](const Words&) { return verdict(code, "41.5", "7"); });
  make_use();
  const Identity identity = identity_of({.requests_per_s = 10, .request_burst = 50, .concurrent_requests = 3});
  auto admission = admit(identity);
  ASSERT_TRUE(admission);
  EXPECT_TRUE(admission->is_admitted);
  EXPECT_NE(admission->lease.use_count(), 0);
  EXPECT_EQ(header(admission->headers, "x-ratelimit-remaining-requests"), "41");
  EXPECT_EQ(header(admission->headers, "x-ratelimit-limit-requests"), "50");
  EXPECT_EQ(header(admission->headers, "x-ratelimit-reset-requests"), "850ms");
  code = 1;
  admission = admit(identity);
  ASSERT_TRUE(admission);
  EXPECT_FALSE(admission->is_admitted);
  EXPECT_EQ(admission->code, "concurrency_limit_exceeded");
  EXPECT_EQ(refusals_.of(Refusal::kConcurrency), 1u);
  code = 2;
  admission = admit(identity);
  ASSERT_TRUE(admission);
  EXPECT_FALSE(admission->is_admitted);
  EXPECT_EQ(admission->code, "rate_limit_exceeded");
  EXPECT_EQ(refusals_.of(Refusal::kRate), 1u);
}

TEST_F(SharedLimitsTest, TokensAreReservedAndSettledThere) {
  std::atomic<int> code{0};
  start([&](const Words&) { return verdict(code, "60", "140"); });
  make_use();
  const Identity identity = identity_of({.tokens_per_minute = 100, .tokens_per_day = 200});
  EXPECT_FALSE(reserve(identity, 1000));  // never fits: refused here
  auto grant = reserve(identity, 30);
  ASSERT_TRUE(grant);
  EXPECT_TRUE(grant->status.ok());
  EXPECT_EQ(grant->reserved, 40);
  EXPECT_EQ(header(grant->headers, "x-ratelimit-remaining-tokens"), "60");
  use_->settle(identity, "m", *grant, {.prompt_tokens = 10, .cached_tokens = 0, .completion_tokens = 5});
  // Back come 25 of 40, and 15 were used of the day.
  wait_until([&] {
    for (const Words& words : server_->asked()) {
      if (words.size() == 12 && words[7] == "25" && words[10] == "15") return true;
    }
    return false;
  });
  code = 1;
  grant = reserve(identity, 30);
  ASSERT_TRUE(grant);
  EXPECT_EQ(grant->status.error_code(), "insufficient_quota");
  EXPECT_NE(grant->status.message().find("has used or reserved 140"), std::string::npos);
  code = 2;
  grant = reserve(identity, 30);
  ASSERT_TRUE(grant);
  EXPECT_EQ(grant->status.error_code(), "rate_limit_exceeded");
  EXPECT_EQ(refusals_.of(Refusal::kQuota), 1u);
  EXPECT_EQ(refusals_.of(Refusal::kTokens), 1u);
}

TEST_F(SharedLimitsTest, WhoMayReadRedisSeesNoNames) {
  start([](const Words&) { return verdict(0, "1", "1"); });
  make_use();
  const Identity identity = identity_of({.tokens_per_minute = 100, .tokens_per_day = 200, .concurrent_requests = 3});
  (void)admit(identity);
  (void)reserve(identity, 5);
  size_t num_keys = 0;
  for (const Words& words : server_->asked()) {
    for (const std::string& word : words) {
      EXPECT_EQ(word.find("key-of-ann"), std::string::npos);
      EXPECT_EQ(word.find("shop"), std::string::npos);
    }
    if (words.size() != kCheckWords) continue;
    for (size_t i = 3; i < 7; ++i, ++num_keys) EXPECT_TRUE(words[i].starts_with("sextant:")) << words[i];
  }
  EXPECT_EQ(num_keys, 8u);
}

// Each of these is a Redis that is away: the limit of this process holds, from where the shared one was.
TEST_F(SharedLimitsTest, NonsenseIsALocalLimit) {
  for (const std::string& answer :
       {std::string("+OK\r\n"), std::string("$-1\r\n"), std::string(":0\r\n"), std::string("*0\r\n"),
        verdict(3, "1", "1"), verdict(-1, "1", "1"), verdict(0, "", "1"), verdict(0, "nan", "1"),
        verdict(0, "1e300", "1"), verdict(0, "inf", "1"), verdict(0, "-5", "1"), verdict(0, "1", "1x"),
        std::string("*3\r\n:0\r\n*0\r\n:1\r\n"),
        std::string("-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"),
        std::string("*3\r\n$1\r\n0\r\n:1\r\n:1\r\n"), std::string("*99999\r\n"), std::string("nonsense\r\n")}) {
    SCOPED_TRACE(answer);
    std::atomic<bool> lies{false};
    use_.reset();
    start([&](const Words&) { return lies ? answer : verdict(0, "1", "0"); });
    make_use();
    const Identity identity = identity_of({.requests_per_s = 1, .request_burst = 3, .concurrent_requests = 5});
    auto first = admit(identity);  // of three
    ASSERT_TRUE(first && first->is_admitted);
    lies = true;
    int num_admitted = 1;
    std::vector<FairUse::Admission> held;
    for (int i = 0; i < 6; ++i) {
      auto admission = admit(identity);  // asked of a Redis that lies, or that is away
      held.push_back(admission ? std::move(*admission) : use_->admit(identity));
      num_admitted += held.back().is_admitted ? 1 : 0;
    }
    EXPECT_EQ(num_admitted, 3);
    EXPECT_GE(use_->shared_health()->num_failures, 1u);
    EXPECT_GE(use_->shared_health()->num_local, 6u);
    held.clear();
    use_.reset();
  }
}

TEST_F(SharedLimitsTest, LeasesAreRenewedLetGoAndToldToARedisThatWasAway) {
  start([](const Words&) { return verdict(0, "1", "1"); });
  make_use(milliseconds(30));
  const Identity identity = identity_of({.concurrent_requests = 3});
  auto admission = admit(identity);
  ASSERT_TRUE(admission && admission->is_admitted);
  std::string lease;
  for (const Words& words : server_->asked()) {
    if (words.size() == kCheckWords) lease = words[12];
  }
  ASSERT_TRUE(lease.ends_with(":1")) << lease;
  wait_until([&] { return num_with(lease) >= 4; });  // asked for, and renewed
  is_away_ = true;
  wait_until([&] { return !use_->shared_health()->is_up; });
  EXPECT_FALSE(admit(identity));
  FairUse::Admission meanwhile = use_->admit(identity);
  EXPECT_TRUE(meanwhile.is_admitted);
  is_away_ = false;
  // Then it hears of both, of the one that was given without it too.
  wait_until([&] {
    return std::ranges::any_of(server_->asked(),
                               [](const Words& words) { return words.size() == 8 && words[2] == "2"; });
  });
  admission->lease.reset();
  wait_until([&] {
    return std::ranges::any_of(server_->asked(),
                               [&](const Words& words) { return words.size() == 6 && words[5] == lease; });
  });
  use_.reset();
  meanwhile.lease.reset();  // later than all of it
}

TEST_F(SharedLimitsTest, WhatWaitsForAnAnswerGetsOneAtTheEnd) {
  start([](const Words&) { return std::string(); });
  FairUse::Options options;
  options.shared.emplace();
  options.shared->address.host = "127.0.0.1";
  options.shared->address.port = server_->port();
  options.shared->timeout = milliseconds(50);
  use_ = std::make_unique<FairUse>(options, nullptr, clock_);
  wait_until([&] { return use_->shared_health()->is_up; });
  std::atomic<int> num_answers{0};
  int num_asked = 0;
  for (int i = 0; i < 50; ++i) {
    num_asked += use_->admit_elsewhere(identity_of({.requests_per_s = 1, .request_burst = 9}),
                                       [&](const FairUse::Admission&) { ++num_answers; });
  }
  EXPECT_GE(num_asked, 1);
  use_.reset();
  EXPECT_EQ(num_answers, num_asked);
}

}  // namespace
}  // namespace sextant
