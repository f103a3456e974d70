#include "server/openai/tokenize.h"

#include <gtest/gtest.h>
#include <string>

#include "tests/support/api_fixture.h"

namespace sextant::openai {
namespace {

using testing_support::ApiFixture;

class TokenizeTest : public ApiFixture {
 protected:
  Json ok(const std::string& path, const Json& body) { return answer_of(post(path, body), 200); }
  std::string refused(const std::string& path, const Json& body, int status = 400) {
    const Json error = answer_of(post(path, body), status)["error"];
    return error["param"].is_null() ? std::string() : error["param"].get<std::string>();
  }
};

TEST_F(TokenizeTest, Text) {
  EXPECT_EQ(ok("/tokenize", {{"model", "tiny"}, {"prompt", "a<eos>"}}).dump(),
            R"({"count":3,"max_model_len":256,"tokens":[256,97,257],"token_strs":null})");
  EXPECT_EQ(ok("/tokenize", {{"prompt", "a"}, {"add_special_tokens", false}, {"return_token_strs", true}}).dump(),
            R"({"count":1,"max_model_len":256,"tokens":[97],"token_strs":["<0x97>"]})");
  EXPECT_EQ(ok("/tokenize", {{"prompt", ""}, {"add_special_tokens", false}})["count"], 0);
  // Longer than the context is no error here.
  EXPECT_EQ(ok("/tokenize", {{"prompt", std::string(1000, 'x')}})["count"], 1001);
}

TEST_F(TokenizeTest, Chat) {
  const Json messages = {{{"role", "user"}, {"content", "hi"}}};
  const Json answer = ok("/tokenize", {{"messages", messages}});
  EXPECT_EQ(answer["count"], 20);
  EXPECT_EQ(answer["tokens"][0], '[');
  EXPECT_EQ(ok("/tokenize", {{"messages", messages}, {"add_generation_prompt", false}})["count"], 9);
  EXPECT_EQ(ok("/tokenize", {{"messages", messages}, {"add_special_tokens", true}})["tokens"][0], 256);
  EXPECT_EQ(ok("/tokenize", {{"messages", messages}, {"continue_final_message", true}})["count"], 8);
  EXPECT_EQ(ok("/tokenize", {{"messages", messages}, {"tools", {{{"type", "function"}}}}})["count"], 20);
}

TEST_F(TokenizeTest, Detokenizes) {
  EXPECT_EQ(ok("/detokenize", {{"tokens", {256, 97, 98, 257}}}).dump(), R"({"prompt":"<bos>ab<eos>"})");
  EXPECT_EQ(ok("/detokenize", {{"tokens", Json::array()}})["prompt"], "");
  EXPECT_EQ(ok("/detokenize", {{"tokens", {0xC3}}})["prompt"], "\xEF\xBF\xBD");
}

TEST_F(TokenizeTest, NamesWhatIsWrong) {
  EXPECT_EQ(refused("/tokenize", Json::object()), "prompt");
  EXPECT_EQ(refused("/tokenize", {{"prompt", 5}}), "prompt");
  EXPECT_EQ(refused("/tokenize", {{"prompt", {"a", "b"}}}), "prompt");
  EXPECT_EQ(refused("/tokenize", {{"prompt", "a"}, {"promt", "b"}}), "promt");
  EXPECT_EQ(refused("/tokenize", {{"prompt", "a"}, {"add_special_tokens", 1}}), "add_special_tokens");
  EXPECT_EQ(refused("/tokenize", {{"messages", {{{"role", "user"}}}}}), "messages[0].content");
  EXPECT_EQ(refused("/tokenize", {{"model", "other"}, {"prompt", "a"}}, 404), "model");
  EXPECT_EQ(refused("/tokenize", {{"model", 3}, {"prompt", "a"}}), "model");
  EXPECT_EQ(refused("/tokenize", Json::array()), "");
  EXPECT_EQ(refused("/detokenize", Json::object()), "tokens");
  EXPECT_EQ(refused("/detokenize", {{"tokens", "abc"}}), "tokens");
  EXPECT_EQ(refused("/detokenize", {{"tokens", {1, 259}}}), "tokens[1]");
  EXPECT_EQ(refused("/detokenize", {{"tokens", {-1}}}), "tokens[0]");
  EXPECT_EQ(refused("/detokenize", {{"model", "other"}, {"tokens", {1}}}, 404), "model");
}

}  // namespace
}  // namespace sextant::openai
