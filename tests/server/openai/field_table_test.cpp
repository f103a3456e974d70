#include "server/openai/field_table.h"

#include <gtest/gtest.h>

namespace sextant::openai {
namespace {

const FieldTable& table() {
  static const FieldTable value({{
      used("temperature"),
      used("top_p"),
      ignored("user", FieldType::kString),
      ignored("store", FieldType::kBoolean),
      ignored("metadata", FieldType::kObject),
      unsupported_unless("suffix", R"(["", "none"])", "nothing is filled in"),
      unsupported_unless("audio", "[]", "text only"),
  }});
  return value;
}

Status check(const char* text, std::string_view path = {}) { return table().check(Json::parse(text), path); }

TEST(FieldTable, AcceptsWhatItKnows) {
  EXPECT_TRUE(check("{}").ok());
  EXPECT_TRUE(check(R"({"temperature":"unchecked here","user":"u","store":true,"metadata":{"a":"b"}})").ok());
  EXPECT_TRUE(check(R"({"suffix":"","audio":null})").ok());
  EXPECT_TRUE(check(R"({"suffix":"none"})").ok());
}

TEST(FieldTable, NamesAnUnknownFieldAndTheNearest) {
  const Status status = check(R"({"temprature":1})");
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.param(), "temprature");
  EXPECT_EQ(status.error_code(), "unknown_field");
  EXPECT_NE(status.message().find("Did you mean \"temperature\"?"), std::string::npos) << status.message();
  EXPECT_EQ(check(R"({"qqqqqqqqqqqqq":1})").message().find("Did you mean"), std::string::npos);
}

TEST(FieldTable, NamesThePath) {
  const Status status = check(R"({"topp":1})", "messages[3]");
  EXPECT_EQ(status.param(), "messages[3].topp");
  EXPECT_NE(status.message().find("\"messages[3].top_p\""), std::string::npos) << status.message();
}

TEST(FieldTable, ChecksTheTypeOfIgnoredFields) {
  const Status status = check(R"({"user":12})");
  EXPECT_EQ(status.param(), "user");
  EXPECT_EQ(status.message(), "'user' must be a string, not an integer.");
  EXPECT_FALSE(check(R"({"store":"yes"})").ok());
  EXPECT_FALSE(check(R"({"metadata":[]})").ok());
  EXPECT_TRUE(check(R"({"user":null,"store":null,"metadata":null})").ok());
}

TEST(FieldTable, RefusesUnsupportedFieldsWithTheirNeutralValues) {
  const Status status = check(R"({"suffix":"end"})");
  EXPECT_EQ(status.param(), "suffix");
  EXPECT_EQ(status.error_code(), "unsupported_parameter");
  EXPECT_EQ(status.message(),
            "'suffix' is not supported: nothing is filled in. Leave it out, or give one of [\"\",\"none\"].");
  EXPECT_EQ(check(R"({"audio":{}})").message(), "'audio' is not supported: text only. Leave it out.");
}

// A hostile name is neither long nor raw in the answer.
TEST(FieldTable, BoundsWhatItRepeats) {
  const Status status = table().check(Json{{std::string(1'000'000, '\n'), 1}});
  EXPECT_FALSE(status.ok());
  EXPECT_LT(status.message().size(), 500u);
  EXPECT_LT(status.param().size(), 200u);
  EXPECT_EQ(status.message().find('\n'), std::string::npos);
}

// Every field of OpenAI's schemas (openai-python 2.x) is in the table: a client that sends one gets a reason,
// not "unknown".
TEST(FieldTable, KnowsOpenAisFields) {
  for (const char* name : {"messages",
                           "model",
                           "audio",
                           "frequency_penalty",
                           "function_call",
                           "functions",
                           "logit_bias",
                           "logprobs",
                           "max_completion_tokens",
                           "max_tokens",
                           "metadata",
                           "modalities",
                           "n",
                           "parallel_tool_calls",
                           "prediction",
                           "presence_penalty",
                           "prompt_cache_key",
                           "prompt_cache_retention",
                           "reasoning_effort",
                           "response_format",
                           "safety_identifier",
                           "seed",
                           "service_tier",
                           "stop",
                           "store",
                           "stream",
                           "stream_options",
                           "temperature",
                           "tool_choice",
                           "tools",
                           "top_logprobs",
                           "top_p",
                           "user",
                           "verbosity",
                           "web_search_options"}) {
    EXPECT_TRUE(chat_fields().check(Json{{name, nullptr}}).ok()) << name;
  }
  for (const char* name :
       {"model", "prompt", "best_of", "echo", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n",
        "presence_penalty", "seed", "stop", "stream", "stream_options", "suffix", "temperature", "top_p", "user"}) {
    EXPECT_TRUE(completion_fields().check(Json{{name, nullptr}}).ok()) << name;
  }
}

}  // namespace
}  // namespace sextant::openai
