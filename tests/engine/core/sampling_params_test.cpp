#include "engine/core/sampling_params.h"

#include <gtest/gtest.h>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace sextant {
namespace {

constexpr int32_t kVocabSize = 100;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Case {
  std::string param;
  std::function<void(SamplingParams&)> change;
};

TEST(SamplingParams, DefaultsAndLimitsAreValid) {
  EXPECT_TRUE(SamplingParams{}.validate(kVocabSize).ok());
  const std::vector<std::function<void(SamplingParams&)>> changes = {
      [](SamplingParams& p) { p.n = SamplingParams::kMaxN; },
      [](SamplingParams& p) { p.temperature = 0; },
      [](SamplingParams& p) { p.temperature = 100; },
      [](SamplingParams& p) { p.top_p = 1e-6f; },
      [](SamplingParams& p) { p.top_k = -1; },
      [](SamplingParams& p) { p.top_k = 1 << 30; },
      [](SamplingParams& p) { p.min_p = 1; },
      [](SamplingParams& p) { p.presence_penalty = -2; },
      [](SamplingParams& p) { p.frequency_penalty = 2; },
      [](SamplingParams& p) { p.repetition_penalty = 1e-3f; },
      [](SamplingParams& p) {
        p.logit_bias.assign(SamplingParams::kMaxLogitBias, {kVocabSize - 1, -100.0f});
      },
      [](SamplingParams& p) {
        p.allowed_token_ids = {0, kVocabSize - 1};
      },
      [](SamplingParams& p) { p.stop_token_ids = {0}; },
      [](SamplingParams& p) { p.min_tokens = p.max_tokens = 5; },
      [](SamplingParams& p) { p.logprobs = SamplingParams::kMaxLogprobs; },
      [](SamplingParams& p) { p.prompt_logprobs = 0; },
  };
  for (const auto& change : changes) {
    SamplingParams params;
    change(params);
    EXPECT_TRUE(params.validate(kVocabSize).ok()) << params.validate(kVocabSize).message();
  }
}

TEST(SamplingParams, EveryFieldOutOfRangeIsNamed) {
  const std::vector<Case> cases = {
      {"n", [](SamplingParams& p) { p.n = 0; }},
      {"n", [](SamplingParams& p) { p.n = SamplingParams::kMaxN + 1; }},
      {"temperature", [](SamplingParams& p) { p.temperature = -0.1f; }},
      {"temperature", [](SamplingParams& p) { p.temperature = kNan; }},
      {"temperature", [](SamplingParams& p) { p.temperature = kInfinity; }},
      {"top_p", [](SamplingParams& p) { p.top_p = 0; }},
      {"top_p", [](SamplingParams& p) { p.top_p = 1.01f; }},
      {"top_p", [](SamplingParams& p) { p.top_p = kNan; }},
      {"top_k", [](SamplingParams& p) { p.top_k = -2; }},
      {"min_p", [](SamplingParams& p) { p.min_p = -0.5f; }},
      {"min_p", [](SamplingParams& p) { p.min_p = kNan; }},
      {"presence_penalty", [](SamplingParams& p) { p.presence_penalty = 2.5f; }},
      {"presence_penalty", [](SamplingParams& p) { p.presence_penalty = kNan; }},
      {"frequency_penalty", [](SamplingParams& p) { p.frequency_penalty = -kInfinity; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = 0; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = kInfinity; }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{kVocabSize, 1.0f}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{-1, 1.0f}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{1, kNan}};
       }},
      {"logit_bias", [](SamplingParams& p) { p.logit_bias.resize(SamplingParams::kMaxLogitBias + 1); }},
      {"allowed_token_ids", [](SamplingParams& p) { p.allowed_token_ids = {kVocabSize}; }},
      {"stop_token_ids",
       [](SamplingParams& p) {
         p.stop_token_ids = {1, -1};
       }},
      {"max_tokens", [](SamplingParams& p) { p.max_tokens = 0; }},
      {"min_tokens", [](SamplingParams& p) { p.min_tokens = -1; }},
      {"min_tokens", [](SamplingParams& p) { p.min_tokens = p.max_tokens + 1; }},
      {"logprobs", [](SamplingParams& p) { p.logprobs = -1; }},
      {"logprobs", [](SamplingParams& p) { p.logprobs = SamplingParams::kMaxLogprobs + 1; }},
      {"prompt_logprobs", [](SamplingParams& p) { p.prompt_logprobs = SamplingParams::kMaxLogprobs + 1; }},
  };
  for (const Case& tried : cases) {
    SamplingParams params;
    tried.change(params);
    const Status status = params.validate(kVocabSize);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << tried.param;
    EXPECT_EQ(status.param(), tried.param);
    EXPECT_NE(status.message().find(tried.param), std::string::npos) << status.message();
  }
}

TEST(SamplingParams, MessagesCarryTheRangeAndTheValue) {
  SamplingParams params;
  params.top_p = 1.5f;
  EXPECT_EQ(params.validate(kVocabSize).message(), "top_p must be above 0 and at most 1, not 1.5");
  params = {};
  params.min_tokens = 17;
  EXPECT_EQ(params.validate(kVocabSize).message(), "min_tokens must be from 0 to max_tokens (16), not 17");
}

}  // namespace
}  // namespace sextant
