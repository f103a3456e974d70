#include "engine/core/kv_cache_manager.h"

#include <gtest/gtest.h>
#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

namespace sextant {
namespace {

using Tokens = std::vector<int32_t>;

constexpr int32_t kBlockSize = 4;

KvCacheManager::Options make_options(int32_t num_blocks, int32_t num_groups = 1, bool enable_prefix_caching = true) {
  KvCacheManager::Options options;
  options.spec.block_size = kBlockSize;
  options.spec.groups.resize(static_cast<size_t>(num_groups));
  options.num_blocks = num_blocks;
  options.enable_prefix_caching = enable_prefix_caching;
  return options;
}

PrefixRoot root_of(const std::string& text) {
  const std::string parts[] = {text};
  return make_prefix_root(parts);
}

Tokens counting(int32_t num_tokens, int32_t first = 0) {
  Tokens tokens(static_cast<size_t>(num_tokens));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

class KvCacheManagerTest : public ::testing::TestWithParam<int32_t> {
 protected:
  // A sequence with all blocks of `tokens` allocated and published.
  SequenceBlocks computed(const PrefixTokens& tokens) {
    SequenceBlocks blocks = manager_.make_sequence_blocks();
    const int32_t num_tokens = static_cast<int32_t>(tokens.prompt.size() + tokens.output.size());
    EXPECT_TRUE(manager_.allocate(blocks, num_tokens));
    manager_.publish(blocks, tokens, num_tokens / kBlockSize);
    return blocks;
  }
  int32_t matched(const PrefixTokens& tokens, int32_t max_blocks = 100) {
    SequenceBlocks blocks = manager_.make_sequence_blocks();
    const int32_t num_full = static_cast<int32_t>(tokens.prompt.size() + tokens.output.size()) / kBlockSize;
    return manager_.find_prefix(blocks, tokens, std::min(max_blocks, num_full)).num_blocks;
  }
  void check(std::vector<const SequenceBlocks*> holders) {
    const Status status = manager_.check_integrity(holders);
    EXPECT_TRUE(status.ok()) << status.message();
  }

  KvCacheManager manager_{make_options(11, GetParam())};
  PrefixRoot root_ = root_of("model");
};

TEST_P(KvCacheManagerTest, AllocatesWholeBlocksOrNothing) {
  SequenceBlocks blocks = manager_.make_sequence_blocks();
  EXPECT_EQ(manager_.num_total_blocks(), 10);
  EXPECT_TRUE(manager_.allocate(blocks, 1));
  EXPECT_EQ(blocks.num_blocks, 1);
  EXPECT_TRUE(manager_.allocate(blocks, 4));
  EXPECT_EQ(blocks.num_blocks, 1) << "there was room";
  EXPECT_TRUE(manager_.allocate(blocks, 33));
  EXPECT_EQ(blocks.num_blocks, 9);
  EXPECT_FALSE(manager_.allocate(blocks, 41));
  EXPECT_EQ(blocks.num_blocks, 9);
  EXPECT_EQ(manager_.num_free_blocks(), 1);
  check({&blocks});
  manager_.free(blocks);
  EXPECT_EQ(manager_.num_free_blocks(), 10);
  check({&blocks});
}

TEST_P(KvCacheManagerTest, FindsTheLongestPublishedBeginning) {
  const Tokens tokens = counting(18);
  SequenceBlocks first = computed({root_, tokens, {}});
  EXPECT_EQ(matched({root_, tokens, {}}), 4) << "18 tokens are 4 full blocks";
  EXPECT_EQ(matched({root_, tokens, {}}, 3), 3);
  Tokens other = tokens;
  other[9] = 1000;
  EXPECT_EQ(matched({root_, other, {}}), 2);
  other[0] = 1000;
  EXPECT_EQ(matched({root_, other, {}}), 0);
  EXPECT_EQ(matched({root_of("another model"), tokens, {}}), 0);
  EXPECT_EQ(matched({root_, std::span(tokens).subspan(4), {}}), 0) << "the same blocks at other positions";
  check({&first});
}

TEST_P(KvCacheManagerTest, WhereThePromptEndsDoesNotMatter) {
  const Tokens tokens = counting(16);
  const std::span<const int32_t> all(tokens);
  SequenceBlocks first = computed({root_, all.first(6), all.subspan(6)});
  for (size_t split = 0; split <= tokens.size(); ++split) {
    EXPECT_EQ(matched({root_, all.first(split), all.subspan(split)}), 4) << split;
  }
}

TEST_P(KvCacheManagerTest, TakenBlocksAreSharedAndSurviveTheirFirstHolder) {
  const Tokens tokens = counting(12);
  SequenceBlocks first = computed({root_, tokens, {}});
  SequenceBlocks second = manager_.make_sequence_blocks();
  const PrefixMatch match = manager_.find_prefix(second, {root_, tokens, {}}, 2);
  EXPECT_EQ(match.num_free, 0) << "the first sequence holds them";
  manager_.take(second, match);
  for (size_t g = 0; g < second.tables.size(); ++g) {
    EXPECT_EQ(second.tables[g][0], first.tables[g][0]);
    EXPECT_EQ(second.tables[g][1], first.tables[g][1]);
  }
  EXPECT_EQ(manager_.num_free_blocks(), 7);
  check({&first, &second});
  manager_.free(first);
  EXPECT_EQ(manager_.num_free_blocks(), 8);
  check({&first, &second});
  manager_.free(second);
  EXPECT_EQ(manager_.num_free_blocks(), 10);
  EXPECT_EQ(matched({root_, tokens, {}}), 3) << "contents stay after everybody left";
}

TEST_P(KvCacheManagerTest, FreedContentsAreFoundUntilTheirBlocksAreNeeded) {
  const Tokens tokens = counting(16);
  SequenceBlocks first = computed({root_, tokens, {}});
  manager_.free(first);
  SequenceBlocks probe = manager_.make_sequence_blocks();
  EXPECT_EQ(manager_.find_prefix(probe, {root_, tokens, {}}, 4).num_free, 4);
  // 6 blocks never held anything: they go first. Then the chain is eaten from its end.
  SequenceBlocks second = manager_.make_sequence_blocks();
  for (int32_t num_blocks = 1; num_blocks <= 10; ++num_blocks) {
    ASSERT_TRUE(manager_.allocate(second, num_blocks * kBlockSize));
    EXPECT_EQ(matched({root_, tokens, {}}), num_blocks <= 6 ? 4 : 10 - num_blocks);
  }
  check({&first, &second});
}

TEST_P(KvCacheManagerTest, EqualPromptsComputedAtOnceAreFoundOnce) {
  const Tokens tokens = counting(8);
  SequenceBlocks first = computed({root_, tokens, {}});
  SequenceBlocks second = computed({root_, tokens, {}});
  EXPECT_NE(first.tables[0][0], second.tables[0][0]);
  EXPECT_EQ(second.num_published, 2);
  SequenceBlocks third = manager_.make_sequence_blocks();
  manager_.take(third, manager_.find_prefix(third, {root_, tokens, {}}, 2));
  EXPECT_EQ(third.tables[0][1], first.tables[0][1]);
  // What the second adds is found behind the blocks of the first.
  const Tokens longer = counting(12);
  ASSERT_TRUE(manager_.allocate(second, 12));
  manager_.publish(second, {root_, longer, {}}, 3);
  EXPECT_EQ(matched({root_, longer, {}}), 3);
  check({&first, &second, &third});
}

TEST_P(KvCacheManagerTest, ForkSharesByReferenceAndPublishesOn) {
  const Tokens tokens = counting(10);
  SequenceBlocks leader = computed({root_, tokens, {}});
  SequenceBlocks sibling = manager_.make_sequence_blocks();
  manager_.fork(leader, 2, sibling);
  EXPECT_EQ(manager_.num_free_blocks(), 7) << "3 blocks of the leader, none more";
  EXPECT_EQ(sibling.tables[0][1], leader.tables[0][1]);
  ASSERT_TRUE(manager_.allocate(sibling, 12));
  EXPECT_NE(sibling.tables[0][2], leader.tables[0][2]) << "the partial tail is the sibling's own";
  const Tokens output = {77, 78};
  manager_.publish(sibling, {root_, tokens, output}, 3);
  EXPECT_EQ(matched({root_, tokens, output}), 3);
  check({&leader, &sibling});
  manager_.free(leader);
  check({&leader, &sibling});
  EXPECT_EQ(manager_.num_free_blocks(), 7);
}

TEST_P(KvCacheManagerTest, AForkOfFewerBlocksThanWerePublishedStartsItsChainOver) {
  const Tokens tokens = counting(12);
  SequenceBlocks leader = computed({root_, tokens, {}});
  SequenceBlocks sibling = manager_.make_sequence_blocks();
  manager_.fork(leader, 2, sibling);
  ASSERT_TRUE(manager_.allocate(sibling, 12));
  manager_.publish(sibling, {root_, tokens, {}}, 3);
  EXPECT_EQ(sibling.num_published, 3);
  EXPECT_EQ(matched({root_, tokens, {}}), 3);
  check({&leader, &sibling});
}

TEST_P(KvCacheManagerTest, DetachedBlocksStayHeldUntilFreed) {
  const Tokens tokens = counting(12);
  SequenceBlocks blocks = computed({root_, tokens, {}});
  SequenceBlocks detached = manager_.detach(blocks);
  EXPECT_EQ(blocks.num_blocks, 0);
  EXPECT_EQ(manager_.num_free_blocks(), 7);
  check({&blocks, &detached});
  ASSERT_TRUE(manager_.allocate(blocks, 4));
  manager_.free(detached);
  check({&blocks, &detached});
}

TEST_P(KvCacheManagerTest, ResetForgetsContentsButNotHolders) {
  const Tokens tokens = counting(12);
  SequenceBlocks blocks = computed({root_, tokens, {}});
  manager_.reset_prefix_cache();
  EXPECT_EQ(matched({root_, tokens, {}}), 0);
  EXPECT_EQ(manager_.num_free_blocks(), 7);
  check({&blocks});
}

TEST_P(KvCacheManagerTest, IntegrityMissesNoHolder) {
  SequenceBlocks blocks = manager_.make_sequence_blocks();
  ASSERT_TRUE(manager_.allocate(blocks, 8));
  EXPECT_FALSE(manager_.check_integrity({}).ok());
  const SequenceBlocks* twice[] = {&blocks, &blocks};
  EXPECT_FALSE(manager_.check_integrity(twice).ok());
}

INSTANTIATE_TEST_SUITE_P(Groups, KvCacheManagerTest, ::testing::Values(1, 3));

TEST(KvCacheManager, WithoutPrefixCachingNothingIsFoundAndForksStillShare) {
  KvCacheManager manager(make_options(11, 1, false));
  const Tokens tokens = counting(12);
  SequenceBlocks first = manager.make_sequence_blocks();
  ASSERT_TRUE(manager.allocate(first, 12));
  manager.publish(first, {{}, tokens, {}}, 3);
  SequenceBlocks second = manager.make_sequence_blocks();
  EXPECT_EQ(manager.find_prefix(second, {{}, tokens, {}}, 3).num_blocks, 0);
  manager.fork(first, 2, second);
  EXPECT_EQ(manager.num_free_blocks(), 7);
  const SequenceBlocks* holders[] = {&first, &second};
  EXPECT_TRUE(manager.check_integrity(holders).ok());
}

}  // namespace
}  // namespace sextant
