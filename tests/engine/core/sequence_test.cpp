#include "engine/core/sequence.h"

#include <gtest/gtest.h>
#include <vector>

namespace sextant {
namespace {

TEST(Precedence, LowerPriorityNumberThenEarlierArrivalThenLowerId) {
  EXPECT_LT((Precedence{0, 9, 9}), (Precedence{1, 1, 1}));
  EXPECT_LT((Precedence{1, 1, 9}), (Precedence{1, 2, 1}));
  EXPECT_LT((Precedence{1, 1, 1}), (Precedence{1, 1, 2}));
}

TEST(Sequence, CountsKnownAndPendingTokens) {
  const std::vector<int32_t> prompt(10);
  Sequence sequence;
  sequence.prompt = prompt;
  sequence.max_output_tokens = 3;
  EXPECT_EQ(sequence.num_schedulable(1), 10);
  sequence.num_computed = 6;
  EXPECT_EQ(sequence.num_schedulable(2), 4);
  // Step 2 computed the rest and chose a token that the host does not know yet.
  sequence.num_computed = 10;
  sequence.num_pending = 1;
  sequence.last_sampled_step = 2;
  EXPECT_EQ(sequence.num_known(), 10);
  EXPECT_EQ(sequence.num_tokens(), 11);
  EXPECT_EQ(sequence.num_schedulable(3), 1) << "from the step just before: on the device";
  EXPECT_EQ(sequence.num_schedulable(4), 0) << "from an older one: only once the host knows it";
  sequence.output.push_back(5);
  sequence.num_pending = 0;
  EXPECT_EQ(sequence.num_schedulable(4), 1);
}

TEST(Sequence, NothingIsComputedBeyondTheLastTokenItMayHave) {
  const std::vector<int32_t> prompt(10);
  Sequence sequence;
  sequence.prompt = prompt;
  sequence.max_output_tokens = 2;
  sequence.output = {1};
  sequence.num_computed = 11;
  sequence.num_pending = 1;
  sequence.last_sampled_step = 7;
  EXPECT_TRUE(sequence.at_limit());
  EXPECT_EQ(sequence.num_schedulable(8), 0);
}

}  // namespace
}  // namespace sextant
