#include "engine/core/prefix_cache.h"

#include <gtest/gtest.h>
#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace sextant {
namespace {

using Tokens = std::vector<int32_t>;

PrefixRoot root_of(const std::vector<std::string>& parts) { return make_prefix_root(parts); }

class PrefixCacheTest : public ::testing::Test {
 protected:
  PrefixCache::Key key(const Tokens& token_ids, PrefixCache::EntryId parent = 0, BlockHash parent_hash = {}) const {
    return {hash_block(parent == 0 ? hash_root(root_) : parent_hash, token_ids), parent, root_, token_ids};
  }
  void check() const { EXPECT_TRUE(cache_.check_integrity().ok()) << cache_.check_integrity().message(); }

  PrefixRoot root_ = root_of({"model"});
  PrefixCache cache_{16, 4};
};

TEST(PrefixRootTest, SeparatesPartsAndTheirOrder) {
  const std::set<PrefixRoot> roots = {root_of({"a", "bc"}), root_of({"ab", "c"}), root_of({"abc", ""}),
                                      root_of({"", "abc"}), root_of({"bc", "a"}), root_of({"a", "bc", ""}),
                                      root_of({"1:a", ""}), root_of({"", "1:a"})};
  EXPECT_EQ(roots.size(), 8u);
  EXPECT_EQ(root_of({"a", "bc"}), root_of({"a", "bc"}));
}

TEST(BlockHashTest, EveryTokenItsPlaceAndTheParentMatter) {
  const Tokens tokens = {1, 2, 3, 4, 5};
  const BlockHash hash = hash_block({}, tokens);
  for (size_t i = 0; i < tokens.size(); ++i) {
    Tokens other = tokens;
    other[i] ^= 1;
    EXPECT_FALSE(hash_block({}, other) == hash);
  }
  EXPECT_FALSE(hash_block({}, Tokens{2, 1, 3, 4, 5}) == hash);
  EXPECT_FALSE(hash_block({0, 1}, tokens) == hash);
  EXPECT_FALSE(hash_block({1, 0}, tokens) == hash);
}

TEST(BlockHashTest, SpreadsOverBuckets) {
  // Consecutive token ids, as vocabularies give them: 4,096 blocks over 4,096 buckets leave about a third
  // empty.
  std::set<uint64_t> buckets;
  for (int32_t i = 0; i < 4096; ++i) buckets.insert(hash_block({}, Tokens{i, 0, 0, 0}).low & 4095);
  EXPECT_GT(buckets.size(), 2400u);
  EXPECT_LT(buckets.size(), 2780u);
}

TEST_F(PrefixCacheTest, FindsWhatWasPublishedUnderItsParentOnly) {
  const Tokens first = {1, 2, 3, 4};
  const Tokens second = {5, 6, 7, 8};
  EXPECT_EQ(cache_.find(key(first)), 0);
  const auto a = cache_.publish(3, key(first));
  EXPECT_EQ(cache_.find(key(first)), 3);
  const auto chained = key(second, a, key(first).hash);
  EXPECT_EQ(cache_.find(chained), 0);
  cache_.publish(5, chained);
  EXPECT_EQ(cache_.find(chained), 5);
  EXPECT_EQ(cache_.find(key(second)), 0) << "the same tokens at the beginning are another block";
  EXPECT_EQ(cache_.size(), 2);
  check();
}

TEST_F(PrefixCacheTest, EqualContentsKeepTheFirstBlock) {
  const Tokens tokens = {1, 2, 3, 4};
  const auto entry = cache_.publish(3, key(tokens));
  EXPECT_EQ(cache_.publish(4, key(tokens)), entry);
  EXPECT_FALSE(cache_.contains(4));
  EXPECT_EQ(cache_.find(key(tokens)), 3);
}

TEST_F(PrefixCacheTest, RemovedBlocksAreNotFoundAndTheirIdsComeBackDifferent) {
  const Tokens tokens = {1, 2, 3, 4};
  const auto first = cache_.publish(3, key(tokens));
  cache_.remove(3);
  cache_.remove(3);
  cache_.remove(9);
  EXPECT_EQ(cache_.find(key(tokens)), 0);
  EXPECT_NE(cache_.publish(4, key(tokens)), first);
  cache_.clear();
  EXPECT_EQ(cache_.size(), 0);
  EXPECT_EQ(cache_.find(key(tokens)), 0);
  check();
}

// A hash that collides, by chance or by design, must not yield another prompt's block.
TEST_F(PrefixCacheTest, ACollidingHashIsAMiss) {
  const Tokens tokens = {1, 2, 3, 4};
  const Tokens other = {9, 9, 9, 9};
  cache_.publish(3, key(tokens));
  PrefixCache::Key forged = key(tokens);
  forged.token_ids = other;
  EXPECT_EQ(cache_.find(forged), 0);
  PrefixCache::Key other_parent = key(tokens);
  other_parent.parent = 12345;
  EXPECT_EQ(cache_.find(other_parent), 0);
  PrefixCache::Key other_root = key(tokens);
  other_root.root = root_of({"another tenant"});
  EXPECT_EQ(cache_.find(other_root), 0);

  cache_.publish(4, forged);
  EXPECT_EQ(cache_.find(forged), 4);
  EXPECT_EQ(cache_.find(key(tokens)), 0) << "one entry per hash: the newer one";
  EXPECT_FALSE(cache_.contains(3));
  check();
}

TEST_F(PrefixCacheTest, SuccessorsOfAnEvictedBlockAreReplacedNotFound) {
  const Tokens first = {1, 2, 3, 4};
  const Tokens second = {5, 6, 7, 8};
  const BlockHash first_hash = key(first).hash;
  const auto old_parent = cache_.publish(1, key(first));
  cache_.publish(2, key(second, old_parent, first_hash));
  cache_.remove(1);
  const auto new_parent = cache_.publish(3, key(first));
  EXPECT_EQ(cache_.find(key(second, new_parent, first_hash)), 0);
  cache_.publish(4, key(second, new_parent, first_hash));
  EXPECT_EQ(cache_.find(key(second, new_parent, first_hash)), 4);
  EXPECT_FALSE(cache_.contains(2));
  check();
}

TEST_F(PrefixCacheTest, RandomUseAgreesWithAModel) {
  const uint64_t seed = 4242;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::vector<Tokens> contents(16);  // by block
  for (int i = 0; i < 20000; ++i) {
    const BlockId block_id = 1 + static_cast<BlockId>(random() % 15);
    const Tokens tokens = {static_cast<int32_t>(random() % 30), 0, 0, 0};
    const auto holder = std::find(contents.begin(), contents.end(), tokens);
    const BlockId expected = holder == contents.end() ? 0 : static_cast<BlockId>(holder - contents.begin());
    ASSERT_EQ(cache_.find(key(tokens)), expected);
    if (random() % 2 == 0) {
      cache_.remove(block_id);
      contents[static_cast<size_t>(block_id)].clear();
    } else if (contents[static_cast<size_t>(block_id)].empty()) {
      const auto entry = cache_.publish(block_id, key(tokens));
      if (expected == 0) contents[static_cast<size_t>(block_id)] = tokens;
      ASSERT_EQ(entry, cache_.entry_id(expected == 0 ? block_id : expected));
    }
    if (i % 100 == 0) check();
  }
}

}  // namespace
}  // namespace sextant
