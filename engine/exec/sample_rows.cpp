#include "engine/exec/sample_rows.h"

#include <algorithm>

#include "engine/base/check.h"

namespace sextant {
namespace {

int32_t size32(size_t size) { return static_cast<int32_t>(size); }

ListRange append_counts(const SamplerState& state, SampleBatch& batch) {
  const int32_t begin = size32(batch.counts.size());
  const std::vector<int32_t>& prompt = state.prompt_tokens();  // ascending
  for (const int32_t id : prompt) {
    const auto found = state.output_counts().find(id);
    batch.counts.push_back({id, found == state.output_counts().end() ? 0 : found->second, 1});
  }
  for (const auto& [id, count] : state.output_counts()) {
    if (!std::binary_search(prompt.begin(), prompt.end(), id)) batch.counts.push_back({id, count, 0});
  }
  return {begin, size32(batch.counts.size()) - begin};
}

}  // namespace

void append_sample_row(const SamplerState& state, int64_t output_idx, int32_t previous_row,
                       std::span<const int32_t> eos_token_ids, SampleBatch& batch) {
  const SamplingParams& params = state.params();
  SampleRow row = greedy_row();
  row.seed = params.seed;
  row.output_idx = static_cast<uint64_t>(output_idx);
  row.choice_idx = static_cast<uint32_t>(state.choice_idx());
  row.temperature = params.greedy() ? 0.0f : params.temperature;
  row.top_k = params.top_k;
  row.top_p = params.top_p;
  row.min_p = params.min_p;
  row.repetition_penalty = params.repetition_penalty;
  row.presence_penalty = params.presence_penalty;
  row.frequency_penalty = params.frequency_penalty;
  row.previous_row = params.needs_penalties() ? previous_row : -1;
  row.num_top_logprobs = params.logprobs.value_or(-1);
  batch.wants_logprobs = batch.wants_logprobs || params.logprobs.has_value();

  row.biases.begin = size32(batch.biases.size());
  for (const auto& [id, bias] : params.logit_bias) batch.biases.push_back({id, bias});
  row.biases.count = size32(batch.biases.size()) - row.biases.begin;
  if (params.needs_penalties()) row.counts = append_counts(state, batch);

  row.masked.begin = size32(batch.masked_ids.size());
  if (output_idx < params.min_tokens) {
    if (!params.ignore_eos) batch.masked_ids.insert(batch.masked_ids.end(), eos_token_ids.begin(), eos_token_ids.end());
    batch.masked_ids.insert(batch.masked_ids.end(), params.stop_token_ids.begin(), params.stop_token_ids.end());
  }
  row.masked.count = size32(batch.masked_ids.size()) - row.masked.begin;

  row.allowed.begin = size32(batch.allowed_ids.size());
  batch.allowed_ids.insert(batch.allowed_ids.end(), params.allowed_token_ids.begin(), params.allowed_token_ids.end());
  const auto allowed = batch.allowed_ids.begin() + row.allowed.begin;
  std::sort(allowed, batch.allowed_ids.end());
  batch.allowed_ids.erase(std::unique(allowed, batch.allowed_ids.end()), batch.allowed_ids.end());
  row.allowed.count = size32(batch.allowed_ids.size()) - row.allowed.begin;
  batch.rows.push_back(row);
}

void append_prompt_row(int32_t next_token_id, int32_t num_top_logprobs, SampleBatch& batch) {
  SampleRow row = greedy_row();
  row.num_top_logprobs = num_top_logprobs;
  row.allowed = {size32(batch.allowed_ids.size()), 1};
  batch.allowed_ids.push_back(next_token_id);
  batch.wants_logprobs = true;
  batch.rows.push_back(row);
}

PositionLogprobs logprobs_of(const SampledTokens& sampled, size_t row, int32_t num_top) {
  CHECK_LE(num_top, sampled.top_stride);
  PositionLogprobs result;
  result.chosen = {sampled.token_ids[row], sampled.logprobs[row]};
  result.rank = sampled.ranks[row];
  const size_t first = row * static_cast<size_t>(sampled.top_stride);
  for (size_t i = first; i < first + static_cast<size_t>(num_top); ++i) {
    if (sampled.top_ids[i] >= 0) result.top.push_back({sampled.top_ids[i], sampled.top_logprobs[i]});
  }
  return result;
}

}  // namespace sextant
