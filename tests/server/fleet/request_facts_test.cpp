#include "server/fleet/request_facts.h"

#include <gtest/gtest.h>

#include <random>

#include <nlohmann/json.hpp>

namespace sextant::fleet {
namespace {

TEST(RequestFacts, OfChatsAndCompletions) {
  const std::string body =
      R"( {"stream": true, "messages": [{"role":"user","content":"a \"model\": \"x\" }]"}], "model":"m\u00e9\/1",
    "max_tokens": 7, "n": 3, "metadata": {"model": "inner"} } )";
  const Result<RequestFacts> facts = read_request_facts(body);
  ASSERT_TRUE(facts.ok()) << facts.status().message();
  EXPECT_EQ(facts->model, "mé/1");
  EXPECT_TRUE(facts->stream);
  EXPECT_EQ(facts->max_tokens, 7);
  EXPECT_EQ(facts->num_choices, 3);
  EXPECT_EQ(facts->prompt, R"([{"role":"user","content":"a \"model\": \"x\" }]"}])");
  EXPECT_EQ(facts->estimated_tokens(256), static_cast<int64_t>(facts->prompt.size() / 4) + 21 + 1);
  EXPECT_EQ(read_request_facts(R"({"prompt":[1,2,[3]]})")->prompt, "[1,2,[3]]");
  EXPECT_EQ(read_request_facts(R"({"prompt":"x","max_completion_tokens":5,"max_tokens":9})")->max_tokens, 5);
  EXPECT_EQ(read_request_facts(R"({"prompt":"abcdefgh"})")->estimated_tokens(256), 2 + 256 + 1);
  EXPECT_EQ(read_request_facts("{}")->estimated_tokens(0), 1);
  // Hostile counts stay counts.
  EXPECT_EQ(read_request_facts(R"({"max_tokens":1e400})")->max_tokens, -1);
  EXPECT_EQ(read_request_facts(R"({"max_tokens":-5})")->max_tokens, -1);
  EXPECT_GT(read_request_facts(R"({"max_tokens":1e18,"n":1e18})")->estimated_tokens(1), 0);
  // As readers of JSON take it: the last one.
  EXPECT_EQ(read_request_facts(R"({"model":"a","model":"b"})")->model, "b");
}

TEST(RequestFacts, WhatIsNoObjectIsRefused) {
  for (const std::string bad :
       {"", "  ", "[]", "\"x\"", "{", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{\"a\":1}x", "{a:1}",
        "{\"model\":1}", "{\"model\":\"\\ud800\"}", "{\"a\":\"\\", "{\"a\":[1,{}"})
    EXPECT_FALSE(read_request_facts(bad).ok()) << bad;
  EXPECT_FALSE(read_request_facts("{\"a\":" + std::string(100'000, '[') + "}").ok());
}

TEST(RequestFacts, AnotherModelInItsPlace) {
  const auto renamed = [](const std::string& body, const std::string& model) {
    const Result<RequestFacts> facts = read_request_facts(body);
    return with_model(body, facts.value(), model);
  };
  EXPECT_EQ(renamed(R"({"a":1, "model" : "x", "b":2})", "y\"z"), R"({"a":1, "model" : "y\"z", "b":2})");
  EXPECT_EQ(renamed(R"( {"a":1})", "y"), R"( {"model":"y","a":1})");
  EXPECT_EQ(renamed(" { } ", "y"), R"( {"model":"y" } )");
}

// Whatever parses as an object has the facts that a reader of JSON finds.
TEST(RequestFacts, AgreeWithAReaderOfJson) {
  const uint32_t seed = std::random_device()();
  std::mt19937 random(seed);
  const std::vector<std::string> keys = {"model", "stream", "max_tokens", "n", "messages", "prompt", "x\n", "é"};
  const std::function<nlohmann::json(int)> value = [&](int depth) -> nlohmann::json {
    switch (random() % (depth > 3 ? 5 : 7)) {
      case 0: return static_cast<int>(random() % 2000) - 1000;
      case 1: return random() % 2 == 0;
      case 2: return nullptr;
      case 3: return "text \" \\ } ] , : \u20ac";
      case 4: return 0.25 * static_cast<double>(random() % 100);
      case 5: {
        nlohmann::json out = nlohmann::json::array();
        for (unsigned i = random() % 4; i > 0; --i) out.push_back(value(depth + 1));
        return out;
      }
      default: {
        nlohmann::json out = nlohmann::json::object();
        for (unsigned i = random() % 4; i > 0; --i) out[keys[random() % keys.size()]] = value(depth + 1);
        return out;
      }
    }
  };
  for (int round = 0; round < 2000; ++round) {
    nlohmann::json object = nlohmann::json::object();
    for (unsigned i = random() % 6; i > 0; --i) object[keys[random() % keys.size()]] = value(0);
    if (random() % 2 == 0) object["model"] = "m" + std::to_string(random() % 10);
    const std::string text = object.dump(random() % 2 == 0 ? -1 : 2, ' ', random() % 2 == 0);
    const Result<RequestFacts> facts = read_request_facts(text);
    const bool has_bad_model = object.contains("model") && !object["model"].is_string();
    ASSERT_EQ(facts.ok(), !has_bad_model) << text << " seed " << seed;
    if (!facts.ok()) continue;
    EXPECT_EQ(facts->model, object.value("model", nlohmann::json("")).get<std::string>()) << text;
    EXPECT_EQ(facts->stream, object.contains("stream") && object["stream"] == true) << text;
    const char* key = object.contains("messages") ? "messages" : "prompt";
    if (object.contains(key)) {
      EXPECT_EQ(nlohmann::json::parse(facts->prompt), object[key]) << text;
    }
  }
}

}  // namespace
}  // namespace sextant::fleet
