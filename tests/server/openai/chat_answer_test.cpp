// /v1/chat/completions from body to answer, over a fake engine.
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "tests/support/api_fixture.h"

namespace sextant::openai {
namespace {

using testing_support::ApiFixture;
using testing_support::ByteTokenizer;
using testing_support::FakeEngine;

class ChatAnswer : public ApiFixture {
 protected:
  std::string prompt_text(RequestId id) { return tokenizer_.decode(engine_.requests.at(id).prompt_token_ids, false); }
};

TEST_F(ChatAnswer, HasOpenAisShape) {
  const auto exchange = chat({{"model", "tiny"}});
  EXPECT_EQ(prompt_text(1), "[user]hi<|im_end|>[assistant]");
  // The template's own special tokens are recognised, none is added.
  EXPECT_EQ(engine_.requests.at(1).prompt_token_ids.front(), '[');
  EXPECT_EQ(engine_.requests.at(1).prompt_token_ids[8], ByteTokenizer::kImEnd);
  const auto num_prompt_tokens = static_cast<int64_t>(engine_.requests.at(1).prompt_token_ids.size());
  EXPECT_EQ(engine_.requests.at(1).sampling.max_tokens, 256 - num_prompt_tokens);  // the rest of the context
  engine_.say(1, 0, "hello");
  engine_.end(1, 0);
  pump();
  const Json body = answer_of(exchange, 200);
  EXPECT_EQ(body.dump(),
            R"({"id":"chatcmpl-req-1","object":"chat.completion","created":1700000000,"model":"tiny","choices":[)"
            R"({"index":0,"message":{"role":"assistant","content":"hello","refusal":null,"annotations":[]},)"
            R"("logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":20,)"
            R"("completion_tokens":6,"total_tokens":26,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},)"
            R"("completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,)"
            R"("rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":"fp_test"})");
}

TEST_F(ChatAnswer, StreamsRoleTextEndUsageDone) {
  const auto exchange = chat({{"stream", true}, {"stream_options", {{"include_usage", true}}}});
  engine_.say(1, 0, "he");
  engine_.say(1, 0, "y");
  engine_.end(1, 0);
  pump();
  const std::vector<Json> events = exchange->events();
  ASSERT_EQ(events.size(), 6u);
  EXPECT_EQ(events[0].dump(),
            R"({"id":"chatcmpl-req-1","object":"chat.completion.chunk","created":1700000000,"model":"tiny",)"
            R"("system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"role":"assistant","content":"",)"
            R"("refusal":null},"logprobs":null,"finish_reason":null}],"usage":null})");
  EXPECT_EQ(events[1]["choices"].dump(),
            R"([{"index":0,"delta":{"content":"he"},"logprobs":null,"finish_reason":null}])");
  EXPECT_EQ(events[2]["choices"][0]["delta"].dump(), R"({"content":"y"})");
  EXPECT_EQ(events[3]["choices"].dump(),
            R"([{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null}])");
  EXPECT_EQ(events[4]["choices"].dump(), "[]");
  EXPECT_EQ(events[4]["usage"]["completion_tokens"], 4);
  EXPECT_EQ(events[5], "[DONE]");
  EXPECT_TRUE(exchange->is_finished);
}

TEST_F(ChatAnswer, LastTextAndEndAreTwoChunks) {
  const auto exchange = chat({{"stream", true}, {"return_token_ids", true}});
  engine_.say(1, 0, "abc", FinishReason::kLength);
  pump();
  const std::vector<Json> events = exchange->events();
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0]["prompt_token_ids"].size(), 20u);
  EXPECT_EQ(events[1]["choices"][0]["delta"]["content"], "abc");
  EXPECT_EQ(events[1]["choices"][0]["token_ids"].dump(), "[97,98,99]");
  EXPECT_TRUE(events[1]["choices"][0]["finish_reason"].is_null());
  EXPECT_EQ(events[2]["choices"][0]["delta"].dump(), "{}");
  EXPECT_EQ(events[2]["choices"][0]["finish_reason"], "length");
  EXPECT_FALSE(events[2]["choices"][0].contains("token_ids"));
}

TEST_F(ChatAnswer, SeveralChoicesEachBeginAndEnd) {
  const auto exchange = chat({{"stream", true}, {"n", 3}});
  engine_.say(1, 2, "c");
  pump();
  ASSERT_EQ(exchange->events().size(), 4u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(exchange->events()[static_cast<size_t>(i)]["choices"][0]["index"], i);
    EXPECT_EQ(exchange->events()[static_cast<size_t>(i)]["choices"][0]["delta"]["role"], "assistant");
  }
  engine_.end(1, 1);
  engine_.end(1, 0);
  pump();
  EXPECT_FALSE(exchange->is_finished);
  engine_.end(1, 2);
  pump();
  EXPECT_TRUE(exchange->is_finished);
  EXPECT_EQ(exchange->events().size(), 4u + 3 + 1);
}

TEST_F(ChatAnswer, LogprobsHaveBytes) {
  const auto exchange = chat({{"logprobs", true}, {"top_logprobs", 1}, {"max_tokens", 1}});
  EXPECT_EQ(engine_.requests.at(1).sampling.logprobs, 1);
  OutputEvent only = engine_.event(1, 0, {'a'}, FinishReason::kLength);
  only.logprobs = {{{'a', -0.5f}, 2, {{'b', -0.25f}}}};
  engine_.deliver({only});
  pump();
  EXPECT_EQ(answer_of(exchange, 200)["choices"][0]["logprobs"].dump(),
            R"({"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[)"
            R"({"token":"b","logprob":-0.25,"bytes":[98]}]}],"refusal":null})");
}

TEST_F(ChatAnswer, PromptLogprobsAreAtTheTop) {
  const auto exchange = chat({{"prompt_logprobs", 0}, {"max_tokens", 1}});
  OutputEvent only = engine_.event(1, 0, {'a'}, FinishReason::kLength);
  const std::vector<int32_t>& prompt = engine_.requests.at(1).prompt_token_ids;
  for (size_t i = 1; i < prompt.size(); ++i) only.prompt_logprobs.push_back({{prompt[i], -1.0f}, 1, {}});
  engine_.deliver({only});
  pump();
  const Json body = answer_of(exchange, 200);
  EXPECT_EQ(body["prompt_logprobs"].size(), prompt.size());
  EXPECT_FALSE(body["choices"][0].contains("prompt_logprobs"));
}

TEST_F(ChatAnswer, GoesOnWithTheLastMessage) {
  const Json messages = {{{"role", "user"}, {"content", "x"}}, {{"role", "assistant"}, {"content", "The answer "}}};
  const auto exchange = chat({{"messages", messages}, {"continue_final_message", true}, {"echo", true}});
  EXPECT_EQ(prompt_text(1), "[user]x<|im_end|>[assistant]The answer ");
  engine_.say(1, 0, "is", FinishReason::kLength);
  pump();
  EXPECT_EQ(answer_of(exchange, 200)["choices"][0]["message"]["content"], "The answer is");
}

TEST_F(ChatAnswer, WithoutGenerationPromptTheLastRoleSpeaks) {
  const auto exchange = chat({{"add_generation_prompt", false}});
  EXPECT_EQ(prompt_text(1), "[user]hi<|im_end|>");
  engine_.say(1, 0, "is", FinishReason::kLength);
  pump();
  EXPECT_EQ(answer_of(exchange, 200)["choices"][0]["message"]["role"], "user");
}

TEST_F(ChatAnswer, ATemplatesComplaintIsTheClients) {
  const auto exchange = chat({{"messages", {{{"role", "forbidden"}, {"content", "x"}}}}});
  const Json error = answer_of(exchange, 400)["error"];
  EXPECT_EQ(error["message"], "That role is not welcome.");
  EXPECT_EQ(error["param"], "messages");
  EXPECT_EQ(error["type"], "invalid_request_error");
}

TEST_F(ChatAnswer, AModelWithoutTemplateSaysSo) {
  template_.reset();
  const Json error = answer_of(chat(Json::object()), 400)["error"];
  EXPECT_EQ(error["code"], "no_chat_template");
}

}  // namespace
}  // namespace sextant::openai
