#include "engine/exec/forward_batch.h"

#include <algorithm>

#include "engine/base/check.h"

namespace sextant {

void ForwardBatch::build(const SchedulerOutput& step, int32_t block_size,
                         const std::function<SequenceView(size_t)>& sequence) {
  token_ids_.assign(step.token_ids.begin(), step.token_ids.end());
  positions_.clear();
  cu_seqlens_q_.assign(1, 0);
  seq_lens_.clear();
  slot_mapping_.clear();
  logits_indices_.clear();
  logits_rows_.clear();
  max_blocks_per_seq_ = 1;
  for (const ScheduledSequence& scheduled : step.sequences) {
    const int32_t length = scheduled.num_computed_tokens + scheduled.num_scheduled_tokens;
    max_blocks_per_seq_ = std::max(max_blocks_per_seq_, (length + block_size - 1) / block_size);
  }
  block_tables_.assign(step.sequences.size() * static_cast<size_t>(max_blocks_per_seq_), 0);

  for (size_t i = 0; i < step.sequences.size(); ++i) {
    const ScheduledSequence& scheduled = step.sequences[i];
    const SequenceView view = sequence(i);
    const int32_t first_row = cu_seqlens_q_.back();
    const int32_t length = scheduled.num_computed_tokens + scheduled.num_scheduled_tokens;
    const auto num_blocks = static_cast<size_t>((length + block_size - 1) / block_size);
    CHECK_EQ(scheduled.token_offset, first_row);
    CHECK_GE(view.block_table.size(), num_blocks) << "sequence " << scheduled.sequence_id;
    std::copy_n(view.block_table.begin(), num_blocks,
                block_tables_.begin() + static_cast<std::ptrdiff_t>(i * static_cast<size_t>(max_blocks_per_seq_)));

    LogitsRows rows{static_cast<int32_t>(i), static_cast<int32_t>(logits_indices_.size()), 0, scheduled.samples};
    for (int32_t j = 0; j < scheduled.num_scheduled_tokens; ++j) {
      const int32_t position = scheduled.num_computed_tokens + j;
      positions_.push_back(position);
      const BlockId block = view.block_table[static_cast<size_t>(position / block_size)];
      slot_mapping_.push_back(int64_t{block} * block_size + position % block_size);
      if (view.wants_prompt_logprobs && position + 1 < scheduled.num_prompt_tokens) {
        logits_indices_.push_back(first_row + j);
        ++rows.num_prompt_rows;
      }
    }
    if (scheduled.samples) logits_indices_.push_back(first_row + scheduled.num_scheduled_tokens - 1);
    if (rows.num_prompt_rows > 0 || rows.samples) logits_rows_.push_back(rows);
    cu_seqlens_q_.push_back(first_row + scheduled.num_scheduled_tokens);
    seq_lens_.push_back(length);
  }
  CHECK_EQ(cu_seqlens_q_.back(), static_cast<int32_t>(token_ids_.size()));
}

void ForwardBatch::build_null_prompt(int32_t num_tokens) {
  build_null_decodes(0);
  for (int32_t position = 0; position < num_tokens; ++position) positions_.push_back(position);
  token_ids_.assign(static_cast<size_t>(num_tokens), 0);
  slot_mapping_.assign(static_cast<size_t>(num_tokens), 0);
  cu_seqlens_q_.push_back(num_tokens);
  seq_lens_.push_back(num_tokens);
  logits_indices_.push_back(num_tokens - 1);
  max_blocks_per_seq_ = (num_tokens + 15) / 16;
  block_tables_.assign(static_cast<size_t>(max_blocks_per_seq_), 0);
}

void ForwardBatch::build_null_decodes(int32_t num_sequences) {
  SchedulerOutput nothing;
  build(nothing, 16, [](size_t) { return SequenceView{}; });
  pad(num_sequences);
}

void ForwardBatch::pad(int32_t num_sequences) {
  while (static_cast<int32_t>(seq_lens_.size()) < num_sequences) {
    logits_indices_.push_back(static_cast<int32_t>(token_ids_.size()));
    token_ids_.push_back(0);
    positions_.push_back(0);
    slot_mapping_.push_back(0);
    seq_lens_.push_back(1);
    cu_seqlens_q_.push_back(cu_seqlens_q_.back() + 1);
  }
  block_tables_.resize(seq_lens_.size() * static_cast<size_t>(max_blocks_per_seq_), 0);
}

AttentionBatch ForwardBatch::attention() const {
  return {cu_seqlens_q_, seq_lens_, positions_, slot_mapping_, block_tables_, max_blocks_per_seq_};
}

}  // namespace sextant
