#include "engine/core/fair_share.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>

#include "tests/engine/core/scheduler_harness.h"

namespace sextant {
namespace {

uint64_t test_seed() {
  const char* given = std::getenv("SEXTANT_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
}

TEST(FairShare, OneTenantKeepsItsOrder) {
  std::mt19937_64 random(test_seed());
  FairShare share;
  int64_t last = 0;
  std::vector<FairShare::Charge> started;
  for (int i = 0; i < 2000; ++i) {
    const FairShare::Charge charge = share.add("a", static_cast<int64_t>(random() % 100) + 1, 500, 1);
    ASSERT_GE(charge.start, last);
    last = charge.start;
    share.on_started("a", charge.start);
    started.push_back(charge);
    if (random() % 2 == 0) {
      const size_t which = random() % started.size();
      share.on_ended("a", started[which], true, static_cast<int64_t>(random() % 500), 1);
      started.erase(started.begin() + static_cast<int64_t>(which));
    }
  }
}

TEST(FairShare, OneThatComesLateIsNotBehindTheBacklog) {
  FairShare share;
  std::vector<FairShare::Charge> backlog;
  for (int i = 0; i < 10; ++i) backlog.push_back(share.add("many", 50, 50, 1));
  for (int i = 0; i < 3; ++i) share.on_started("many", backlog[static_cast<size_t>(i)].start);
  const FairShare::Charge late = share.add("few", 50, 50, 1);
  EXPECT_EQ(late.start, backlog[2].start);  // now, not after the ten
  EXPECT_LT(late.start, backlog[3].start);
  // Nor does it get more for having been away.
  EXPECT_EQ(share.add("few", 50, 50, 1).start, late.start + 100);
  EXPECT_EQ(share.num_tenants(), 2);
  EXPECT_EQ(share.num_waiting("many"), 7);
  EXPECT_EQ(share.num_waiting("nobody"), 0);
}

TEST(FairShare, WhatWasGuessedIsPutRight) {
  FairShare share;
  const FairShare::Charge first = share.add("a", 10, 1000, 2);
  EXPECT_EQ(first.guessed, 256);
  const FairShare::Charge other = share.add("b", 10, 1000, 1);
  share.on_started("a", first.start);
  share.on_started("b", other.start);
  share.on_ended("a", first, true, 6, 2);  // 16 in all
  EXPECT_EQ(share.add("a", 10, 1000, 1).start, 16);
}

// Two tenants that always have requests waiting, whatever the lengths of these: tokens go half and half, but for what may be
// under way at a time.
TEST(FairShare, BusyTenantsGetEqualTokens) {
  const uint64_t seed = test_seed();
  SCOPED_TRACE("SEXTANT_TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  constexpr int32_t kMaxPrompt = 92, kMaxOutput = 20;
  constexpr int64_t kNumWaiting = 12, kNumTokens = 30'000;
  Scheduler::Options options = make_options();
  options.num_blocks = 401;
  options.cache.enable_prefix_caching = false;  // what the cache serves is charged, and not scheduled
  Harness harness(options);
  const std::map<std::string, int32_t> lengths = {{"short", static_cast<int32_t>(random() % 12) + 2},
                                                  {"long", static_cast<int32_t>(random() % (kMaxPrompt - 1)) + 2}};
  std::map<std::string, int64_t> waiting, tokens;
  std::map<SequenceId, std::string> tenant_of;
  int64_t num_counted = 0;
  for (int turn = 0; num_counted < kNumTokens; ++turn) {
    ASSERT_LT(turn, 100'000);
    for (const auto& [tenant, length] : lengths) {
      for (; waiting[tenant] < kNumWaiting; ++waiting[tenant]) {
        harness.add(
            {.num_prompt = length, .max_tokens = static_cast<int64_t>(random() % kMaxOutput) + 1, .tenant = tenant});
      }
    }
    const StepPtr step = harness.turn();
    for (const NewSequence& sequence : step->new_sequences) {
      tenant_of[sequence.sequence_id] = sequence.request->tenant;
      --waiting[sequence.request->tenant];
    }
    if (turn < 300) continue;  // until guesses of lengths are from requests that were seen
    for (const ScheduledSequence& scheduled : step->sequences) {
      tokens[tenant_of.at(scheduled.sequence_id)] += scheduled.num_scheduled_tokens;
      num_counted += scheduled.num_scheduled_tokens;
    }
  }
  // At each end of the count each tenant may be ahead by the whole of what runs and by the guesses for what waits.
  const int64_t of_one = options.scheduler.max_num_seqs * (kMaxPrompt + kMaxOutput) + kNumWaiting * kMaxOutput;
  EXPECT_LE(std::abs(tokens["short"] - tokens["long"]), 2 * of_one)
      << lengths.at("short") << " and " << lengths.at("long") << ": " << tokens["short"] << " and " << tokens["long"];
  harness.run_to_end();
}

// Every request of each tenant ends, with one that never stops asking beside it.
TEST(FairShare, NobodyStarves) {
  Harness harness(make_options());
  const RequestId lonely = harness.add({.num_prompt = 20, .max_tokens = 10, .tenant = "lonely"});
  for (int turn = 0; turn < 200; ++turn) {
    for (int i = 0; i < 3; ++i) {
      if (harness.scheduler.stats().num_waiting < 40)
        harness.add({.num_prompt = 30, .max_tokens = 8, .first_token = 60, .tenant = "flood"});
    }
    harness.turn();
  }
  EXPECT_EQ(harness.terminal(lonely).finish_reason, FinishReason::kLength);
  harness.run_to_end();
}

// A flood fills the queue; another tenant still finds its share of it.
TEST(FairShare, AFullQueueKeepsRoomForOthers) {
  Scheduler::Options options = make_options();
  options.scheduler.max_num_queued_reqs = 10;
  Harness harness(options);
  int64_t num_taken = 0;
  while (harness.scheduler.add(harness.make_request({.tenant = "flood"})).ok()) ++num_taken;
  EXPECT_EQ(num_taken, 10 + options.scheduler.max_num_seqs);
  int64_t num_of_other = 0;
  while (harness.scheduler.add(harness.make_request({.tenant = "other"})).ok()) ++num_of_other;
  EXPECT_EQ(num_of_other, num_taken / 2);
  EXPECT_FALSE(harness.scheduler.add(harness.make_request({.tenant = "flood"})).ok());
  EXPECT_TRUE(harness.scheduler.add(harness.make_request({.tenant = "third"})).ok());
  harness.run_to_end();
}

}  // namespace
}  // namespace sextant
