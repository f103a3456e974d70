// /v1/completions from body to answer, over a fake engine: shapes, usage, lists of prompts, echo, logprobs,
// streams.
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "tests/support/api_fixture.h"

namespace sextant::openai {
namespace {

using testing_support::ApiFixture;
using testing_support::ByteTokenizer;
using testing_support::FakeEngine;

class CompletionAnswer : public ApiFixture {};

TEST_F(CompletionAnswer, HasOpenAisShape) {
  const auto exchange = complete({{"model", "tiny"}, {"prompt", "ab"}, {"max_tokens", 3}});
  ASSERT_EQ(engine_.requests.size(), 1u);
  const Request& request = engine_.requests.at(1);
  EXPECT_EQ(request.prompt_token_ids, (std::vector<int32_t>{ByteTokenizer::kBos, 'a', 'b'}));
  EXPECT_EQ(request.sampling.max_tokens, 3);
  EXPECT_GT(request.arrival_ns, 0);
  EXPECT_FALSE(exchange->is_answered());
  engine_.say(1, 0, "xy");
  pump();
  EXPECT_FALSE(exchange->is_answered());
  engine_.say(1, 0, "z", FinishReason::kLength);
  pump();
  const Json body = answer_of(exchange, 200);
  EXPECT_EQ(exchange->response->content_type, "application/json");
  EXPECT_EQ(body.dump(),
            R"({"id":"cmpl-req-1","object":"text_completion","created":1700000000,"model":"tiny",)"
            R"("system_fingerprint":"fp_test","choices":[{"text":"xyz","index":0,"logprobs":null,)"
            R"("finish_reason":"length","stop_reason":null}],"usage":{"prompt_tokens":3,"completion_tokens":3,)"
            R"("total_tokens":6,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},)"
            R"("completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,)"
            R"("rejected_prediction_tokens":0}}})");
  EXPECT_TRUE(engine_.calls.empty());
}

TEST_F(CompletionAnswer, DefaultsToSixteenTokensOrTheRestOfTheContext) {
  complete({{"prompt", "ab"}});
  EXPECT_EQ(engine_.requests.at(1).sampling.max_tokens, 16);
  complete({{"prompt", std::string(250, 'x')}});
  EXPECT_EQ(engine_.requests.at(2).sampling.max_tokens, 5);  // 256 - 1 (bos) - 250
}

TEST_F(CompletionAnswer, AnyServedNameIsAnswered) {
  const auto exchange = complete({{"model", "tiny-alias"}, {"prompt", "a"}, {"request_id", "mine"}});
  engine_.end(1, 0);
  pump();
  const Json body = answer_of(exchange, 200);
  EXPECT_EQ(body["model"], "tiny-alias");
  EXPECT_EQ(body["id"], "cmpl-mine");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["usage"]["completion_tokens"], 1);  // the eos token is one
}

TEST_F(CompletionAnswer, ListsOfPromptsTimesChoices) {
  const auto exchange =
      begin("/v1/completions", {{"prompt", {{1, 2}, {3, 4, 5}}}, {"n", 2}, {"max_tokens", 2}, {"seed", 5}}, 2);
  ASSERT_EQ(engine_.requests.size(), 2u);
  EXPECT_EQ(engine_.requests.at(2).prompt_token_ids, (std::vector<int32_t>{3, 4, 5}));
  EXPECT_EQ(engine_.requests.at(2).sampling.n, 2);
  EXPECT_EQ(engine_.requests.at(2).sampling.seed, 5u);
  // In any order.
  engine_.say(2, 1, "DD", FinishReason::kLength);
  engine_.say(1, 1, "BB", FinishReason::kLength);
  OutputEvent cached = engine_.event(2, 0, FakeEngine::bytes("CC"), FinishReason::kLength);
  cached.num_cached_tokens = 2;
  engine_.deliver({cached, engine_.event(1, 0, FakeEngine::bytes("A"), FinishReason::kLength)});
  pump();
  const Json body = answer_of(exchange, 200);
  ASSERT_EQ(body["choices"].size(), 4u);
  const std::vector<std::string> texts = {"A", "BB", "CC", "DD"};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(body["choices"][i]["index"], i);
    EXPECT_EQ(body["choices"][i]["text"], texts[i]);
  }
  EXPECT_EQ(body["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(body["usage"]["completion_tokens"], 7);
  EXPECT_EQ(body["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
}

TEST_F(CompletionAnswer, EveryPromptWithoutASeedGetsItsOwn) {
  begin("/v1/completions", {{"prompt", {"a", "b"}}}, 2);
  EXPECT_NE(engine_.requests.at(1).sampling.seed, engine_.requests.at(2).sampling.seed);
}

TEST_F(CompletionAnswer, EchoPrecedesTheText) {
  const auto exchange = complete({{"prompt", "ab"}, {"echo", true}, {"max_tokens", 1}});
  EXPECT_FALSE(engine_.requests.at(1).sampling.prompt_logprobs);
  engine_.say(1, 0, "c", FinishReason::kLength);
  pump();
  EXPECT_EQ(answer_of(exchange, 200)["choices"][0]["text"], "abc");
}

PositionLogprobs position(int32_t id, float logprob) { return {{id, logprob}, 1, {{id, logprob}}}; }

TEST_F(CompletionAnswer, EchoWithoutGenerationScoresThePrompt) {
  const auto exchange = complete({{"prompt", "ab"}, {"echo", true}, {"max_tokens", 0}, {"logprobs", 1}});
  EXPECT_EQ(engine_.requests.at(1).sampling.max_tokens, 1);
  EXPECT_EQ(engine_.requests.at(1).sampling.prompt_logprobs, 1);
  OutputEvent only = engine_.event(1, 0, {'z'}, FinishReason::kLength);
  only.prompt_logprobs = {position('a', -1.0f), position('b', -2.0f)};
  only.logprobs = {position('z', -3.0f)};
  engine_.deliver({only});
  pump();
  const Json body = answer_of(exchange, 200);
  EXPECT_EQ(body["choices"][0]["text"], "ab");
  EXPECT_EQ(body["choices"][0]["logprobs"]["token_logprobs"].dump(), "[null,-1.0,-2.0]");
  EXPECT_FALSE(body["choices"][0].contains("prompt_logprobs"));
  EXPECT_EQ(body["usage"]["completion_tokens"], 0);
}

TEST_F(CompletionAnswer, PromptLogprobsAndTokenIds) {
  const auto exchange = complete({{"prompt", {7, 8}}, {"prompt_logprobs", 0}, {"return_token_ids", true}});
  OutputEvent only = engine_.event(1, 0, {'z'}, FinishReason::kLength);
  only.prompt_logprobs = {position(8, -1.0f)};
  engine_.deliver({only});
  pump();
  const Json choice = answer_of(exchange, 200)["choices"][0];
  EXPECT_EQ(choice["prompt_logprobs"].dump(), "[null,{\"8\":{\"logprob\":-1.0,\"rank\":1,\"decoded_token\":\"\\b\"}}]");
  EXPECT_EQ(choice["prompt_token_ids"].dump(), "[7,8]");
  EXPECT_EQ(choice["token_ids"].dump(), "[122]");
}

TEST_F(CompletionAnswer, StreamsChunksInOrder) {
  const auto exchange =
      complete({{"prompt", "ab"}, {"stream", true}, {"stream_options", {{"include_usage", true}}}, {"max_tokens", 3}});
  EXPECT_FALSE(exchange->response);  // no header before the first token
  engine_.say(1, 0, "x");
  pump();
  ASSERT_TRUE(exchange->is_stream);
  EXPECT_EQ(exchange->response->content_type, "text/event-stream; charset=utf-8");
  EXPECT_EQ(exchange->response->status, 200);
  engine_.say(1, 0, "yz", FinishReason::kLength);
  pump();
  EXPECT_TRUE(exchange->is_finished);
  const std::vector<Json> events = exchange->events();
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].dump(),
            R"({"id":"cmpl-req-1","object":"text_completion","created":1700000000,"model":"tiny",)"
            R"("system_fingerprint":"fp_test","choices":[{"text":"x","index":0,"logprobs":null,"finish_reason":null}],)"
            R"("usage":null})");
  EXPECT_EQ(events[1]["choices"][0].dump(),
            R"({"text":"yz","index":0,"logprobs":null,"finish_reason":"length","stop_reason":null})");
  EXPECT_TRUE(events[1]["usage"].is_null());
  EXPECT_EQ(events[2]["choices"].dump(), "[]");
  EXPECT_EQ(events[2]["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(events[2]["usage"]["completion_tokens"], 3);
  EXPECT_EQ(events[3], "[DONE]");
}

TEST_F(CompletionAnswer, StreamsWithoutUsageUnlessAsked) {
  const auto exchange = complete({{"prompt", "ab"}, {"stream", true}});
  engine_.say(1, 0, "x", FinishReason::kLength);
  pump();
  const std::vector<Json> events = exchange->events();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_FALSE(events[0].contains("usage"));
}

TEST_F(CompletionAnswer, ContinuousUsageCountsUp) {
  const auto exchange = complete({{"prompt", "ab"},
                                  {"stream", true},
                                  {"stream_options", {{"include_usage", true}, {"continuous_usage_stats", true}}}});
  engine_.say(1, 0, "x");
  engine_.deliver({engine_.event(1, 0, {0xC3})});  // half a character: counted although nothing is shown
  engine_.say(1, 0, "\xA9", FinishReason::kLength);
  pump();
  const std::vector<Json> events = exchange->events();
  ASSERT_EQ(events.size(), 5u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(events[static_cast<size_t>(i)]["usage"]["completion_tokens"], i + 1);
  EXPECT_EQ(events[1]["choices"][0]["text"], "");
  EXPECT_EQ(events[2]["choices"][0]["text"], "é");
}

TEST_F(CompletionAnswer, StreamedEchoComesOnceAndFirst) {
  const auto exchange = complete({{"prompt", "ab"}, {"stream", true}, {"echo", true}, {"return_token_ids", true}});
  engine_.say(1, 0, "x");
  engine_.say(1, 0, "y", FinishReason::kLength);
  pump();
  const std::vector<Json> events = exchange->events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0]["choices"][0]["text"], "abx");
  EXPECT_EQ(events[0]["choices"][0]["prompt_token_ids"].dump(), "[256,97,98]");
  EXPECT_EQ(events[0]["choices"][0]["token_ids"].dump(), "[120]");
  EXPECT_EQ(events[1]["choices"][0]["text"], "y");
  EXPECT_FALSE(events[1]["choices"][0].contains("prompt_token_ids"));
}

// Prompt log-probabilities come with choice 0; the others' echo waits for them.
TEST_F(CompletionAnswer, StreamedEchoWithLogprobsWaitsForThePrompts) {
  const auto exchange =
      complete({{"prompt", "ab"}, {"stream", true}, {"echo", true}, {"logprobs", 0}, {"n", 2}, {"max_tokens", 1}});
  OutputEvent second = engine_.event(1, 1, {'y'}, FinishReason::kLength);
  second.logprobs = {position('y', -3.0f)};
  engine_.deliver({second});
  pump();
  EXPECT_TRUE(exchange->events().empty());
  OutputEvent first = engine_.event(1, 0, {'x'}, FinishReason::kLength);
  first.logprobs = {position('x', -4.0f)};
  first.prompt_logprobs = {position('a', -1.0f), position('b', -2.0f)};
  engine_.deliver({first});
  pump();
  const std::vector<Json> events = exchange->events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0]["choices"][0]["logprobs"]["token_logprobs"].dump(), "[null,-1.0,-2.0,-4.0]");
  EXPECT_EQ(events[1]["choices"][0]["index"], 1);
  EXPECT_EQ(events[1]["choices"][0]["logprobs"]["token_logprobs"].dump(), "[null,-1.0,-2.0,-3.0]");
}

TEST_F(CompletionAnswer, TruncationKeepsTheSideAskedFor) {
  complete({{"prompt", "abcdef"}, {"truncate_prompt_tokens", 2}});
  EXPECT_EQ(engine_.requests.at(1).prompt_token_ids, (std::vector<int32_t>{'e', 'f'}));
  complete({{"prompt", "abcdef"}, {"truncate_prompt_tokens", 2}, {"truncation_side", "right"}});
  EXPECT_EQ(engine_.requests.at(2).prompt_token_ids, (std::vector<int32_t>{ByteTokenizer::kBos, 'a'}));
  complete({{"prompt", std::string(1000, 'x')}, {"truncate_prompt_tokens", -1}, {"max_tokens", 10}});
  EXPECT_EQ(engine_.requests.at(3).prompt_token_ids.size(), 246u);
}

}  // namespace
}  // namespace sextant::openai
