#include "engine/core/request_queue.h"

#include <gtest/gtest.h>
#include <vector>

namespace sextant {
namespace {

Sequence make_sequence(SequenceId sequence_id, int32_t priority, int64_t arrival_ns) {
  Sequence sequence;
  sequence.sequence_id = sequence_id;
  sequence.precedence = {priority, 0, arrival_ns, sequence_id};
  return sequence;
}

TEST(RequestQueue, OrdersByPriorityThenArrivalThenId) {
  std::vector<Sequence> sequences = {make_sequence(1, 1, 10), make_sequence(2, 0, 30), make_sequence(3, 0, 20),
                                     make_sequence(4, 0, 20), make_sequence(5, -1, 40)};
  RequestQueue queue;
  for (Sequence& sequence : sequences) queue.push(sequence);
  std::vector<SequenceId> order;
  while (!queue.empty()) {
    order.push_back(queue.front().sequence_id);
    queue.remove(queue.front());
  }
  EXPECT_EQ(order, (std::vector<SequenceId>{5, 3, 4, 2, 1}));
}

TEST(RequestQueue, APreemptedOneComesBackBeforeLaterArrivals) {
  std::vector<Sequence> sequences = {make_sequence(1, 0, 10), make_sequence(2, 0, 20), make_sequence(3, 0, 30)};
  RequestQueue queue;
  queue.push(sequences[2]);
  queue.push(sequences[1]);
  queue.push(sequences[0]);
  EXPECT_EQ(queue.front().sequence_id, 1u);
  EXPECT_TRUE(queue.contains(sequences[2]));
  queue.remove(sequences[0]);
  EXPECT_FALSE(queue.contains(sequences[0]));
  EXPECT_EQ(queue.size(), 2u);
}

TEST(RequestQueue, LastHolderIsTheLastInOrderThatHasBlocks) {
  std::vector<Sequence> sequences = {make_sequence(1, 0, 10), make_sequence(2, 0, 20), make_sequence(3, 0, 30)};
  RequestQueue queue;
  for (Sequence& sequence : sequences) queue.push(sequence);
  EXPECT_EQ(queue.last_holder(), nullptr);
  sequences[0].blocks.num_blocks = 1;
  sequences[1].blocks.num_blocks = 2;
  EXPECT_EQ(queue.last_holder(), &sequences[1]);
}

TEST(RequestQueueDeathTest, QueueingTwiceIsOurBug) {
  Sequence sequence = make_sequence(1, 0, 0);
  RequestQueue queue;
  queue.push(sequence);
  EXPECT_DEATH(queue.push(sequence), "queued twice");
  queue.remove(sequence);
  EXPECT_DEATH(queue.remove(sequence), "not queued");
}

}  // namespace
}  // namespace sextant
