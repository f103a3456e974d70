#include "engine/core/block_pool.h"

#include <gtest/gtest.h>
#include <algorithm>
#include <random>
#include <vector>

namespace sextant {
namespace {

TEST(BlockPool, GivesOutEveryBlockOnceButNeverTheNullBlock) {
  BlockPool pool(5);
  EXPECT_EQ(pool.num_total(), 4);
  std::vector<BlockId> given;
  for (int i = 0; i < 4; ++i) given.push_back(pool.allocate());
  EXPECT_EQ(pool.allocate(), kNullBlock);
  EXPECT_EQ(pool.num_free(), 0);
  std::ranges::sort(given);
  EXPECT_EQ(given, (std::vector<BlockId>{1, 2, 3, 4}));
}

TEST(BlockPool, KeptContentsAreReusedLeastRecentlyFreedFirst) {
  BlockPool pool(4);
  const BlockId a = pool.allocate();
  const BlockId b = pool.allocate();
  const BlockId c = pool.allocate();
  EXPECT_TRUE(pool.release(b, true));
  EXPECT_TRUE(pool.release(c, true));
  EXPECT_TRUE(pool.release(a, true));
  EXPECT_EQ(pool.allocate(), b);
  EXPECT_EQ(pool.allocate(), c);
  EXPECT_EQ(pool.allocate(), a);
}

TEST(BlockPool, BlocksWithoutContentsAreReusedBeforeKeptOnes) {
  BlockPool pool(4);
  const BlockId a = pool.allocate();
  const BlockId b = pool.allocate();
  const BlockId c = pool.allocate();
  pool.release(a, true);
  pool.release(b, false);
  pool.release(c, true);
  EXPECT_EQ(pool.allocate(), b);
}

TEST(BlockPool, ReferencesAreCounted) {
  BlockPool pool(3);
  const BlockId a = pool.allocate();
  pool.acquire(a);
  EXPECT_EQ(pool.num_references(a), 2);
  EXPECT_FALSE(pool.release(a, true));
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_TRUE(pool.release(a, true));
  EXPECT_EQ(pool.num_free(), 2);
}

TEST(BlockPool, AcquireTakesAFreeBlockOutOfTheMiddleOfTheList) {
  BlockPool pool(5);
  pool.acquire(2);
  EXPECT_EQ(pool.num_free(), 3);
  EXPECT_EQ(pool.allocate(), 1);
  EXPECT_EQ(pool.allocate(), 3);
  EXPECT_EQ(pool.allocate(), 4);
  EXPECT_EQ(pool.allocate(), kNullBlock);
}

TEST(BlockPool, IntegrityNamesTheBlockThatIsCountedWrongly) {
  BlockPool pool(4);
  const BlockId a = pool.allocate();
  std::vector<int32_t> counts(4);
  EXPECT_FALSE(pool.check_integrity(counts).ok());
  EXPECT_NE(pool.check_integrity(counts).message().find("block " + std::to_string(a)), std::string::npos);
  counts[static_cast<size_t>(a)] = 1;
  EXPECT_TRUE(pool.check_integrity(counts).ok()) << pool.check_integrity(counts).message();
  EXPECT_FALSE(pool.check_integrity(std::vector<int32_t>(3)).ok());
}

TEST(BlockPoolDeathTest, FreeingTwiceAndUnknownIdsAreOurBugs) {
  BlockPool pool(3);
  const BlockId a = pool.allocate();
  pool.release(a, false);
  EXPECT_DEATH(pool.release(a, false), "freed twice");
  EXPECT_DEATH(pool.acquire(kNullBlock), "block 0");
  EXPECT_DEATH(pool.acquire(3), "block 3");
}

TEST(BlockPool, RandomUseAgreesWithAModel) {
  const uint64_t seed = 77;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  BlockPool pool(20);
  std::vector<int32_t> counts(20);
  for (int i = 0; i < 20000; ++i) {
    const BlockId block_id = 1 + static_cast<BlockId>(random() % 19);
    int32_t& count = counts[static_cast<size_t>(block_id)];
    switch (random() % 3) {
      case 0: {
        const BlockId allocated = pool.allocate();
        const bool any_free = std::count(counts.begin() + 1, counts.end(), 0) > 0;
        ASSERT_EQ(allocated != kNullBlock, any_free);
        if (allocated == kNullBlock) break;
        ASSERT_EQ(counts[static_cast<size_t>(allocated)], 0);
        counts[static_cast<size_t>(allocated)] = 1;
        break;
      }
      case 1:
        pool.acquire(block_id);
        ++count;
        break;
      default:
        if (count > 0) {
          ASSERT_EQ(pool.release(block_id, random() % 2 == 0), --count == 0);
        }
    }
    if (i % 50 == 0) {
      ASSERT_TRUE(pool.check_integrity(counts).ok()) << pool.check_integrity(counts).message();
    }
  }
}

}  // namespace
}  // namespace sextant
