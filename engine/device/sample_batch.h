// What a backend that samples needs of a step, and what it gives back. Plain data; the meanings are kernels/cuda/sample.h's.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/sample.h"

namespace sextant {

using kernels::cuda::ListRange;
using kernels::cuda::SampleRow;
using kernels::cuda::TokenBias;
using kernels::cuda::TokenCount;

// Takes the most likely token, of a sequence without penalties.
inline SampleRow greedy_row() {
  SampleRow row = {};
  row.top_p = 1;
  row.repetition_penalty = 1;
  row.previous_row = -1;
  row.num_top_logprobs = -1;
  return row;
}

struct SampleBatch {
  std::vector<SampleRow> rows;  // one per logits index of the step
  std::vector<TokenBias> biases;
  std::vector<TokenCount> counts;
  std::vector<int32_t> masked_ids;
  std::vector<int32_t> allowed_ids;
  bool wants_logprobs = false;  // of some row

  void clear() {
    rows.clear();
    biases.clear();
    counts.clear();
    masked_ids.clear();
    allowed_ids.clear();
    wants_logprobs = false;
  }
};

// Of one step, by row; host memory, valid until the step after the next is submitted. Log-probabilities only where wanted.
struct SampledTokens {
  std::span<const int32_t> token_ids;
  std::span<const float> logprobs;      // of the chosen token, under the unchanged logits
  std::span<const int32_t> ranks;       // of the chosen token, 1 is the most likely
  std::span<const int32_t> top_ids;     // [rows, top_stride], most likely first
  std::span<const float> top_logprobs;  // [rows, top_stride]
  int32_t top_stride = 0;
};

}  // namespace sextant
