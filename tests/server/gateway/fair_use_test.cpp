#include "server/gateway/fair_use.h"

#include <gtest/gtest.h>

#include <random>

#include "server/gateway/client_address.h"

namespace sextant {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

Identity identity_of(UsageLimits limits, const std::string& key_id = "k") {
  Identity identity;
  identity.key_id = key_id;
  identity.tenant = "t";
  identity.roles = Role::kInference;
  identity.limits = limits;
  return identity;
}

// Whatever the times of asking, over any time it gives the burst and the rate and no more; and all of that to one who asks
// often.
TEST(TokenBucket, GivesTheRateAndTheBurst) {
  const char* given = std::getenv("SEXTANT_TEST_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
  SCOPED_TRACE("SEXTANT_TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 20; ++round) {
    const double rate = std::uniform_real_distribution<double>(0.5, 500)(random);
    const double burst = std::floor(std::uniform_real_distribution<double>(1, 300)(random));
    // Often enough to take each unit when it is there.
    const auto most_ns = static_cast<int64_t>(0.9 * 1e9 / rate);
    int64_t now_ns = 5;
    TokenBucket bucket(rate, burst, now_ns);
    int64_t num_given = 0;
    while (num_given < 400) {
      while (bucket.try_take(1, now_ns)) ++num_given;
      const double allowed = burst + rate * static_cast<double>(now_ns - 5) * 1e-9;
      // Of real units whole ones are given: less than one is kept back, and rounding is far below a hundredth.
      ASSERT_LE(static_cast<double>(num_given), allowed + 0.01);
      ASSERT_GE(static_cast<double>(num_given), allowed - 1.01);
      now_ns += std::uniform_int_distribution<int64_t>(0, most_ns)(random);
    }
  }
}

TEST(TokenBucket, TimeThatStandsOrGoesBackGivesNothing) {
  TokenBucket bucket(10, 1, 100);
  EXPECT_TRUE(bucket.try_take(1, 100));
  EXPECT_FALSE(bucket.try_take(1, 100));
  EXPECT_FALSE(bucket.try_take(1, 0));
  EXPECT_NEAR(bucket.seconds_until(1, 100), 0.1, 1e-9);
  EXPECT_TRUE(bucket.try_take(1, 100 + kSecond / 10));
}

TEST(FairUse, EachKeyHasItsOwnRequests) {
  ManualClock clock;
  FairUse use({}, nullptr, clock);
  const Identity a = identity_of({.requests_per_s = 10, .request_burst = 3}, "a");
  const Identity b = identity_of({.requests_per_s = 10, .request_burst = 3}, "b");
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(use.admit(a).is_admitted);
  const FairUse::Admission refused = use.admit(a);
  EXPECT_FALSE(refused.is_admitted);
  EXPECT_NEAR(refused.retry_after_s, 0.1, 1e-9);
  ASSERT_EQ(refused.headers.size(), 3u);
  EXPECT_EQ(refused.headers[1].second, "0");
  EXPECT_TRUE(use.admit(b).is_admitted);
  clock.advance_ns(kSecond / 10);
  EXPECT_TRUE(use.admit(a).is_admitted);
  EXPECT_FALSE(use.admit(a).is_admitted);
  EXPECT_EQ(use.counts().refused_requests, 2u);
  // Without limits nobody is counted.
  const Identity free = identity_of({.requests_per_s = 0}, "a");
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(use.admit(free).is_admitted);
}

TEST(FairUse, APlaceIsFreeWhenItsLeaseEnds) {
  ManualClock clock;
  auto use = std::make_unique<FairUse>(FairUse::Options{}, nullptr, clock);
  const Identity identity = identity_of({.requests_per_s = 0, .concurrent_requests = 2});
  FairUse::Admission first = use->admit(identity);
  FairUse::Admission second = use->admit(identity);
  EXPECT_TRUE(first.is_admitted && second.is_admitted);
  EXPECT_EQ(use->admit(identity).code, "concurrency_limit_exceeded");
  first.lease.reset();
  FairUse::Admission third = use->admit(identity);
  EXPECT_TRUE(third.is_admitted);
  EXPECT_FALSE(use->admit(identity).is_admitted);
  use.reset();
  third.lease.reset();  // it may come last
}

TEST(FairUse, TokensAreReservedAndGivenBack) {
  ManualClock clock;
  FairUse use({}, nullptr, clock);
  const Identity identity = identity_of({.tokens_per_minute = 600});
  const FairUse::Ask ask{
      .num_prompt_tokens = 100, .longest_prompt_tokens = 100, .max_tokens = 200, .n = 2, .num_choices = 2};
  FairUse::Grant grant = use.reserve(identity, ask);
  ASSERT_TRUE(grant.status.ok());
  EXPECT_EQ(grant.reserved, 500);
  const FairUse::Grant refused = use.reserve(identity, ask);
  EXPECT_EQ(refused.status.code(), StatusCode::kResourceExhausted);
  EXPECT_NEAR(refused.retry_after_s, 40, 1e-6);  // 400 of 10 per second
  use.settle(identity, "m", grant, {.prompt_tokens = 100, .cached_tokens = 0, .completion_tokens = 0});
  grant = use.reserve(identity, ask);  // 400 came back
  EXPECT_TRUE(grant.status.ok());
  clock.advance_ns(600 * kSecond);
  // More than a minute has is refused for good.
  const FairUse::Grant never = use.reserve(
      identity, {.num_prompt_tokens = 1, .longest_prompt_tokens = 1, .max_tokens = 600, .n = 1, .num_choices = 1});
  EXPECT_EQ(never.status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(never.retry_after_s, 0);
  EXPECT_EQ(use.counts().refused_tokens, 2u);
}

TEST(FairUse, CapsRefuseWhatIsAskedAndShortenWhatIsNot) {
  ManualClock clock;
  FairUse use({}, nullptr, clock);
  const Identity identity = identity_of({.max_tokens = 50, .max_n = 2, .max_context = 120});
  const auto reserve = [&](int64_t prompt, int64_t max_tokens, bool asked, int64_t n = 1) {
    return use.reserve(identity, {.num_prompt_tokens = prompt,
                                  .longest_prompt_tokens = prompt,
                                  .max_tokens = max_tokens,
                                  .is_max_tokens_asked = asked,
                                  .n = n,
                                  .num_choices = n});
  };
  EXPECT_EQ(reserve(10, 50, true).max_tokens, 50);
  EXPECT_EQ(reserve(10, 51, true).status.param(), "max_tokens");
  EXPECT_EQ(reserve(10, 5000, false).max_tokens, 50);
  EXPECT_EQ(reserve(100, 5000, false).max_tokens, 20);
  EXPECT_FALSE(reserve(100, 21, true).status.ok());
  EXPECT_FALSE(reserve(120, 5000, false).status.ok());
  EXPECT_EQ(reserve(1, 1, true, 3).status.param(), "n");
  EXPECT_TRUE(reserve(1, 1, true, 2).status.ok());
}

TEST(FairUse, ShedsWhenTooMuchWaits) {
  ManualClock clock;
  int64_t num_waiting = 0;
  const FairUse::Ask ask{.num_prompt_tokens = 5,
                         .longest_prompt_tokens = 5,
                         .max_tokens = 100,
                         .is_max_tokens_asked = true,
                         .n = 1,
                         .num_choices = 1};
  for (const int64_t shortened : {0, 20}) {
    FairUse::Options options;
    options.shed_above_requests = 4;
    options.shed_max_tokens = shortened;
    options.num_waiting = [&] { return num_waiting; };
    FairUse use(options, nullptr, clock);
    num_waiting = 4;
    EXPECT_EQ(use.reserve(identity_of({}), ask).max_tokens, 100);
    num_waiting = 5;
    const FairUse::Grant grant = use.reserve(identity_of({}), ask);
    if (shortened == 0) {
      EXPECT_EQ(grant.status.code(), StatusCode::kUnavailable);
      EXPECT_GT(grant.retry_after_s, 0);
    } else {
      EXPECT_EQ(grant.max_tokens, shortened);
    }
    EXPECT_EQ(use.counts().shed, 1u);
  }
}

TEST(FairUse, AddressesAreCountedApartAndForgotten) {
  ManualClock clock;
  FairUse::Options options;
  options.unauthenticated_per_s = 2;
  options.failed_logins_per_minute = 3;
  FairUse use(options, nullptr, clock);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(use.count_unauthenticated("1.2.3.4"));
  EXPECT_FALSE(use.count_unauthenticated("1.2.3.4"));
  EXPECT_TRUE(use.count_unauthenticated("1.2.3.5"));
  EXPECT_FALSE(use.is_barred("1.2.3.4"));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(use.count_failed_login("1.2.3.4"));
  EXPECT_TRUE(use.is_barred("1.2.3.4"));
  EXPECT_FALSE(use.count_failed_login("1.2.3.4"));
  EXPECT_FALSE(use.is_barred("1.2.3.5"));
  clock.advance_ns(21 * kSecond);
  EXPECT_FALSE(use.is_barred("1.2.3.4"));
  // More addresses than it keeps: none is refused for it, and the flood is over.
  for (int i = 0; i < 140'000; ++i) ASSERT_TRUE(use.count_unauthenticated(std::to_string(i)));
}

std::string client_of(const std::string& proxies, const std::string& peer, std::vector<std::string> forwarded) {
  const auto parsed = TrustedProxies::parse(proxies);
  EXPECT_TRUE(parsed.ok()) << parsed.status().message();
  http::HttpRequest request;
  request.client_address = peer;
  for (std::string& value : forwarded) request.headers.push_back({"X-Forwarded-For", std::move(value)});
  return parsed->client_of(request);
}

TEST(TrustedProxies, OnlyTheirWordIsTaken) {
  EXPECT_EQ(client_of("", "9.9.9.9", {"1.1.1.1"}), "9.9.9.9");
  EXPECT_EQ(client_of("10.0.0.0/8", "9.9.9.9", {"1.1.1.1"}), "9.9.9.9");
  EXPECT_EQ(client_of("10.0.0.0/8", "10.1.2.3", {"1.1.1.1"}), "1.1.1.1");
  EXPECT_EQ(client_of("10.0.0.0/8", "::ffff:10.1.2.3", {"1.1.1.1"}), "1.1.1.1");
  // The last that is not a proxy; what stands before it anybody may have written.
  EXPECT_EQ(client_of("10.0.0.0/8, 10.1.2.3", "10.1.2.3", {"6.6.6.6, 1.1.1.1 , 10.4.4.4"}), "1.1.1.1");
  EXPECT_EQ(client_of("10.0.0.0/8", "10.1.2.3", {"6.6.6.6", "1.1.1.1,10.4.4.4"}), "1.1.1.1");
  EXPECT_EQ(client_of("10.0.0.0/8", "10.1.2.3", {"10.4.4.4"}), "10.4.4.4");
  EXPECT_EQ(client_of("10.0.0.0/8", "10.1.2.3", {"1.1.1.1, unknown"}), "10.1.2.3");
  EXPECT_EQ(client_of("10.0.0.0/8", "10.1.2.3", {",,,"}), "10.1.2.3");
  EXPECT_EQ(client_of("fd00::/8", "fd00::1", {"2001:db8::5"}), "2001:db8::5");
  EXPECT_EQ(client_of("10.0.0.0/8", "10.1.2.3", {}), "10.1.2.3");
  for (const char* wrong : {"ten", "10.0.0.0/33", "10.0.0.0/", "::1/129", "10.0.0.0/8 11.0.0.0/8"})
    EXPECT_FALSE(TrustedProxies::parse(wrong).ok()) << wrong;
}

}  // namespace
}  // namespace sextant
