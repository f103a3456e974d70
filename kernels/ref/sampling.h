// The definition of sampling, in fp64 and full sorts (the op's contract: kernels/cuda/sample.h). Beside each choice it
// says whether fp32 arithmetic must agree: how far rounding may move a probability is derived, and a choice that hangs
// on less than that is not certain.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace sextant::kernels::ref {

struct SamplingProblem {
  float temperature = 1.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  std::vector<std::pair<int32_t, float>> biases;
  std::vector<int32_t> allowed;  // empty: all
  std::vector<int32_t> masked;
  std::vector<int32_t> prompt_tokens;
  std::vector<int32_t> output_tokens;
};

// Steps before the choice; each operation is one fp32 operation, so there is one right answer.
std::vector<float> edited_logits(std::span<const float> logits, const SamplingProblem& problem);

struct SamplingChoice {
  int32_t token;
  bool certain;
};
SamplingChoice choose_token(std::span<const float> edited, const SamplingProblem& problem, double uniform);

// Probability of each token after all cuts.
std::vector<double> sampling_probabilities(std::span<const float> edited, const SamplingProblem& problem);

// NaN counts as -infinity.
struct RowLogprobs {
  double chosen;
  int32_t rank;
  std::vector<int32_t> top_ids;
  std::vector<double> top;
  double log_total_error;  // what fp32 exponentials of fp32 differences may change of each of these
};
RowLogprobs row_logprobs(std::span<const float> logits, int32_t chosen, int32_t num_top);

}  // namespace sextant::kernels::ref
