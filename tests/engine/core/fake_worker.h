// FakeWorker: executes SchedulerOutputs against a cache of slots that remember what was written to them, so
// that any mistake in tables, positions, sharing or order shows. Its model chooses the next token by hashing
// the whole history, read from the cache. Each token's history must be in the blocks that its table names,
// written by earlier steps.
#pragma once

#include <gtest/gtest.h>
#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/core/scheduler.h"

namespace sextant {

inline uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9E3779B97F4A7C15u + b + 0x632BE59BD9B4E019u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

inline constexpr int32_t kFakeVocabSize = 50;

// The token after a history that ends in `state`.
inline int32_t fake_next_token(uint64_t state, uint64_t seed, int32_t choice_idx) {
  return static_cast<int32_t>(mix(mix(state, seed), static_cast<uint64_t>(choice_idx)) % kFakeVocabSize);
}

struct FakeOutcome {
  std::vector<int32_t> token_ids;
  FinishReason reason = FinishReason::kLength;
};

// What a choice must come to when nothing disturbs it, computed in one go.
inline FakeOutcome fake_reference(const Request& request, int32_t choice_idx, int64_t max_model_len,
                                  const std::vector<int32_t>& eos_token_ids) {
  uint64_t state = 0;
  for (const int32_t token_id : request.prompt_token_ids) state = mix(state, static_cast<uint64_t>(token_id));
  const SamplingParams& sampling = request.sampling;
  const int64_t num_prompt = static_cast<int64_t>(request.prompt_token_ids.size());
  FakeOutcome outcome;
  while (true) {
    const int32_t token_id = fake_next_token(state, sampling.seed, choice_idx);
    outcome.token_ids.push_back(token_id);
    state = mix(state, static_cast<uint64_t>(token_id));
    const int64_t num_output = static_cast<int64_t>(outcome.token_ids.size());
    const bool stops = std::ranges::count(sampling.stop_token_ids, token_id) > 0 ||
                       (!sampling.ignore_eos && std::ranges::count(eos_token_ids, token_id) > 0);
    if (stops && num_output >= sampling.min_tokens) {
      outcome.reason = FinishReason::kStop;
      return outcome;
    }
    if (num_output >= sampling.max_tokens || num_prompt + num_output >= max_model_len) return outcome;
  }
}

class FakeWorker {
 public:
  FakeWorker(int32_t num_groups, int32_t num_blocks, int32_t block_size)
      : num_blocks_(num_blocks), block_size_(block_size), slots_(static_cast<size_t>(num_groups)) {
    for (auto& group : slots_) group.resize(static_cast<size_t>(num_blocks * block_size));
  }

  int num_known_sequences() const { return static_cast<int>(sequences_.size()); }
  int64_t num_tokens() const { return num_tokens_; }

  std::function<bool()> withholds;  // asked for each token: true keeps it back; may be empty

  // Steps must come in order; failures are reported to GoogleTest.
  ModelOutput execute(const SchedulerOutput& step) {
    EXPECT_GT(step.step_id, last_step_id_);
    last_step_id_ = step.step_id;
    take_in(step);
    // Reads before writes: what a step needs from the cache was written by steps before it.
    for (const ScheduledSequence& scheduled : step.sequences) {
      check_history(sequences_.at(scheduled.sequence_id), scheduled.num_computed_tokens);
    }
    std::vector<std::set<size_t>> written(slots_.size());
    for (const ScheduledSequence& scheduled : step.sequences) write(step, scheduled, written);
    // Nobody's history was overwritten by another sequence of the step.
    for (const ScheduledSequence& scheduled : step.sequences) {
      check_history(sequences_.at(scheduled.sequence_id),
                    scheduled.num_computed_tokens + scheduled.num_scheduled_tokens);
    }
    ModelOutput output;
    output.step_id = step.step_id;
    for (const ScheduledSequence& scheduled : step.sequences) output.sequences.push_back(sample(step, scheduled));
    return output;
  }

 private:
  struct Slot {
    int32_t position = -1;
    uint64_t state = 0;  // of the history up to and with this token
  };
  struct State {
    int32_t choice_idx = 0;
    std::shared_ptr<const Request> request;
    std::vector<std::vector<BlockId>> tables;
    std::vector<int32_t> token_ids;  // prompt and all sampled so far
    std::vector<uint64_t> states;    // of the history up to each token
    uint64_t last_sampled_step = 0;
    void append(int32_t token_id) {
      token_ids.push_back(token_id);
      states.push_back(mix(states.empty() ? 0 : states.back(), static_cast<uint64_t>(token_id)));
    }
  };

  void take_in(const SchedulerOutput& step) {
    for (const SequenceId sequence_id : step.finished_sequences) {
      EXPECT_EQ(sequences_.erase(sequence_id), 1u) << "told of the end of unknown sequence " << sequence_id;
      ended_.insert(sequence_id);
    }
    for (const NewSequence& added : step.new_sequences) {
      EXPECT_FALSE(ended_.contains(added.sequence_id));
      const auto [it, inserted] = sequences_.try_emplace(added.sequence_id);
      EXPECT_TRUE(inserted);
      it->second.choice_idx = added.choice_idx;
      it->second.request = added.request;
      it->second.tables.resize(slots_.size());
      for (const int32_t token_id : added.request->prompt_token_ids) it->second.append(token_id);
    }
    ASSERT_EQ(step.new_blocks.size(), slots_.size());
    std::set<SequenceId> seen;
    for (size_t i = 0; i < step.sequences.size(); ++i) {
      const ScheduledSequence& scheduled = step.sequences[i];
      EXPECT_TRUE(seen.insert(scheduled.sequence_id).second) << "twice in one step";
      ASSERT_TRUE(sequences_.contains(scheduled.sequence_id)) << "unknown sequence " << scheduled.sequence_id;
      State& sequence = sequences_.at(scheduled.sequence_id);
      for (size_t g = 0; g < slots_.size(); ++g) {
        const NewBlocks& added = step.new_blocks[g];
        ASSERT_EQ(added.offsets.size(), step.sequences.size() + 1);
        if (scheduled.restarts_block_table) sequence.tables[g].clear();
        sequence.tables[g].insert(sequence.tables[g].end(), added.block_ids.begin() + added.offsets[i],
                                  added.block_ids.begin() + added.offsets[i + 1]);
        const std::set<BlockId> distinct(sequence.tables[g].begin(), sequence.tables[g].end());
        EXPECT_EQ(distinct.size(), sequence.tables[g].size()) << "a block twice in one table";
        for (const BlockId block_id : distinct) ASSERT_TRUE(block_id > 0 && block_id < num_blocks_) << block_id;
      }
    }
  }

  size_t slot_idx(const State& sequence, size_t group, int32_t position) const {
    const size_t block_idx = static_cast<size_t>(position / block_size_);
    EXPECT_LT(block_idx, sequence.tables[group].size()) << "no block for position " << position;
    if (block_idx >= sequence.tables[group].size()) return 0;
    return static_cast<size_t>(sequence.tables[group][block_idx] * block_size_ + position % block_size_);
  }

  void check_history(const State& sequence, int32_t num_computed) const {
    for (size_t g = 0; g < slots_.size(); ++g) {
      for (int32_t position = 0; position < num_computed; ++position) {
        const Slot& slot = slots_[g][slot_idx(sequence, g, position)];
        ASSERT_EQ(slot.position, position) << "request " << sequence.request->request_id << " group " << g;
        ASSERT_EQ(slot.state, sequence.states[static_cast<size_t>(position)])
            << "request " << sequence.request->request_id << " position " << position;
      }
    }
  }

  void write(const SchedulerOutput& step, const ScheduledSequence& scheduled, std::vector<std::set<size_t>>& written) {
    State& sequence = sequences_.at(scheduled.sequence_id);
    ASSERT_GE(scheduled.num_scheduled_tokens, 1);
    EXPECT_EQ(scheduled.num_prompt_tokens, static_cast<int32_t>(sequence.request->prompt_token_ids.size()));
    const int32_t end = scheduled.num_computed_tokens + scheduled.num_scheduled_tokens;
    ASSERT_LE(end, static_cast<int32_t>(sequence.token_ids.size()));
    num_tokens_ += scheduled.num_scheduled_tokens;
    for (int32_t position = scheduled.num_computed_tokens; position < end; ++position) {
      const int32_t row = position - scheduled.num_computed_tokens;
      ASSERT_LT(scheduled.token_offset + row, step.num_tokens());
      const int32_t token_id = step.token_ids[static_cast<size_t>(scheduled.token_offset + row)];
      if (scheduled.last_token_on_device && position + 1 == end) {
        EXPECT_EQ(token_id, 0);
        EXPECT_EQ(sequence.last_sampled_step + 1, step.step_id) << "not chosen by the step before";
        EXPECT_EQ(end, static_cast<int32_t>(sequence.token_ids.size()));
      } else {
        EXPECT_EQ(token_id, sequence.token_ids[static_cast<size_t>(position)]) << "wrong token at " << position;
      }
      for (size_t g = 0; g < slots_.size(); ++g) {
        const size_t idx = slot_idx(sequence, g, position);
        EXPECT_TRUE(written[g].insert(idx).second) << "two tokens of one step in slot " << idx;
        slots_[g][idx] = {position, sequence.states[static_cast<size_t>(position)]};
      }
    }
  }

  SequenceOutput sample(const SchedulerOutput& step, const ScheduledSequence& scheduled) {
    State& sequence = sequences_.at(scheduled.sequence_id);
    const SamplingParams& sampling = sequence.request->sampling;
    const std::vector<int32_t>& prompt = sequence.request->prompt_token_ids;
    SequenceOutput output;
    output.sequence_id = scheduled.sequence_id;
    const int32_t end = scheduled.num_computed_tokens + scheduled.num_scheduled_tokens;
    if (sampling.prompt_logprobs && sequence.choice_idx == 0) {
      for (int32_t p = scheduled.num_computed_tokens; p < end && p + 1 < static_cast<int32_t>(prompt.size()); ++p) {
        output.prompt_logprobs.push_back({{prompt[static_cast<size_t>(p + 1)], static_cast<float>(p)}, 1, {}});
      }
    }
    EXPECT_EQ(scheduled.samples, end == static_cast<int32_t>(sequence.token_ids.size()));
    if (scheduled.samples && !(withholds && withholds())) {
      const uint64_t state = slots_[0][slot_idx(sequence, 0, end - 1)].state;
      const int32_t token_id = fake_next_token(state, sampling.seed, sequence.choice_idx);
      sequence.append(token_id);
      sequence.last_sampled_step = step.step_id;
      output.token_ids.push_back(token_id);
      if (sampling.logprobs) output.logprobs.push_back({{token_id, static_cast<float>(end)}, 1, {}});
    }
    return output;
  }

  int32_t num_blocks_;
  int32_t block_size_;
  std::vector<std::vector<Slot>> slots_;  // per group
  std::map<SequenceId, State> sequences_;
  std::set<SequenceId> ended_;
  uint64_t last_step_id_ = 0;
  int64_t num_tokens_ = 0;
};

}  // namespace sextant
