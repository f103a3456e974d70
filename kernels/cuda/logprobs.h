// Log-probabilities of one token per row, its rank, and the most likely tokens.
//
//   logprob(i) = (x[i] - max) - log(sum over j of exp(x[j] - max)); rank = 1 + number of x[j] > x[chosen]
//   top: the num_top largest logits, larger first, ties lower id first
//
// logits [R, V] fp32, only read, row stride in elements, any stride and alignment; V from 1 to 262144. chosen [R] int32
// ids. Row r wants num_top[r * num_top_stride] top tokens: -1 leaves the row's outputs alone, 0 fills chosen_logprob
// and rank only, at most max_top. top_ids, top_logprobs [R, max_top]: entries past min(num_top, V) are left alone;
// max_top from 0 to 256.
// All in device memory. NaN counts as -infinity; with a +infinity the largest share all the mass, as they do when all
// logits are -infinity.
//
// One block of 512 threads per row. Passes over a row of 4 V bytes: 2, and with top tokens 2 more (a histogram of
// distances from the largest, then a gathering of what may belong, up to 2048 tokens, into shared memory), or up to 8
// more where thousands of logits lie as near to the largest as the last wanted one. Bound by memory, or in small
// batches by what one multiprocessor reads from L2.
// Numbers: exp in fp32 (2 units in the last place), summed exactly as whole multiples of 2^-45; logarithm and
// differences in fp64.
// Determinism: sums are exact, hence without an order; a row depends on itself alone. Shared memory 27 KB static.
#pragma once

#include <cstdint>

#include "kernels/cuda/types.h"

namespace sextant::kernels::cuda {

inline constexpr int32_t kMaxTopLogprobs = 256;

struct LogprobsArgs {
  const float* logits;
  int64_t logits_stride;
  int32_t num_rows;
  int32_t vocab_size;
  const int32_t* chosen;
  const int32_t* num_top;
  int64_t
      num_top_stride;  // elements: 1 for an array of its own, sizeof(SampleRow) / 4 for the field of sample.h's rows
  int32_t max_top;
  float* chosen_logprob;  // [R]
  int32_t* rank;          // [R]
  int32_t* top_ids;
  float* top_logprobs;
};
int token_logprobs(const LogprobsArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
