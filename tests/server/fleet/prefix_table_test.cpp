#include "server/fleet/prefix_table.h"

#include <gtest/gtest.h>

namespace sextant::fleet {
namespace {

constexpr size_t kRun = PrefixTable::kRunBytes;

TEST(PrefixTable, TheLongestBeginningComesFirst) {
  PrefixTable table;
  const std::string system(3 * kRun, 's');
  const auto first = PrefixTable::hashes_of(system + std::string(2 * kRun, 'a'));
  const auto second = PrefixTable::hashes_of(system + std::string(2 * kRun, 'b'));
  ASSERT_EQ(first.size(), 5U);
  table.add(first, 1);
  table.add(second, 2);
  const auto matches = table.find(PrefixTable::hashes_of(system + std::string(2 * kRun, 'b') + "more"));
  ASSERT_EQ(matches.size(), 2U);
  EXPECT_EQ(matches[0].member, 2U);
  EXPECT_EQ(matches[0].num_runs, 5U);
  EXPECT_EQ(matches[1].member, 1U);
  EXPECT_EQ(matches[1].num_runs, 3U);
  EXPECT_TRUE(table.find(PrefixTable::hashes_of("x" + system)).empty());
  EXPECT_TRUE(table.find(PrefixTable::hashes_of("short")).empty());
}

// The same run elsewhere is another run: what came before it counts.
TEST(PrefixTable, RunsAreChained) {
  const std::string a(kRun, 'a');
  const std::string b(kRun, 'b');
  EXPECT_NE(PrefixTable::hashes_of(a + a)[1], PrefixTable::hashes_of(b + a)[1]);
  EXPECT_NE(PrefixTable::hashes_of(a + a)[0], PrefixTable::hashes_of(a + a)[1]);
  EXPECT_EQ(PrefixTable::hashes_of(a + b).at(0), PrefixTable::hashes_of(a).at(0));
  EXPECT_LE(PrefixTable::hashes_of(std::string(100 << 20, 'x')).size(), PrefixTable::kMaxRuns);
}

TEST(PrefixTable, OldRunsAreForgottenAndUsedOnesStay) {
  PrefixTable table(100);
  const auto kept = PrefixTable::hashes_of(std::string(kRun, 'k'));
  table.add(kept, 7);
  for (int i = 0; i < 5000; ++i) {
    table.add(PrefixTable::hashes_of(std::to_string(i) + std::string(kRun, 'x')), 1);
    ASSERT_EQ(table.find(kept).size(), 1U) << i;
    ASSERT_LE(table.num_runs(), 202U);
  }
  const auto first = PrefixTable::hashes_of("0" + std::string(kRun, 'x'));
  EXPECT_TRUE(table.find(first).empty());
}

TEST(PrefixTable, TheLastMembersOfARunAreKept) {
  PrefixTable table;
  const auto run = PrefixTable::hashes_of(std::string(kRun, 'r'));
  for (MemberId member = 1; member <= 6; ++member) table.add(run, member);
  table.add(run, 4);
  const auto matches = table.find(run);
  ASSERT_EQ(matches.size(), PrefixTable::kMembersPerRun);
  EXPECT_EQ(matches[0].member, 4U);
  for (const auto& match : matches) EXPECT_GE(match.member, 3U);
}

}  // namespace
}  // namespace sextant::fleet
