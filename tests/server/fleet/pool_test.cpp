// Pools in a time of the tests' own.
#include "server/fleet/pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace sextant::fleet {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

class PoolTest : public testing::Test {
 protected:
  void make(int num_members, PoolConfig config = {}) {
    config.name = config.model = "m";
    pool.emplace(std::move(config),
                 [this](const MemberEvent& event) { events.push_back(event.member + " " + event.what); });
    for (int i = 0; i < num_members; ++i) endpoints.push_back({"h" + std::to_string(i), 1});
    pool->set_members(endpoints, now);
    for (const Pool::Address& member : pool->members())
      for (int i = 0; i < 2; ++i) pool->probed(member.id, true, "", now);
    now += 1000 * kSecond;  // past slow start
    events.clear();
  }
  MemberId pick(RequestLoad load = {}, std::set<MemberId> excluded = {}) {
    const auto picked = pool->pick(load, excluded, now);
    if (picked) last_of[picked->member] = *picked;
    return picked ? picked->member : 0;
  }
  // Of the member's last pick.
  void finish(MemberId member, Outcome outcome, int64_t tokens = 1) {
    pool->finish(last_of.at(member), tokens, outcome, "why", now);
  }
  std::string state_of(MemberId member) {
    for (const MemberStatus& status : pool->status(now))
      if (status.id == member) return status.state;
    return "";
  }

  int64_t now = kSecond;
  std::vector<http::Endpoint> endpoints;
  std::vector<std::string> events;
  std::optional<Pool> pool;
  std::map<MemberId, Pool::Pick> last_of;
};

TEST_F(PoolTest, ProbesDecideAfterSoManyInARow) {
  make(1);
  const MemberId member = pool->members()[0].id;
  const auto probe = [&](bool good) { pool->probed(member, good, "it is asleep", now); };
  probe(false);
  probe(false);
  EXPECT_EQ(state_of(member), "up");
  probe(true);
  probe(false);
  probe(false);
  EXPECT_EQ(state_of(member), "up");
  probe(false);
  EXPECT_EQ(state_of(member), "down");
  EXPECT_EQ(pick(), 0U);
  EXPECT_FALSE(pool->can_serve(now));
  EXPECT_EQ(pool->status(now)[0].reason, "it is asleep");
  EXPECT_GE(pool->retry_after_s(now), 1);
  probe(true);
  EXPECT_EQ(pick(), 0U);
  probe(true);
  EXPECT_NE(pick(), 0U);
  EXPECT_EQ(events, (std::vector<std::string>{"h0:1 down", "h0:1 up"}));
}

TEST_F(PoolTest, FailuresInARowOpenTheCircuitLongerEachTime) {
  PoolConfig config;
  config.ejection.consecutive_failures = 3;
  config.ejection.base_s = 10;
  config.ejection.most_s = 35;
  make(1, config);
  const MemberId member = pool->members()[0].id;
  for (const Outcome outcome :
       {Outcome::kFailed, Outcome::kFailed, Outcome::kGood, Outcome::kFailed, Outcome::kFailed, Outcome::kCancelled}) {
    ASSERT_EQ(pick(), member);
    finish(member, outcome);
  }
  EXPECT_EQ(state_of(member), "up");
  ASSERT_EQ(pick(), member);
  finish(member, Outcome::kFailed);
  EXPECT_EQ(state_of(member), "ejected");
  for (const double seconds : {10.0, 20.0, 35.0, 35.0}) {
    EXPECT_EQ(pick(), 0U);
    EXPECT_NEAR(pool->retry_after_s(now), std::min(10.0, seconds), 1e-6);
    now += static_cast<int64_t>(seconds * 1e9) - 1;
    EXPECT_EQ(pick(), 0U) << seconds;
    now += 1;
    // Half open: one request, and no second one before its end.
    ASSERT_EQ(pick(), member) << seconds;
    EXPECT_EQ(pick(), 0U);
    finish(member, Outcome::kFailed);
  }
  now += 35 * kSecond;
  ASSERT_EQ(pick(), member);
  finish(member, Outcome::kGood);
  EXPECT_EQ(state_of(member), "slow_start");
  EXPECT_EQ(events.back(), "h0:1 readmitted");
}

TEST_F(PoolTest, ATrialThatIsCancelledLeavesTheCircuitAsItWas) {
  PoolConfig config;
  config.ejection.consecutive_failures = 1;
  make(1, config);
  const MemberId member = pick();
  finish(member, Outcome::kFailed);
  now += 10 * kSecond;
  ASSERT_EQ(pick(), member);
  finish(member, Outcome::kCancelled);
  EXPECT_EQ(state_of(member), "ejected");
  EXPECT_EQ(pick(), member);
}

// What was asked before the ejection neither lets the member in again nor keeps it out.
TEST_F(PoolTest, OnlyTheTrialSpeaksForAnEjectedMember) {
  PoolConfig config;
  config.ejection.consecutive_failures = 1;
  config.ejection.base_s = 10;
  make(1, config);
  const auto old_good = *pool->pick({}, {}, now);
  const auto old_bad = *pool->pick({}, {}, now);
  const auto hanging = *pool->pick({}, {}, now);
  pool->finish(*pool->pick({}, {}, now), 1, Outcome::kFailed, "why", now);
  EXPECT_EQ(state_of(old_good.member), "ejected");
  pool->finish(old_good, 1, Outcome::kGood, "", now);
  EXPECT_EQ(state_of(old_good.member), "ejected");
  now += 10 * kSecond;
  pool->finish(old_bad, 1, Outcome::kFailed, "why", now);
  const auto trial = pool->pick({}, {}, now);  // though one hangs there still
  ASSERT_TRUE(trial);
  EXPECT_FALSE(pool->pick({}, {}, now));
  pool->finish(*trial, 1, Outcome::kGood, "", now);
  EXPECT_EQ(state_of(trial->member), "slow_start");
  pool->finish(hanging, 1, Outcome::kFailed, "why", now);
  EXPECT_EQ(state_of(trial->member), "slow_start");
  EXPECT_EQ(pool->status(now)[0].num_ejections, 1);
  EXPECT_EQ(pool->status(now)[0].num_failures, 3);
}

TEST_F(PoolTest, LeastTokensAndLeastConnections) {
  make(3);
  const MemberId first = pick({.tokens = 1000, .prompt = {}});
  const MemberId second = pick({.tokens = 10, .prompt = {}});
  const MemberId third = pick({.tokens = 100, .prompt = {}});
  EXPECT_EQ((std::set<MemberId>{first, second, third}).size(), 3U);
  EXPECT_EQ(pick({.tokens = 10, .prompt = {}}), second);
  pool->tokens_came(first, 995);
  EXPECT_EQ(pick({.tokens = 1, .prompt = {}}), first);
  finish(first, Outcome::kGood, 5);
  finish(first, Outcome::kGood, 1);
  for (const MemberStatus& status : pool->status(now)) {
    if (status.id == first) {
      EXPECT_EQ(status.outstanding_tokens, 0);
    }
  }

  PoolConfig config;
  config.policy = Policy::kLeastConnections;
  endpoints.clear();
  make(4, config);
  std::map<MemberId, int> num_of;
  for (int i = 0; i < 400; ++i) ++num_of[pick({.tokens = i * 100, .prompt = {}})];
  for (const auto& [member, num] : num_of) EXPECT_EQ(num, 100);
}

TEST_F(PoolTest, ANewMemberIsGivenLittleAtFirst) {
  PoolConfig config;
  config.policy = Policy::kLeastConnections;
  config.slow_start_s = 100;
  make(2, config);
  endpoints.push_back({"late", 1});
  pool->set_members(endpoints, now);
  MemberId late = 0;
  for (const auto& member : pool->members())
    if (member.endpoint.host == "late") late = member.id;
  EXPECT_EQ(state_of(late), "unknown");
  for (int i = 0; i < 2; ++i) pool->probed(late, true, "", now);
  EXPECT_EQ(state_of(late), "slow_start");
  now += 25 * kSecond;  // a quarter of a member
  std::map<MemberId, int> num_of;
  for (int i = 0; i < 900; ++i) ++num_of[pick()];
  EXPECT_NEAR(num_of[late], 100, 2);
  now += 75 * kSecond;
  EXPECT_EQ(state_of(late), "up");
}

TEST_F(PoolTest, SlowMembersAreEjectedAndLongPromptsAreNot) {
  make(3);
  const auto members = pool->members();
  const uint32_t seed = std::random_device()();
  std::mt19937 random(seed);
  // The same for all: mostly 100 ms, now and then a prompt of a minute.
  for (int i = 0; i < 3000; ++i) {
    for (const auto& member : members) {
      const int64_t ms = random() % 50 == 0 ? 60'000 : 80 + static_cast<int64_t>(random() % 40);
      pool->first_byte_came(member.id, true, ms * 1'000'000, now);
    }
  }
  EXPECT_TRUE(events.empty()) << "seed " << seed << " " << testing::PrintToString(events);
  for (int i = 0; i < 100 && events.empty(); ++i) pool->first_byte_came(members[1].id, true, 5 * kSecond, now);
  EXPECT_EQ(events, std::vector<std::string>{"h1:1 ejected"});
  EXPECT_EQ(state_of(members[1].id), "ejected");
  // The last one cannot be slower than others.
  for (int i = 0; i < 2; ++i)
    for (const size_t other : {size_t{0}, size_t{2}})
      for (int probe = 0; probe < 3; ++probe) pool->probed(members[other].id, false, "", now);
  now += 100 * kSecond;
  for (int i = 0; i < 100; ++i) pool->first_byte_came(members[1].id, true, 50 * kSecond, now);
  EXPECT_EQ(std::ranges::count(events, "h1:1 ejected"), 1);
}

TEST_F(PoolTest, BeginningsStayTogetherAsLongAsLoadsAllow) {
  PoolConfig config;
  config.policy = Policy::kPrefixAffinity;
  make(4, config);
  // Sixteen conversations, one request at a time each: a conversation does not move.
  std::map<int, MemberId> home;
  const uint32_t seed = std::random_device()();
  std::mt19937 random(seed);
  for (int i = 0; i < 2000; ++i) {
    const int which = static_cast<int>(random() % 16);
    const std::string prompt = std::to_string(which) + std::string(400 + 10 * (static_cast<size_t>(i) % 50), 'x');
    const MemberId member = pick({.tokens = 1, .prompt = prompt});
    const auto [found, is_first] = home.emplace(which, member);
    EXPECT_EQ(found->second, member) << "seed " << seed;
    finish(member, Outcome::kGood);
  }
  // One beginning for all, and none of them ends: nobody has more than 1.2 of the mean, and one.
  std::map<MemberId, int> num_of;
  const std::string prompt(1000, 'p');
  for (int i = 0; i < 400; ++i) ++num_of[pick({.tokens = 1, .prompt = prompt})];
  for (const auto& [member, num] : num_of) EXPECT_LE(num, 121);
  EXPECT_EQ(num_of.size(), 4U);
}

TEST_F(PoolTest, SeveralRoutersSendAnUnknownBeginningTheSameWay) {
  PoolConfig config;
  config.policy = Policy::kPrefixAffinity;
  make(5, config);
  Pool other(pool->config(), {});
  std::vector<http::Endpoint> reversed(endpoints.rbegin(), endpoints.rend());
  other.set_members(reversed, 0);
  for (const auto& member : other.members())
    for (int i = 0; i < 2; ++i) other.probed(member.id, true, "", 0);
  std::set<std::string> used;
  for (int i = 0; i < 50; ++i) {
    const std::string prompt = "prompt " + std::to_string(i);
    const auto here = pool->pick({.tokens = 1, .prompt = prompt}, {}, now);
    const auto there = other.pick({.tokens = 1, .prompt = prompt}, {}, now);
    EXPECT_EQ(here->endpoint, there->endpoint);
    used.insert(here->endpoint.host);
    pool->finish(*here, 1, Outcome::kGood, "", now);
    other.finish(*there, 1, Outcome::kGood, "", now);
  }
  EXPECT_EQ(used.size(), 5U);
}

TEST_F(PoolTest, MembersThatLeaveFinishWhatTheyHave) {
  make(2);
  const MemberId first = pick();
  const MemberId second = pick();
  endpoints.erase(endpoints.begin() + (first == pool->members()[0].id ? 0 : 1));
  pool->set_members(endpoints, now);
  EXPECT_EQ(state_of(first), "leaving");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(pick(), second);
  finish(first, Outcome::kGood);
  EXPECT_EQ(state_of(first), "");
  finish(first, Outcome::kGood);  // nobody is there any more
  EXPECT_EQ(pool->status(now).size(), 1U);
}

TEST_F(PoolTest, RetriesStayBelowTheirShareOfRequests) {
  PoolConfig config;
  config.retry_ratio = 0.1;
  config.retry_burst = 20;
  make(2, config);
  int num_retries = 0;
  for (int i = 0; i < 10'000; ++i) {
    const MemberId member = pick();
    finish(member, Outcome::kGood);
    if (pool->may_retry()) {
      ++num_retries;
      finish(pick({}, {member}), Outcome::kGood);  // a second attempt earns nothing
    }
  }
  EXPECT_LE(num_retries, 1020);
  EXPECT_GE(num_retries, 1000);
}

TEST_F(PoolTest, ExcludedMembersAreNotTakenAgain) {
  make(3);
  const MemberId first = pick();
  const MemberId second = pick({}, {first});
  const MemberId third = pick({}, {first, second});
  EXPECT_EQ((std::set<MemberId>{first, second, third}).size(), 3U);
  EXPECT_EQ(pick({}, {first, second, third}), 0U);
}

}  // namespace
}  // namespace sextant::fleet
