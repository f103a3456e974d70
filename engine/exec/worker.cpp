#include "engine/exec/worker.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace sextant {
namespace {

ModelOutput empty_output(const SchedulerOutput& step) {
  ModelOutput output;
  output.step_id = step.step_id;
  output.sequences.resize(step.sequences.size());
  for (size_t i = 0; i < step.sequences.size(); ++i) output.sequences[i].sequence_id = step.sequences[i].sequence_id;
  return output;
}

}  // namespace

void Worker::apply_changes(const SchedulerOutput& step) {
  for (const SequenceId id : step.finished_sequences) sequences_.erase(id);
  for (const NewSequence& added : step.new_sequences) {
    sequences_.try_emplace(added.sequence_id, added.request, added.choice_idx);
  }
  scheduled_.clear();
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    const ScheduledSequence& scheduled = step.sequences[i];
    const auto found = sequences_.find(scheduled.sequence_id);
    CHECK(found != sequences_.end()) << "sequence " << scheduled.sequence_id << " was scheduled before it was new";
    SequenceState& state = found->second;
    if (scheduled.restarts_block_table) state.block_table.clear();
    const NewBlocks& blocks = step.new_blocks[0];
    state.block_table.insert(state.block_table.end(), blocks.block_ids.begin() + blocks.offsets[i],
                             blocks.block_ids.begin() + blocks.offsets[i + 1]);
    CHECK(!scheduled.last_token_on_device || backend_.samples()) << "the host samples: one step at a time";
    scheduled_.push_back(&state);
  }
}

void Worker::choose_tokens(const SchedulerOutput& step, int64_t first, Tensor logits, ModelOutput& output) {
  // Parallel over rows: each touches its own sequence. A sequence's prompt rows may be cut between calls; they are appended
  // in order because each sequence's rows are handled by one thread, in order.
  const std::vector<LogitsRows>& groups = batch_.logits_rows();
  const auto end = first + logits.rows;
  backend_.parallel_for(static_cast<int64_t>(groups.size()), 1, [&](int64_t group_begin, int64_t group_end) {
    for (int64_t g = group_begin; g < group_end; ++g) {
      const LogitsRows& group = groups[static_cast<size_t>(g)];
      const int64_t group_rows = group.num_prompt_rows + (group.samples ? 1 : 0);
      const int64_t row_begin = std::max<int64_t>(first, group.first_row);
      const int64_t row_end = std::min<int64_t>(end, group.first_row + group_rows);
      SequenceState& state = *scheduled_[static_cast<size_t>(group.sequence_idx)];
      const ScheduledSequence& scheduled = step.sequences[static_cast<size_t>(group.sequence_idx)];
      SequenceOutput& result = output.sequences[static_cast<size_t>(group.sequence_idx)];
      const SamplingParams& params = state.sampler.params();
      for (int64_t row = row_begin; row < row_end; ++row) {
        const std::span<float> values(logits.f32() + (row - first) * logits.row_stride,
                                      static_cast<size_t>(logits.cols));
        const auto idx = static_cast<int32_t>(row - group.first_row);
        if (idx < group.num_prompt_rows) {
          const int32_t position = scheduled.num_computed_tokens + idx;
          const int32_t next = state.sampler.request().prompt_token_ids[static_cast<size_t>(position) + 1];
          result.prompt_logprobs.push_back(position_logprobs(values, next, *params.prompt_logprobs));
          continue;
        }
        const int64_t length = scheduled.num_computed_tokens + scheduled.num_scheduled_tokens;
        const int64_t output_idx = length - scheduled.num_prompt_tokens;
        if (params.logprobs) {
          const std::vector<float> unchanged(values.begin(), values.end());
          const int32_t token = sampler_.sample(values, state.sampler, output_idx);
          result.logprobs.push_back(position_logprobs(unchanged, token, *params.logprobs));
          result.token_ids.push_back(token);
        } else {
          result.token_ids.push_back(sampler_.sample(values, state.sampler, output_idx));
        }
        state.sampler.append(result.token_ids.back());
      }
    }
  });
}

Status Worker::submit(std::shared_ptr<const SchedulerOutput> step) {
  apply_changes(*step);
  if (step->empty()) return ok_status();
  batch_.build(*step, block_size_, [&](size_t i) {
    const SamplerState& sampler = scheduled_[i]->sampler;
    return ForwardBatch::SequenceView{scheduled_[i]->block_table, sampler.request().prompt_token_ids,
                                      sampler.params().prompt_logprobs.has_value() && sampler.choice_idx() == 0};
  });
  return backend_.samples() ? enqueue(std::move(step)) : compute_and_sample(*step);
}

Status Worker::compute_and_sample(const SchedulerOutput& step) {
  ModelOutput output = empty_output(step);
  // Ranks without logits run the same steps; what was chosen they learn with the next one.
  RETURN_IF_ERROR(
      runner_->execute(batch_, [&](int64_t first, Tensor logits) { choose_tokens(step, first, logits, output); }));
  outputs_.push_back(std::move(output));
  return ok_status();
}

Status Worker::enqueue(std::shared_ptr<const SchedulerOutput> step) {
  sampling_.clear();
  previous_rows_.clear();
  previous_places_.clear();
  for (size_t i = 0; i < step->sequences.size(); ++i) {
    const ScheduledSequence& scheduled = step->sequences[i];
    if (!scheduled.last_token_on_device) continue;
    previous_rows_.push_back(scheduled_[i]->last_row);
    previous_places_.push_back(scheduled.token_offset + scheduled.num_scheduled_tokens - 1);
  }
  for (const LogitsRows& group : batch_.logits_rows()) {
    SequenceState& state = *scheduled_[static_cast<size_t>(group.sequence_idx)];
    const ScheduledSequence& scheduled = step->sequences[static_cast<size_t>(group.sequence_idx)];
    const SamplingParams& params = state.sampler.params();
    for (int32_t i = 0; i < group.num_prompt_rows && runner_->has_logits(); ++i) {
      const auto next = static_cast<size_t>(scheduled.num_computed_tokens + i + 1);
      append_prompt_row(state.sampler.request().prompt_token_ids[next], *params.prompt_logprobs, sampling_);
    }
    if (!group.samples) continue;
    if (!runner_->has_logits()) {
      state.last_row = group.first_row + group.num_prompt_rows;
      continue;
    }
    const int64_t length = scheduled.num_computed_tokens + scheduled.num_scheduled_tokens;
    const int32_t previous_row = scheduled.last_token_on_device ? state.last_row : -1;
    append_sample_row(state.sampler, length - scheduled.num_prompt_tokens, previous_row, sampler_.eos_token_ids(),
                      sampling_);
    state.last_row = group.first_row + group.num_prompt_rows;
  }
  // Rank 0 chooses for the ranks without logits.
  if (!runner_->has_logits()) sampling_.rows.assign(batch_.logits_indices().size(), greedy_row());
  sampled_steps_.push_back({std::move(step), batch_.logits_rows()});
  return runner_->enqueue(batch_, sampling_, previous_rows_, previous_places_);
}

Result<ModelOutput> Worker::collect_sampled() {
  CHECK(!sampled_steps_.empty()) << "no step was submitted";
  const SampledStep sampled = std::move(sampled_steps_.front());
  sampled_steps_.pop_front();
  ASSIGN_OR_RETURN(const SampledTokens tokens, backend_.collect_samples());
  ModelOutput output = empty_output(*sampled.step);
  if (!runner_->has_logits()) return output;
  for (const LogitsRows& group : sampled.rows) {
    SequenceOutput& result = output.sequences[static_cast<size_t>(group.sequence_idx)];
    const auto found = sequences_.find(result.sequence_id);
    if (found == sequences_.end()) continue;  // it ended since: what it gave is dropped
    SamplerState& state = found->second.sampler;
    const SamplingParams& params = state.params();
    auto row = static_cast<size_t>(group.first_row);
    for (int32_t i = 0; i < group.num_prompt_rows; ++i, ++row) {
      result.prompt_logprobs.push_back(logprobs_of(tokens, row, *params.prompt_logprobs));
    }
    if (!group.samples) continue;
    result.token_ids.push_back(tokens.token_ids[row]);
    if (params.logprobs) result.logprobs.push_back(logprobs_of(tokens, row, *params.logprobs));
    state.append(result.token_ids.back());
  }
  return output;
}

Result<ModelOutput> Worker::collect() {
  if (backend_.samples()) return collect_sampled();
  CHECK(!outputs_.empty()) << "no step was submitted";
  ModelOutput output = std::move(outputs_.front());
  outputs_.pop_front();
  return output;
}

}  // namespace sextant
