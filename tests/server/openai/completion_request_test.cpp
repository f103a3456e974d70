// Every field of /v1/completions, and with it those shared with chat: valid, out of range, of the wrong type,
// null.
#include "server/openai/completion_request.h"

#include <gtest/gtest.h>
#include <functional>
#include <string>
#include <vector>

namespace sextant::openai {
namespace {

constexpr ModelLimits kLimits{.vocab_size = 1000, .max_model_len = 2048};

Result<CompletionRequest> parse(const std::string& fields) {
  Json body = Json::parse("{" + fields + "}");
  if (!body.contains("prompt")) body["prompt"] = "p";
  return parse_completion_request(body, kLimits);
}

CompletionRequest parsed(const std::string& fields) {
  Result<CompletionRequest> request = parse(fields);
  EXPECT_TRUE(request.ok()) << fields << ": " << request.status().message();
  return request.ok() ? *std::move(request) : CompletionRequest();
}

// `param` of the refusal, which must also be in the message.
std::string refused(const std::string& fields) {
  const Result<CompletionRequest> request = parse(fields);
  EXPECT_FALSE(request.ok()) << fields;
  if (request.ok()) return {};
  EXPECT_EQ(request.status().code(), StatusCode::kInvalidArgument) << fields;
  EXPECT_NE(request.status().message().find(request.status().param()), std::string::npos) << request.status().message();
  return request.status().param();
}

struct FieldCase {
  const char* name;
  std::vector<const char*> valid;
  std::vector<const char*> invalid;  // of any kind: type or range
};

class CompletionField : public ::testing::TestWithParam<FieldCase> {};

TEST_P(CompletionField, IsCheckedAndNamed) {
  const FieldCase& field = GetParam();
  const std::string name = std::string("\"") + field.name + "\":";
  EXPECT_TRUE(parse(name + "null").ok() || std::string(field.name) == "prompt");
  for (const char* value : field.valid) {
    const Result<CompletionRequest> request = parse(name + value);
    EXPECT_TRUE(request.ok()) << name << value << ": " << request.status().message();
  }
  for (const char* value : field.invalid) {
    const std::string param = refused(name + value);
    EXPECT_EQ(param.substr(0, std::string(field.name).size()), field.name) << name << value;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Fields, CompletionField,
    ::testing::Values(
        FieldCase{"model", {"\"m\"", "\"\""}, {"1", "[]", "{}", "true"}},
        FieldCase{"prompt",
                  {"\"\"", "\"x\"", "[\"a\",\"b\"]", "[1,2,999]", "[[1],[2,3]]", "[1.0]"},
                  {"1", "{}", "true", "[]", "[1,\"a\"]", "[\"a\",1]", "[[1],\"a\"]", "[[1],2]", "[null]", "[true]",
                   "[1000]", "[-1]", "[1.5]", "[[1000]]", "[[\"a\"]]", "[{}]", "[99999999999999999999]"}},
        FieldCase{"n", {"1", "128", "2.0"}, {"0", "129", "-1", "1.5", "\"1\"", "true", "[1]", "1e30"}},
        FieldCase{"temperature", {"0", "0.7", "2", "10"}, {"-0.1", "1e39", "\"1\"", "true", "[]", "1e300"}},
        FieldCase{"top_p", {"1", "0.01"}, {"0", "1.01", "-1", "\"1\"", "false"}},
        FieldCase{"top_k", {"-1", "0", "50", "100000"}, {"-2", "1.5", "\"5\"", "1e12"}},
        FieldCase{"min_p", {"0", "1", "0.05"}, {"-0.1", "1.1", "{}"}},
        FieldCase{"presence_penalty", {"-2", "2", "0"}, {"-2.1", "2.1", "\"\""}},
        FieldCase{"frequency_penalty", {"-2", "2"}, {"3", "-3", "[]"}},
        FieldCase{"repetition_penalty", {"1", "1.5", "0.1"}, {"0", "-1", "\"1\"", "1e300"}},
        FieldCase{"logit_bias",
                  {"{}", "{\"5\":-100,\"999\":100.0}"},
                  {"[]", "{\"5\":101}", "{\"5\":-101}", "{\"1000\":1}", "{\"-1\":1}", "{\"x\":1}", "{\"5\":\"1\"}",
                   "{\"5x\":1}", "{\"\":1}", "{\"99999999999\":1}", "{\"5\":null}", "3"}},
        FieldCase{"allowed_token_ids", {"[0]", "[1,2]"}, {"[]", "[1000]", "[-1]", "1", "[\"1\"]"}},
        FieldCase{"seed",
                  {"0", "-1", "9223372036854775807", "-9223372036854775808"},
                  {"9223372036854775808", "1.5", "\"1\"", "1e30"}},
        FieldCase{"max_tokens", {"1", "2048", "100000"}, {"0", "-1", "1.5", "\"9\"", "true"}},
        FieldCase{"min_tokens", {"0", "5"}, {"-1", "2049", "\"1\""}},
        FieldCase{"ignore_eos", {"true", "false"}, {"1", "\"true\""}},
        FieldCase{"stop_token_ids", {"[]", "[1,2]"}, {"[1000]", "3", "[null]"}},
        FieldCase{"stop", {"\"x\"", "[]", "[\"a\",\"b\"]"}, {"\"\"", "[\"\"]", "[1]", "1", "{}", "[\"a\",null]"}},
        FieldCase{"include_stop_str_in_output", {"true"}, {"1"}}, FieldCase{"skip_special_tokens", {"false"}, {"0"}},
        FieldCase{"add_special_tokens", {"false"}, {"0", "\"\""}}, FieldCase{"echo", {"true"}, {"\"yes\""}},
        FieldCase{"stream", {"true", "false"}, {"1", "\"true\""}},
        FieldCase{"stream_options", {"{}"}, {"1", "[]", "{\"include_usage\":true}", "{\"includeusage\":1}"}},
        FieldCase{"logprobs", {"0", "20"}, {"-1", "21", "true", "\"5\""}},
        FieldCase{"prompt_logprobs", {"0", "20"}, {"-1", "21", "true"}},
        FieldCase{"truncate_prompt_tokens", {"-1", "1", "2048"}, {"0", "-2", "2049", "\"1\""}},
        FieldCase{"truncation_side", {"\"left\"", "\"right\""}, {"\"up\"", "1"}},
        FieldCase{"priority", {"0", "-5", "2147483647"}, {"2147483648", "-2147483649", "0.5", "\"1\""}},
        FieldCase{"cache_salt", {"\"abc\""}, {"\"\"", "1"}},
        FieldCase{"request_id", {"\"abc-1\""}, {"\"a b\"", "\"a\\n\"", "\"\\u00e9\"", "1"}},
        FieldCase{"return_token_ids", {"true"}, {"1"}}, FieldCase{"return_tokens_as_token_ids", {"true"}, {"1"}},
        FieldCase{"best_of", {"1"}, {"2", "0", "\"1\""}},
        // Accepted without effect.
        FieldCase{"user", {"\"u\""}, {"1"}}, FieldCase{"store", {"true"}, {"\"x\""}},
        FieldCase{"metadata", {"{\"a\":\"b\"}"}, {"\"x\""}}, FieldCase{"service_tier", {"\"auto\""}, {"2"}},
        FieldCase{"safety_identifier", {"\"s\""}, {"2"}}, FieldCase{"prompt_cache_key", {"\"s\""}, {"2"}},
        // Would change the answer.
        FieldCase{"suffix", {"\"\""}, {"\"x\"", "1"}},
        FieldCase{"response_format",
                  {"{\"type\":\"text\"}"},
                  {"{\"type\":\"json_object\"}", "{}", "\"text\"", "{\"type\":\"text\",\"x\":1}"}},
        FieldCase{"use_beam_search", {"false"}, {"true"}}, FieldCase{"length_penalty", {"1", "1.0"}, {"0.5"}},
        FieldCase{"bad_words", {"[]"}, {"[\"x\"]"}}, FieldCase{"logprob_token_ids", {}, {"[1]"}},
        FieldCase{"structured_outputs", {"{}"}, {"{\"json\":{}}"}}, FieldCase{"guided_json", {}, {"{}"}},
        FieldCase{"spaces_between_special_tokens", {"true"}, {"false"}}, FieldCase{"prompt_embeds", {"[]"}, {"\"x\""}},
        FieldCase{"thinking_token_budget", {"-1"}, {"5"}}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(CompletionRequest, DefaultsAreOpenAis) {
  const CompletionRequest request = parsed("");
  const SharedFields& shared = request.shared;
  EXPECT_EQ(shared.sampling.n, 1);
  EXPECT_EQ(shared.sampling.temperature, 1.0f);
  EXPECT_EQ(shared.sampling.top_p, 1.0f);
  EXPECT_EQ(shared.sampling.top_k, 0);
  EXPECT_FALSE(shared.sampling.logprobs);
  EXPECT_FALSE(shared.sampling.prompt_logprobs);
  EXPECT_FALSE(shared.max_tokens);
  EXPECT_FALSE(shared.seed);
  EXPECT_FALSE(shared.stream);
  EXPECT_FALSE(shared.echo);
  EXPECT_TRUE(shared.skip_special_tokens);
  EXPECT_FALSE(shared.add_special_tokens);
  EXPECT_TRUE(shared.stop.empty());
  ASSERT_EQ(request.prompts.size(), 1u);
  EXPECT_EQ(std::get<std::string>(request.prompts[0]), "p");
}

TEST(CompletionRequest, ValuesArriveWhereTheyBelong) {
  const CompletionRequest request = parsed(
      R"("model":"m","n":3,"best_of":3,"temperature":0.5,"top_p":0.9,"top_k":-1,"min_p":0.1,"presence_penalty":-1,
         "frequency_penalty":1.5,"repetition_penalty":1.1,"logit_bias":{"7":-3,"8":2.5},"allowed_token_ids":[7,8],
         "seed":-1,"max_tokens":50,"min_tokens":2,"ignore_eos":true,"stop_token_ids":[9],"stop":["a","b"],
         "include_stop_str_in_output":true,"skip_special_tokens":false,"add_special_tokens":false,"stream":true,
         "stream_options":{"include_usage":true,"continuous_usage_stats":true,"include_obfuscation":false},
         "logprobs":2,"priority":-3,"cache_salt":"s","request_id":"r","return_token_ids":true,
         "return_tokens_as_token_ids":true,"truncate_prompt_tokens":9,"truncation_side":"right")");
  const SharedFields& shared = request.shared;
  const SamplingParams& sampling = shared.sampling;
  EXPECT_EQ(shared.model, "m");
  EXPECT_EQ(sampling.n, 3);
  EXPECT_EQ(sampling.temperature, 0.5f);
  EXPECT_EQ(sampling.top_p, 0.9f);
  EXPECT_EQ(sampling.top_k, 0);
  EXPECT_EQ(sampling.min_p, 0.1f);
  EXPECT_EQ(sampling.presence_penalty, -1.0f);
  EXPECT_EQ(sampling.frequency_penalty, 1.5f);
  EXPECT_EQ(sampling.repetition_penalty, 1.1f);
  EXPECT_EQ(sampling.logit_bias, (std::vector<std::pair<int32_t, float>>{{7, -3.0f}, {8, 2.5f}}));
  EXPECT_EQ(sampling.allowed_token_ids, (std::vector<int32_t>{7, 8}));
  EXPECT_EQ(shared.seed, UINT64_MAX);
  EXPECT_EQ(shared.max_tokens, 50);
  EXPECT_EQ(sampling.min_tokens, 2);
  EXPECT_TRUE(sampling.ignore_eos);
  EXPECT_EQ(sampling.stop_token_ids, (std::vector<int32_t>{9}));
  EXPECT_EQ(shared.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(shared.include_stop_str_in_output);
  EXPECT_FALSE(shared.skip_special_tokens);
  EXPECT_EQ(shared.add_special_tokens, false);
  EXPECT_TRUE(shared.stream && shared.include_usage && shared.continuous_usage_stats);
  EXPECT_EQ(sampling.logprobs, 2);
  EXPECT_FALSE(sampling.prompt_logprobs);
  EXPECT_EQ(shared.priority, -3);
  EXPECT_EQ(shared.cache_salt, "s");
  EXPECT_EQ(shared.request_id, "r");
  EXPECT_TRUE(shared.return_token_ids && shared.return_tokens_as_token_ids);
  EXPECT_EQ(shared.truncate_prompt_tokens, 9);
  EXPECT_FALSE(shared.truncate_left);
}

TEST(CompletionRequest, PromptsOfEveryForm) {
  EXPECT_EQ(parsed(R"("prompt":["a","b"])").prompts.size(), 2u);
  const CompletionRequest ids = parsed(R"("prompt":[5,6])");
  ASSERT_EQ(ids.prompts.size(), 1u);
  EXPECT_EQ(std::get<std::vector<int32_t>>(ids.prompts[0]), (std::vector<int32_t>{5, 6}));
  const CompletionRequest lists = parsed(R"("prompt":[[5,6],[7]])");
  ASSERT_EQ(lists.prompts.size(), 2u);
  EXPECT_EQ(std::get<std::vector<int32_t>>(lists.prompts[1]), (std::vector<int32_t>{7}));
}

TEST(CompletionRequest, NamesTheElementAtFault) {
  EXPECT_EQ(refused(R"("prompt":["a","b",3])"), "prompt[2]");
  EXPECT_EQ(refused(R"("prompt":[1,2,1000])"), "prompt[2]");
  EXPECT_EQ(refused(R"("prompt":[[1],[2,-1]])"), "prompt[1][1]");
  EXPECT_EQ(refused(R"("stop":["a",""])"), "stop[1]");
  EXPECT_EQ(refused(R"("logit_bias":{"7":1000})"), "logit_bias.7");
  EXPECT_EQ(refused(R"("stream":true,"stream_options":{"include_usage":1})"), "stream_options.include_usage");
  EXPECT_EQ(refused(R"("stream":true,"stream_options":{"inclde_usage":true})"), "stream_options.inclde_usage");
}

TEST(CompletionRequest, FieldsThatNeedEachOther) {
  EXPECT_EQ(refused(R"("max_tokens":0)"), "max_tokens");
  EXPECT_EQ(parsed(R"("max_tokens":0,"echo":true)").shared.max_tokens, 0);
  EXPECT_EQ(refused(R"("stream":true,"prompt_logprobs":1)"), "prompt_logprobs");
  EXPECT_EQ(refused(R"("min_tokens":9,"max_tokens":8)"), "min_tokens");
  // An echo shows the prompt's log-probabilities without prompt_logprobs being asked for.
  const CompletionRequest echo = parsed(R"("echo":true,"logprobs":3)");
  EXPECT_EQ(echo.shared.sampling.prompt_logprobs, 3);
  EXPECT_FALSE(echo.shared.show_prompt_logprobs);
}

TEST(CompletionRequest, BoundsLists) {
  Json many = Json::array();
  for (size_t i = 0; i <= kMaxPrompts; ++i) many.push_back("x");
  EXPECT_EQ(refused("\"prompt\":" + many.dump()), "prompt");
  Json stops = Json::array();
  for (int i = 0; i <= kMaxStopStrings; ++i) stops.push_back("x");
  EXPECT_EQ(refused("\"stop\":" + stops.dump()), "stop");
  EXPECT_EQ(refused("\"stop\":\"" + std::string(kMaxStopBytes + 1, 'x') + "\""), "stop");
  EXPECT_TRUE(parse("\"stop\":\"" + std::string(kMaxStopBytes, 'x') + "\"").ok());
  EXPECT_EQ(refused(R"("n":128,"prompt":["1","2","3","4","5","6","7","8","9"])"), "n");
  EXPECT_TRUE(parse(R"("n":128,"prompt":["1","2","3","4","5","6","7","8"])").ok());
}

TEST(CompletionRequest, RequiresAnObjectAndAPrompt) {
  EXPECT_FALSE(parse_completion_request(Json::parse("[]"), kLimits).ok());
  EXPECT_FALSE(parse_completion_request(Json::parse("\"x\""), kLimits).ok());
  const auto missing = parse_completion_request(Json::parse("{}"), kLimits);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.status().param(), "prompt");
  EXPECT_EQ(missing.status().error_code(), "missing_required_parameter");
}

TEST(CompletionRequest, UnknownFieldsAreNamedWithTheNearest) {
  const auto request = parse(R"("max_token":5)");
  ASSERT_FALSE(request.ok());
  EXPECT_EQ(request.status().param(), "max_token");
  EXPECT_NE(request.status().message().find("\"max_tokens\""), std::string::npos) << request.status().message();
}

}  // namespace
}  // namespace sextant::openai
