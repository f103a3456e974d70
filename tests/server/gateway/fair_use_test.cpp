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
  RefusalCounts refusals;
  FairUse use({.refusals = &refusals}, nullptr, clock);
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
  EXPECT_EQ(refusals.of(Refusal::kRate), 2u);
  // Without limits nobody is counted.
  const Identity free = identity_of({.requests_per_s = 0}, "a");
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(use.admit(free).is_admitted);
}

TEST(FairUse, APlaceIsFreeWhenItsLeaseEnds) {
  ManualClock clock;
  RefusalCounts refusals;
  auto use = std::make_unique<FairUse>(FairUse::Options{.refusals = &refusals}, nullptr, clock);
  const Identity identity = identity_of({.requests_per_s = 0, .concurrent_requests = 2});
  FairUse::Admission first = use->admit(identity);
  FairUse::Admission second = use->admit(identity);
  EXPECT_TRUE(first.is_admitted && second.is_admitted);
  EXPECT_EQ(use->admit(identity).code, "concurrency_limit_exceeded");
  first.lease.reset();
  FairUse::Admission third = use->admit(identity);
  EXPECT_TRUE(third.is_admitted);
  EXPECT_FALSE(use->admit(identity).is_admitted);
  EXPECT_EQ(refusals.of(Refusal::kConcurrency), 2u);
  use.reset();
  third.lease.reset();  // it may come last
}

TEST(FairUse, TokensAreReservedAndGivenBack) {
  ManualClock clock;
  RefusalCounts refusals;
  FairUse use({.refusals = &refusals}, nullptr, clock);
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
  EXPECT_EQ(refusals.of(Refusal::kTokens), 2u);
}

std::string header_of(const std::vector<std::pair<std::string, std::string>>& headers, const std::string& name) {
  std::string value;
  for (const auto& [known, text] : headers) {
    if (known != name) continue;
    EXPECT_EQ(value, "") << name << " is there twice";
    value = text;
  }
  return value;
}

// Whatever becomes of a request: what applies to its key is said, each once.
TEST(FairUse, EveryAnswerSaysWhatIsLeft) {
  ManualClock clock;
  FairUse use({}, nullptr, clock);
  const Identity identity =
      identity_of({.requests_per_s = 1, .request_burst = 2, .tokens_per_minute = 600, .concurrent_requests = 1});
  const auto expect_headers = [](const auto& headers, const std::string& requests, const std::string& tokens) {
    EXPECT_EQ(header_of(headers, "x-ratelimit-limit-requests"), "2");
    EXPECT_EQ(header_of(headers, "x-ratelimit-remaining-requests"), requests);
    EXPECT_EQ(header_of(headers, "x-ratelimit-limit-tokens"), "600");
    EXPECT_EQ(header_of(headers, "x-ratelimit-remaining-tokens"), tokens);
    EXPECT_NE(header_of(headers, "x-ratelimit-reset-requests"), "");
    EXPECT_NE(header_of(headers, "x-ratelimit-reset-tokens"), "");
  };
  FairUse::Admission first = use.admit(identity);
  expect_headers(first.headers, "1", "600");
  const FairUse::Grant grant = use.reserve(
      identity, {.num_prompt_tokens = 100, .longest_prompt_tokens = 100, .max_tokens = 400, .n = 1, .num_choices = 1});
  ASSERT_TRUE(grant.status.ok());
  EXPECT_EQ(header_of(grant.headers, "x-ratelimit-remaining-tokens"), "100");
  EXPECT_EQ(header_of(grant.headers, "x-ratelimit-reset-tokens"), "50s");
  const FairUse::Admission crowded = use.admit(identity);
  EXPECT_EQ(crowded.code, "concurrency_limit_exceeded");
  expect_headers(crowded.headers, "1", "100");
  first.lease.reset();
  EXPECT_TRUE(use.admit(identity).is_admitted);
  const FairUse::Admission refused = use.admit(identity);
  EXPECT_EQ(refused.code, "rate_limit_exceeded");
  expect_headers(refused.headers, "0", "100");
  for (const int64_t max_tokens : {200, 600}) {  // for now, for good
    const FairUse::Grant none = use.reserve(
        identity,
        {.num_prompt_tokens = 1, .longest_prompt_tokens = 1, .max_tokens = max_tokens, .n = 1, .num_choices = 1});
    EXPECT_FALSE(none.status.ok());
    EXPECT_EQ(header_of(none.headers, "x-ratelimit-remaining-tokens"), "100");
  }
  // A limit that does not apply is not spoken of.
  EXPECT_TRUE(use.admit(identity_of({.requests_per_s = 0})).headers.empty());
  EXPECT_EQ(use.admit(identity_of({.requests_per_s = 0, .tokens_per_minute = 5}, "b")).headers.size(), 3u);
}

TEST(FairUse, CapsRefuseWhatIsAskedAndShortenWhatIsNot) {
  ManualClock clock;
  RefusalCounts refusals;
  FairUse use({.refusals = &refusals}, nullptr, clock);
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
  EXPECT_EQ(refusals.of(Refusal::kCap), 4u);
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
    RefusalCounts refusals;
    FairUse::Options options;
    options.refusals = &refusals;
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
    EXPECT_EQ(refusals.of(Refusal::kShed), shortened == 0 ? 1u : 0u);
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

TEST(AddressGroup, IsWhatOneCustomerHas) {
  EXPECT_EQ(address_group("9.9.9.9"), "9.9.9.9");
  EXPECT_EQ(address_group("::ffff:9.9.9.9"), "9.9.9.9");
  EXPECT_EQ(address_group("2001:db8:1:2:3:4:5:6"), address_group("2001:db8:1:2::1"));
  EXPECT_NE(address_group("2001:db8:1:2::1"), address_group("2001:db8:1:3::1"));
  EXPECT_EQ(address_group("fe80::1%lo"), address_group("fe80::2"));
  EXPECT_EQ(address_group("::1"), "::1");
  EXPECT_EQ(address_group("unknown"), "unknown");
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
