// Chooses one token per row of logits, on the device: what engine/exec/sampler chooses on the host.
//
//   1. allowed: with a list, only those tokens take part.  2. logits[id] += bias.
//   3. penalties: of a token in the prompt or the output, x = x > 0 ? x / repetition : x * repetition; of one that was
//      put out `count` times, x -= frequency * count + presence.  4. masked ids become -infinity.
//   5. temperature 0: the lowest id of the largest logit. Else p[i] = exp((x[i] - max) / temperature), and p[i] is 0
//      below min_p, below the top_k-th largest logit (ties stay), and below the least probability of the smallest set
//      of most likely tokens whose mass reaches top_p of the rest (ties stay). The token is the first, in order of ids,
//      whose cumulated mass exceeds u * total, u = philox_uniform(seed, choice_idx, output_idx).
//   NaN and -infinity never win; where there is nothing else the token is 0. The first +infinity wins at once.
//
// logits [R, V] fp32, row stride in elements, any stride and alignment (128-bit loads from each row's first aligned
// element on); edited during the call, bit for bit as before after it. V from 1 to 262144. rows [R], the lists and
// previous_tokens in device memory; tokens [R] int32 overlaps none of them. Ids of one row's list differ from one
// another (masked ones may repeat), are inside the vocabulary, and allowed ids ascend. top_p in (0, 1], min_p in
// [0, 1], repetition > 0; top_k <= 0: all.
// Overlapped steps: previous_row >= 0 says that the sequence's newest output token is previous_tokens[previous_row],
// known on the device only and not yet in the row's counts; it is counted as one more occurrence.
//
// Numbers: steps 1 to 4 are single fp32 operations, equal to the host's bit for bit; so is every order of logits, hence
// greedy and top_k. Probabilities are fp32 (a fixed recipe of fused operations, 2 units in the last place; 0 below
// 2^-45). Their sums are exact: each is cut to a multiple of 2^-45 and added in 64-bit integers.
// Determinism: so no sum has an order: the result depends on the row alone, and is the same on every GPU and under the
// emulator. It differs from the host's only where u * total or top_p * total falls within the rounding of exp (2^-17 of
// the total) of a boundary, or p[i] within it of min_p.
//
// One block of 512 threads per row, each of its 16 warps over one run of ids; no other block is waited for, nothing is
// sorted. Passes over a row of 4 V bytes (from L2 after the first): 1 greedy, 2 with temperature, 4 with top_k or top_p
// or both: a histogram in shared memory finds the bin where the threshold lies, the next pass gathers what is above its
// lower edge into shared memory (up to 4096 logits), where it is found to the last bit. Where more lie above, further
// histogram passes over the row (two for top_p, three for top_k) take the place of the gathering. About 30 operations
// per element and pass: bound by memory or, in small batches, by what one multiprocessor reads from L2 (at 64 bytes a
// clock 5 microseconds per pass of 128k logits). Shared memory 41 KB static, 64 registers: two blocks per
// multiprocessor. Nothing is synchronised with the host: fit for graphs.
// Source: Holtzman et al., The Curious Case of Neural Text Degeneration, 2020 (top-p); Keskar et al., CTRL, 2019
// (repetition).
#pragma once

#include <cstdint>

#include "kernels/cuda/types.h"

namespace sextant::kernels::cuda {

inline constexpr int32_t kMaxSampleVocab = 1 << 18;

struct TokenBias {
  int32_t token_id;
  float bias;
};
struct TokenCount {
  int32_t token_id;
  int32_t output_count;  // occurrences in the output, the one of previous_row not among them
  int32_t in_prompt;     // 0 or 1
};
// Entries [begin, begin + count) of one of the lists that all rows share.
struct ListRange {
  int32_t begin;
  int32_t count;
};

struct SampleRow {
  uint64_t seed;
  uint64_t output_idx;
  uint32_t choice_idx;
  float temperature;
  int32_t top_k;
  float top_p;
  float min_p;
  float repetition_penalty;  // 1: none
  float presence_penalty;
  float frequency_penalty;
  int32_t previous_row;      // -1: none
  int32_t num_top_logprobs;  // -1: no log-probabilities; read by token_logprobs (logprobs.h) alone
  ListRange biases;
  ListRange counts;
  ListRange masked;
  ListRange allowed;  // count 0: all tokens
};

struct SampleArgs {
  float* logits;
  int64_t logits_stride;
  int32_t num_rows;
  int32_t vocab_size;
  const SampleRow* rows;
  const TokenBias* biases;  // [num_biases]
  const TokenCount* counts;
  const int32_t* masked_ids;
  const int32_t* allowed_ids;
  int32_t num_biases;  // of the lists, or of the room for them (in a captured graph)
  int32_t num_counts;
  int32_t num_masked;
  const int32_t* previous_tokens;  // null when no row has a previous_row
  float* saved;                    // scratch, sample_saved_floats()
  int32_t* tokens;
};
constexpr int64_t sample_saved_floats(int64_t num_rows, int64_t num_biases, int64_t num_counts, int64_t num_masked) {
  return num_rows + num_biases + num_counts + num_masked;
}
int sample(const SampleArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
