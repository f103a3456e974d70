// A server without a tokenizer: ids in and out; what needs text says what to do instead.
#include <gtest/gtest.h>

#include "engine/text/id_tokenizer.h"
#include "tests/support/api_fixture.h"

namespace sextant::openai {
namespace {

using testing_support::ApiFixture;

class NoTokenizer : public ApiFixture {
 protected:
  NoTokenizer() { spoken_ = &ids_; }
  void expect_refused(const std::string& path, const Json& body, const std::string& param, const std::string& instead) {
    const Json error = answer_of(post(path, body), 400)["error"];
    EXPECT_EQ(error["code"], "no_tokenizer") << path << " " << body;
    EXPECT_EQ(error["param"], param) << path << " " << body;
    const std::string message = error["message"].get<std::string>();
    EXPECT_NE(message.find("--skip-tokenizer-init"), std::string::npos) << message;
    EXPECT_NE(message.find(instead), std::string::npos) << message;
  }

 private:
  IdTokenizer ids_;
};

TEST_F(NoTokenizer, IdsInAndOut) {
  const auto exchange = complete({{"prompt", {5, 6, 7}}, {"max_tokens", 2}, {"logprobs", 1}});
  EXPECT_EQ(engine_.requests.at(1).prompt_token_ids, (std::vector<int32_t>{5, 6, 7}));
  OutputEvent only = engine_.event(1, 0, {8, 9}, FinishReason::kLength);
  only.logprobs = {{{8, -0.5f}, 1, {{8, -0.5f}}}, {{9, -0.25f}, 1, {{9, -0.25f}}}};
  engine_.deliver({only});
  pump();
  const Json choice = answer_of(exchange, 200)["choices"][0];
  EXPECT_EQ(choice["text"], "");
  EXPECT_EQ(choice["prompt_token_ids"], Json({5, 6, 7}));
  EXPECT_EQ(choice["token_ids"], Json({8, 9}));
  EXPECT_EQ(choice["logprobs"]["tokens"], Json({"token_id:8", "token_id:9"}));
  EXPECT_EQ(choice["finish_reason"], "length");
}

TEST_F(NoTokenizer, StreamsIds) {
  const auto exchange = complete({{"prompt", {5}}, {"max_tokens", 2}, {"stream", true}});
  engine_.deliver({engine_.event(1, 0, {8})});
  engine_.deliver({engine_.event(1, 0, {9}, FinishReason::kLength)});
  pump();
  const std::vector<Json> events = exchange->events();
  ASSERT_GE(events.size(), 3u) << exchange->written;
  EXPECT_EQ(events[0]["choices"][0]["token_ids"], Json({8}));
  EXPECT_EQ(events[1]["choices"][0]["token_ids"], Json({9}));
  EXPECT_EQ(events.back(), "[DONE]");
}

TEST_F(NoTokenizer, SaysWhatToDoInstead) {
  const Json messages = {{{"role", "user"}, {"content", "hi"}}};
  expect_refused("/v1/completions", {{"prompt", "text"}}, "prompt", "list of token ids");
  expect_refused("/v1/completions", {{"prompt", {"a", "b"}}}, "prompt[0]", "list of token ids");
  expect_refused("/v1/completions", {{"prompt", {5}}, {"stop", "\n"}}, "stop", "stop_token_ids");
  expect_refused("/v1/chat/completions", {{"messages", messages}}, "messages", "/v1/completions");
  expect_refused("/generate", {{"prompt", "text"}}, "prompt", "/v1/completions");
  expect_refused("/v1/stream", {{"prompt", "text"}}, "prompt", "/v1/completions");
  expect_refused("/tokenize", {{"prompt", "text"}}, "prompt", "before");
  expect_refused("/detokenize", {{"tokens", {5}}}, "tokens", "detokenize");
  EXPECT_TRUE(engine_.requests.empty());
}

}  // namespace
}  // namespace sextant::openai
