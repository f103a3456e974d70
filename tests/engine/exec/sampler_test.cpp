// The sampler against an oracle that sorts everything in double precision, and against the properties users rely on.
#include "engine/exec/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/philox.h"
#include "tests/support/random_seed.h"

namespace sextant {
namespace {

std::shared_ptr<const Request> make_request(SamplingParams sampling, std::vector<int32_t> prompt = {0}) {
  auto request = std::make_shared<Request>();
  request->prompt_token_ids = std::move(prompt);
  request->sampling = std::move(sampling);
  return request;
}

std::vector<float> random_logits(std::mt19937_64& rng, size_t vocab_size) {
  std::normal_distribution<float> normal(0.0f, 2.5f);
  std::vector<float> logits(vocab_size);
  for (float& logit : logits) logit = normal(rng);
  return logits;
}

// The probabilities that a token may be drawn with, by full sorts in fp64. Order: temperature, min_p, top_k, top_p.
std::vector<double> oracle(const std::vector<float>& logits, const SamplingParams& params) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p(logits.size());
  for (size_t i = 0; i < p.size(); ++i) p[i] = std::exp((logits[i] - largest) / params.temperature);
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  for (double& probability : p) probability = probability < params.min_p ? 0 : probability;
  if (params.top_k > 0) {
    for (size_t rank = static_cast<size_t>(params.top_k); rank < order.size(); ++rank) p[order[rank]] = 0;
  }
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  double mass = 0;
  for (const size_t id : order) {
    if (mass >= params.top_p * total) p[id] = 0;
    mass += p[id];
  }
  const double kept = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& probability : p) probability /= kept;
  return p;
}

TEST(Sampler, GreedyTakesTheLowestIdOfTheLargest) {
  SamplingParams params;
  params.temperature = 0;
  std::vector<float> logits = {1, 5, 3, 5, -std::numeric_limits<float>::infinity(), std::nanf("")};
  EXPECT_EQ(Sampler({}).sample(logits, SamplerState(make_request(params), 0), 0), 1);
}

TEST(Sampler, DrawsWhatTheOracleDrawsAtTheSameQuantile) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  int near_an_edge = 0;
  for (int round = 0; round < 400; ++round) {
    SamplingParams params;
    params.temperature = std::uniform_real_distribution<float>(0.2f, 2.0f)(rng);
    if (rng() % 2) params.top_k = static_cast<int32_t>(1 + rng() % 40);
    if (rng() % 2) params.top_p = std::uniform_real_distribution<float>(0.05f, 1.0f)(rng);
    if (rng() % 3 == 0) params.min_p = std::uniform_real_distribution<float>(0.0f, 0.5f)(rng);
    params.seed = rng();
    const std::vector<float> logits = random_logits(rng, 1 + rng() % 500);
    const std::vector<double> p = oracle(logits, params);
    const auto choice = static_cast<int32_t>(rng() % 4);
    const auto output_idx = static_cast<int64_t>(rng() % 100);

    std::vector<float> scratch = logits;
    const int32_t token = Sampler({}).sample(scratch, SamplerState(make_request(params), choice), output_idx);
    // The draw is the quantile `u` in order of ids; fp32 rounding may move an edge by about 1e-5.
    const double u =
        kernels::philox_uniform(params.seed, static_cast<uint32_t>(choice), static_cast<uint64_t>(output_idx));
    double below = 0;
    for (int32_t id = 0; id < token; ++id) below += p[static_cast<size_t>(id)];
    const double above = below + p[static_cast<size_t>(token)];
    if (u < below + 1e-5 || u > above - 1e-5) ++near_an_edge;
    EXPECT_GT(u, below - 1e-4) << "round " << round;
    EXPECT_LT(u, above + 1e-4) << "round " << round;
  }
  EXPECT_LT(near_an_edge, 20);
}

TEST(Sampler, FrequenciesFollowTheDistribution) {
  SamplingParams params;
  params.seed = 42;
  const std::vector<float> logits = {std::log(0.5f), std::log(0.25f), std::log(0.125f), std::log(0.125f)};
  const SamplerState state(make_request(params), 0);
  std::vector<int> counts(4);
  constexpr int kDraws = 8000;
  for (int i = 0; i < kDraws; ++i) {
    std::vector<float> scratch = logits;
    ++counts[static_cast<size_t>(Sampler({}).sample(scratch, state, i))];
  }
  // Chi-squared with 3 degrees of freedom: above 16.3 with probability 0.001; the seed is fixed.
  double chi_squared = 0;
  const std::vector<double> expected = {0.5, 0.25, 0.125, 0.125};
  for (size_t i = 0; i < 4; ++i) chi_squared += std::pow(counts[i] - expected[i] * kDraws, 2) / (expected[i] * kDraws);
  EXPECT_LT(chi_squared, 16.3);
}

TEST(Sampler, PenaltiesAreVllms) {
  SamplingParams params;
  params.temperature = 0;
  params.presence_penalty = 0.5f;
  params.frequency_penalty = 0.25f;
  params.repetition_penalty = 2.0f;
  SamplerState state(make_request(params, {0, 1, 1}), 0);
  state.append(1);
  state.append(1);
  state.append(2);
  std::vector<float> logits = {4, -4, 8, 1};
  Sampler({}).sample(logits, state, 3);
  // Prompt or output: divided when positive, multiplied when negative. Output: presence once, frequency per occurrence.
  EXPECT_THAT(logits, testing::ElementsAre(2.0f, -8.0f - 0.5f - 0.5f, 4.0f - 0.5f - 0.25f, 1.0f));
}

TEST(Sampler, BiasAllowedTokensAndMinTokens) {
  SamplingParams params;
  params.temperature = 0;
  params.logit_bias = {{3, 10.0f}};
  std::vector<float> logits = {5, 1, 0, 0};
  EXPECT_EQ(Sampler({}).sample(logits, SamplerState(make_request(params), 0), 0), 3);

  params.logit_bias.clear();
  params.allowed_token_ids = {1, 2};
  logits = {5, 1, 0, 9};
  EXPECT_EQ(Sampler({}).sample(logits, SamplerState(make_request(params), 0), 0), 1);

  params.allowed_token_ids.clear();
  params.min_tokens = 2;
  params.stop_token_ids = {1};
  const Sampler sampler({0});
  for (const auto& [output_idx, expected] : std::map<int64_t, int32_t>{{0, 2}, {1, 2}, {2, 0}}) {
    logits = {5, 4, 3, 2};
    EXPECT_EQ(sampler.sample(logits, SamplerState(make_request(params), 0), output_idx), expected) << output_idx;
  }
  params.ignore_eos = true;  // then eos is a token like others
  logits = {5, 4, 3, 2};
  EXPECT_EQ(sampler.sample(logits, SamplerState(make_request(params), 0), 0), 0);
}

TEST(Sampler, DegenerateLogitsGiveATokenOfTheVocabulary) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float value : {kInf, -kInf, std::nanf(""), 3.4e38f, -3.4e38f, 0.0f}) {
    for (const float temperature : {0.0f, 1e-6f, 1.0f, 2.0f}) {
      SamplingParams params;
      params.temperature = temperature;
      params.top_p = 0.9f;
      params.top_k = 3;
      params.min_p = 0.1f;
      std::vector<float> logits(7, value);
      const int32_t token = Sampler({}).sample(logits, SamplerState(make_request(params), 0), 0);
      EXPECT_GE(token, 0);
      EXPECT_LT(token, 7);
    }
  }
}

TEST(PositionLogprobs, AreTheLogSoftmaxWithRanks) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  for (int round = 0; round < 50; ++round) {
    std::vector<float> logits = random_logits(rng, 2 + rng() % 300);
    if (rng() % 2) logits[rng() % logits.size()] = logits[0];  // a tie
    const auto chosen = static_cast<int32_t>(rng() % logits.size());
    const auto num_top = static_cast<int32_t>(rng() % 21);
    const PositionLogprobs result = position_logprobs(logits, chosen, num_top);

    double total = 0;
    for (const float logit : logits) total += std::exp(static_cast<double>(logit));
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    // fp32 result of an fp64 sum: half an ulp of a value below 32 is 1e-6.
    EXPECT_NEAR(result.chosen.logprob, logits[static_cast<size_t>(chosen)] - std::log(total), 2e-6);
    EXPECT_EQ(result.rank, 1 + std::count_if(logits.begin(), logits.end(),
                                             [&](float l) { return l > logits[static_cast<size_t>(chosen)]; }));
    ASSERT_EQ(result.top.size(), std::min<size_t>(static_cast<size_t>(num_top), logits.size()));
    for (size_t i = 0; i < result.top.size(); ++i) EXPECT_EQ(result.top[i].token_id, order[i]);
  }
}

}  // namespace
}  // namespace sextant
