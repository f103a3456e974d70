#include "engine/core/block_table.h"

#include <gtest/gtest.h>

namespace sextant {
namespace {

TEST(BlockTable, GrowsAtTheEndAndClears) {
  BlockTable table;
  EXPECT_EQ(table.size(), 0);
  table.append(7);
  table.append(3);
  EXPECT_EQ(table.size(), 2);
  EXPECT_EQ(table[0], 7);
  EXPECT_EQ(table.block_ids().back(), 3);
  table.clear();
  EXPECT_TRUE(table.block_ids().empty());
}

}  // namespace
}  // namespace sextant
