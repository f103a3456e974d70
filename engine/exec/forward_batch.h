// ForwardBatch: the flat device inputs of one step, built from a SchedulerOutput and the block tables that the worker keeps.
// Buffers keep their capacity from step to step. Thread: the worker's.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/core/scheduler_output.h"
#include "engine/device/backend.h"

namespace sextant {

// Rows of one sequence whose logits the step wants: the prompt rows first, when asked for, then the sampled one.
struct LogitsRows {
  int32_t sequence_idx = 0;     // in SchedulerOutput::sequences
  int32_t first_row = 0;        // in logits_indices
  int32_t num_prompt_rows = 0;  // each predicts a prompt token that is known
  bool samples = false;         // one more row, the last
};

class ForwardBatch {
 public:
  struct SequenceView {
    std::span<const BlockId> block_table;
    std::span<const int32_t> prompt_token_ids;
    bool wants_prompt_logprobs = false;
  };

  // `sequence(i)` describes step.sequences[i].
  void build(const SchedulerOutput& step, int32_t block_size, const std::function<SequenceView(size_t)>& sequence);

  // Steps over the null block alone, of nobody's tokens: a prompt whose last row's logits are wanted, or decodes.
  void build_null_prompt(int32_t num_tokens);
  void build_null_decodes(int32_t num_sequences);

  // Fills a step of one token per sequence up with rows of the null block, for a record of `num_sequences`.
  void pad(int32_t num_sequences);
  // Whether every sequence has one token, whose logits are wanted: what a backend may record.
  bool is_decode() const { return token_ids_.size() == seq_lens_.size() && logits_indices_.size() == seq_lens_.size(); }

  std::span<const int32_t> token_ids() const { return token_ids_; }
  std::span<const int32_t> logits_indices() const { return logits_indices_; }
  const std::vector<LogitsRows>& logits_rows() const { return logits_rows_; }
  AttentionBatch attention() const;
  StepInputs inputs() const {
    StepInputs inputs;
    inputs.token_ids = token_ids_;
    inputs.logits_indices = logits_indices_;
    inputs.attention = attention();
    return inputs;
  }

 private:
  std::vector<int32_t> token_ids_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> cu_seqlens_q_;
  std::vector<int32_t> seq_lens_;
  std::vector<int64_t> slot_mapping_;
  std::vector<int32_t> block_tables_;
  int32_t max_blocks_per_seq_ = 0;
  std::vector<int32_t> logits_indices_;
  std::vector<LogitsRows> logits_rows_;
};

}  // namespace sextant
