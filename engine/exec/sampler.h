// Sampler: logits of one row to a token. Host code for devices whose logits the host can read.
// The order of the steps is vLLM's: logit_bias and allowed tokens, penalties, min_tokens; then greedy, or temperature, min_p,
// top_k, top_p, and one draw from what is left. The draw is Philox keyed by (seed, choice, index of the output token): it
// depends on nothing else in the batch.
// Threads: const functions of their arguments; a SamplerState is one sequence's and is used by one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/core/scheduler_output.h"

namespace sextant {

// What sampling remembers of one sequence: how often each token was put out and which the prompt holds.
class SamplerState {
 public:
  SamplerState(std::shared_ptr<const Request> request, int32_t choice_idx);

  const Request& request() const { return *request_; }
  const SamplingParams& params() const { return request_->sampling; }
  int32_t choice_idx() const { return choice_idx_; }

  // Counts a chosen token; kept only when penalties need it.
  void append(int32_t token_id);
  const std::unordered_map<int32_t, int32_t>& output_counts() const { return output_counts_; }
  const std::vector<int32_t>& prompt_tokens() const { return prompt_tokens_; }

 private:
  std::shared_ptr<const Request> request_;
  int32_t choice_idx_;
  std::vector<int32_t> prompt_tokens_;  // distinct, ascending; only with repetition_penalty
  std::unordered_map<int32_t, int32_t> output_counts_;
};

class Sampler {
 public:
  // The ids that min_tokens keeps away beside a request's own stop_token_ids.
  explicit Sampler(std::vector<int32_t> eos_token_ids) : eos_token_ids_(std::move(eos_token_ids)) {}

  std::span<const int32_t> eos_token_ids() const { return eos_token_ids_; }

  // Chooses output token number `output_idx` of the sequence. `logits` [vocab_size] is changed in place.
  int32_t sample(std::span<float> logits, const SamplerState& state, int64_t output_idx) const;

 private:
  std::vector<int32_t> eos_token_ids_;
};

// Log-probabilities of the unchanged logits: of `chosen`, its rank, and the `num_top` most likely tokens.
PositionLogprobs position_logprobs(std::span<const float> logits, int32_t chosen, int32_t num_top);

}  // namespace sextant
