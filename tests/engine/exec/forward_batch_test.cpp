#include "engine/exec/forward_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sextant {
namespace {

using testing::ElementsAre;

TEST(ForwardBatch, FlattensAMixOfPrefillChunkAndDecode) {
  SchedulerOutput step;
  step.token_ids = {10, 11, 12, 99};
  ScheduledSequence chunk;  // tokens 15, 16, 17 of a prompt of 20: crosses a block
  chunk.sequence_id = 1;
  chunk.num_computed_tokens = 15;
  chunk.num_scheduled_tokens = 3;
  chunk.num_prompt_tokens = 20;
  ScheduledSequence decode;
  decode.sequence_id = 2;
  decode.num_computed_tokens = 4;
  decode.num_scheduled_tokens = 1;
  decode.token_offset = 3;
  decode.num_prompt_tokens = 4;
  decode.samples = true;
  step.sequences = {chunk, decode};
  const std::vector<BlockId> first_table = {7, 3};
  const std::vector<BlockId> second_table = {5, 6, 8};  // longer than the step needs
  const std::vector<int32_t> prompt(20, 1);

  ForwardBatch batch;
  for (int repeat = 0; repeat < 2; ++repeat) {  // buffers are reused
    batch.build(step, 16, [&](size_t i) {
      return ForwardBatch::SequenceView{i == 0 ? first_table : second_table, prompt, false};
    });
    const AttentionBatch attention = batch.attention();
    EXPECT_THAT(batch.token_ids(), ElementsAre(10, 11, 12, 99));
    EXPECT_THAT(attention.positions, ElementsAre(15, 16, 17, 4));
    EXPECT_THAT(attention.cu_seqlens_q, ElementsAre(0, 3, 4));
    EXPECT_THAT(attention.seq_lens, ElementsAre(18, 5));
    EXPECT_THAT(attention.slot_mapping, ElementsAre(7 * 16 + 15, 3 * 16, 3 * 16 + 1, 5 * 16 + 4));
    EXPECT_EQ(attention.max_blocks_per_seq, 2);
    EXPECT_THAT(attention.block_tables, ElementsAre(7, 3, 5, 0));
    EXPECT_THAT(batch.logits_indices(), ElementsAre(3));
    ASSERT_EQ(batch.logits_rows().size(), 1u);
    EXPECT_EQ(batch.logits_rows()[0].sequence_idx, 1);
  }
}

TEST(ForwardBatch, PromptLogprobsWantTheRowsThatPredictPromptTokens) {
  SchedulerOutput step;
  step.token_ids = {1, 2, 3};
  ScheduledSequence last_chunk;  // tokens 2, 3, 4 of a prompt of 5: rows 2 and 3 predict tokens 3 and 4, row 4 samples
  last_chunk.num_computed_tokens = 2;
  last_chunk.num_scheduled_tokens = 3;
  last_chunk.num_prompt_tokens = 5;
  last_chunk.samples = true;
  step.sequences = {last_chunk};
  const std::vector<BlockId> table = {1};
  const std::vector<int32_t> prompt(5, 1);
  ForwardBatch batch;
  batch.build(step, 16, [&](size_t) { return ForwardBatch::SequenceView{table, prompt, true}; });
  EXPECT_THAT(batch.logits_indices(), ElementsAre(0, 1, 2));
  EXPECT_EQ(batch.logits_rows()[0].num_prompt_rows, 2);
  EXPECT_TRUE(batch.logits_rows()[0].samples);
}

}  // namespace
}  // namespace sextant
