// The host's sampler against kernels/ref/sampling, to which the device's is held as well: so the two backends choose
// alike.
#include <cmath>
#include <iostream>
#include <limits>
#include <map>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "engine/exec/sampler.h"
#include "kernels/philox.h"
#include "kernels/ref/sampling.h"
#include "tests/support/random_seed.h"

namespace sextant {
namespace {

namespace ref = kernels::ref;

class SamplingReference : public testing::Test {
 protected:
  SamplingReference() : seed_(random_seed()), random_(seed_) {}

  int64_t uniform(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }
  float real(float low, float high) { return std::uniform_real_distribution<float>(low, high)(random_); }

  uint64_t seed_;
  std::mt19937_64 random_;
};

TEST_F(SamplingReference, TheHostChoosesWhatTheReferenceChooses) {
  int skipped = 0;
  constexpr int kRounds = 3000;
  for (int round = 0; round < kRounds; ++round) {
    const int64_t vocab = uniform(1, 600);
    const auto token = [&] { return static_cast<int32_t>(uniform(0, vocab - 1)); };
    std::vector<float> logits;
    const float spread = real(0.5f, 4.0f);
    for (int64_t i = 0; i < vocab; ++i) logits.push_back(spread * std::normal_distribution<float>()(random_));
    if (uniform(0, 3) == 0) {
      logits[static_cast<size_t>(token())] = NAN;
      logits[static_cast<size_t>(token())] = -std::numeric_limits<float>::infinity();
    }
    auto request = std::make_shared<Request>();
    SamplingParams& params = request->sampling;
    params.seed = random_();
    params.temperature = uniform(0, 9) == 0 ? 0.0f : real(0.1f, 2.0f);
    if (uniform(0, 1) == 0) params.top_k = static_cast<int32_t>(uniform(1, 50));
    if (uniform(0, 1) == 0) params.top_p = real(0.02f, 1.0f);
    if (uniform(0, 2) == 0) params.min_p = real(0.0f, 0.4f);
    if (uniform(0, 2) == 0) {
      std::map<int32_t, float> biases;
      for (int i = 0; i < 10; ++i) biases[token()] = real(-20, 20);
      params.logit_bias.assign(biases.begin(), biases.end());
    }
    if (uniform(0, 4) == 0) {
      for (int i = 0; i < 20; ++i) params.allowed_token_ids.push_back(token());
    }
    if (uniform(0, 3) == 0) {
      params.min_tokens = uniform(0, 10);
      for (int i = 0; i < 3; ++i) params.stop_token_ids.push_back(token());
    }
    if (uniform(0, 1) == 0) {
      params.repetition_penalty = uniform(0, 1) == 0 ? 1.0f : real(0.5f, 2.0f);
      params.presence_penalty = real(-2, 2);
      params.frequency_penalty = real(-2, 2);
    }
    for (int64_t i = uniform(1, 40); i > 0; --i) request->prompt_token_ids.push_back(token());
    const auto choice = static_cast<int32_t>(uniform(0, 3));
    SamplerState state(request, choice);

    ref::SamplingProblem problem;
    problem.temperature = params.temperature;
    problem.top_k = params.top_k;
    problem.top_p = params.top_p;
    problem.min_p = params.min_p;
    problem.repetition_penalty = params.repetition_penalty;
    problem.presence_penalty = params.presence_penalty;
    problem.frequency_penalty = params.frequency_penalty;
    problem.biases = params.logit_bias;
    problem.allowed = params.allowed_token_ids;
    problem.prompt_tokens = request->prompt_token_ids;
    const int64_t output_idx = uniform(0, 20);
    for (int64_t i = 0; i < output_idx; ++i) {
      problem.output_tokens.push_back(token());
      state.append(problem.output_tokens.back());
    }
    const std::vector<int32_t> eos = {token()};
    if (output_idx < params.min_tokens) {
      problem.masked = params.stop_token_ids;
      problem.masked.push_back(eos[0]);
    }
    const double quantile =
        kernels::philox_uniform(params.seed, static_cast<uint32_t>(choice), static_cast<uint64_t>(output_idx));
    const ref::SamplingChoice expected = ref::choose_token(ref::edited_logits(logits, problem), problem, quantile);
    const int32_t chosen = Sampler(eos).sample(logits, state, output_idx);
    if (expected.certain) {
      ASSERT_EQ(chosen, expected.token) << "round " << round << " seed " << seed_;
    } else {
      ++skipped;
    }
  }
  std::cout << skipped << " of " << kRounds << " choices hang on less than fp32's rounding\n";
  // At most 600 boundaries, each with a neighbourhood of 8e-6 of the total, for each of two cuts: 1% at the very most.
  EXPECT_LT(skipped, kRounds / 100);
}

}  // namespace
}  // namespace sextant
