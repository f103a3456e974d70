#include "server/openai/logprobs_render.h"

#include <gtest/gtest.h>
#include <limits>
#include <vector>

#include "tests/support/byte_tokenizer.h"

namespace sextant::openai {
namespace {

using testing_support::ByteTokenizer;

PositionLogprobs position(int32_t id, float logprob, int32_t rank, std::vector<TokenLogprob> top) {
  return {{id, logprob}, rank, std::move(top)};
}

class LogprobsRenderTest : public ::testing::Test {
 protected:
  ByteTokenizer tokenizer_;
  const LogprobsRenderer renderer_{tokenizer_, false, true};
  size_t offset_ = 0;
};

TEST_F(LogprobsRenderTest, CompletionForm) {
  const std::vector<int32_t> ids = {'a', 'b'};
  const std::vector<PositionLogprobs> logprobs = {position('a', -0.5f, 1, {{'a', -0.5f}, {'c', -1.0f}}),
                                                  position('b', -4.0f, 7, {{'x', -0.25f}, {'y', -2.0f}})};
  EXPECT_EQ(renderer_.completion({}, {}, "", ids, logprobs, &offset_).dump(),
            R"({"text_offset":[0,1],"token_logprobs":[-0.5,-4.0],"tokens":["a","b"],)"
            R"("top_logprobs":[{"a":-0.5,"c":-1.0},{"b":-4.0,"x":-0.25,"y":-2.0}]})");
  EXPECT_EQ(offset_, 2u);
  // The next piece goes on from there.
  EXPECT_EQ(renderer_.completion({}, {}, "", ids, logprobs, &offset_)["text_offset"].dump(), "[2,3]");
}

TEST_F(LogprobsRenderTest, EchoedPromptsFirstTokenHasNone) {
  const std::vector<int32_t> prompt = {ByteTokenizer::kBos, 'h', 'i'};
  const std::vector<PositionLogprobs> prompt_logprobs = {position('h', -1.0f, 1, {}), position('i', -2.0f, 1, {})};
  const std::vector<int32_t> ids = {'!'};
  const std::vector<PositionLogprobs> logprobs = {position('!', -3.0f, 1, {})};
  const Json out = renderer_.completion(prompt, prompt_logprobs, "hi", ids, logprobs, &offset_);
  EXPECT_EQ(out["tokens"].dump(), R"(["<bos>","h","i","!"])");
  EXPECT_EQ(out["token_logprobs"].dump(), "[null,-1.0,-2.0,-3.0]");
  EXPECT_TRUE(out["top_logprobs"][0].is_null());
  // <bos> was added: it takes no place in the text.
  EXPECT_EQ(out["text_offset"].dump(), "[0,0,1,2]");
}

TEST_F(LogprobsRenderTest, OffsetsCountCharacters) {
  const std::vector<int32_t> ids = {0xC3, 0xA9, 'x', ByteTokenizer::kEos};
  const Json out = renderer_.completion({}, {}, "", ids, {}, &offset_);
  EXPECT_EQ(out["text_offset"].dump(), "[0,1,1,2]");
  EXPECT_EQ(out["tokens"][0], "bytes:\\xc3");
  EXPECT_EQ(out["tokens"][1], "bytes:\\xa9");
  EXPECT_EQ(offset_, 2u);  // the special token is not in the text
}

TEST_F(LogprobsRenderTest, ChatForm) {
  const std::vector<int32_t> ids = {0xC3};
  const std::vector<PositionLogprobs> logprobs = {position(0xC3, -0.5f, 1, {{0xC3, -0.5f}, {'c', -1.0f}})};
  EXPECT_EQ(renderer_.chat(ids, logprobs).dump(),
            "{\"content\":[{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-0.5,\"bytes\":[195],\"top_logprobs\":["
            "{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-0.5,\"bytes\":[195]},"
            "{\"token\":\"c\",\"logprob\":-1.0,\"bytes\":[99]}]}],\"refusal\":null}");
}

TEST_F(LogprobsRenderTest, PromptForm) {
  const std::vector<int32_t> ids = {'a', 'b', 'c'};
  const std::vector<PositionLogprobs> logprobs = {position('b', -4.0f, 9, {{'x', -0.5f}}),
                                                  position('c', -0.5f, 1, {{'c', -0.5f}})};
  EXPECT_EQ(
      renderer_.prompt(ids, logprobs).dump(),
      R"([null,{"98":{"logprob":-4.0,"rank":9,"decoded_token":"b"},"120":{"logprob":-0.5,"rank":1,"decoded_token":"x"}},)"
      R"({"99":{"logprob":-0.5,"rank":1,"decoded_token":"c"}}])");
}

TEST_F(LogprobsRenderTest, TokensAsIds) {
  const LogprobsRenderer as_ids(tokenizer_, true, true);
  const std::vector<int32_t> ids = {'a'};
  const std::vector<PositionLogprobs> logprobs = {position('a', -0.5f, 1, {{'b', -1.0f}})};
  EXPECT_EQ(as_ids.chat(ids, logprobs)["content"][0]["token"], "token_id:97");
  EXPECT_EQ(as_ids.completion({}, {}, "", ids, logprobs, &offset_)["top_logprobs"][0].dump(),
            R"({"token_id:97":-0.5,"token_id:98":-1.0})");
}

// JSON has neither infinities nor NaN.
TEST_F(LogprobsRenderTest, UnboundedLogprobsBecomeOpenAisLeast) {
  const std::vector<int32_t> ids = {'a', 'b'};
  const std::vector<PositionLogprobs> logprobs = {position('a', -std::numeric_limits<float>::infinity(), 9, {}),
                                                  position('b', std::numeric_limits<float>::quiet_NaN(), 9, {})};
  EXPECT_EQ(renderer_.completion({}, {}, "", ids, logprobs, &offset_)["token_logprobs"].dump(), "[-9999.0,-9999.0]");
}

}  // namespace
}  // namespace sextant::openai
