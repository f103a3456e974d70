#include "server/openai/json_reader.h"
#include "tests/support/random_seed.h"

#include <gtest/gtest.h>
#include <random>
#include <string>

namespace sextant::openai {
namespace {

std::string error_of(std::string_view text, const JsonLimits& limits = {}) {
  const Result<Json> parsed = parse_json(text, limits);
  EXPECT_FALSE(parsed.ok()) << text;
  if (parsed.ok()) return {};
  EXPECT_EQ(parsed.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(parsed.status().error_code(), "invalid_json");
  return parsed.status().message();
}

TEST(JsonReader, ReadsEveryKindOfValueAsTheLibraryDoes) {
  for (const char* text : {"null", "true", "-12", "18446744073709551615", "1.5e3", "\"a\\u00e9\\n\"", "[]", "{}",
                           " [1, [2, {\"b\": [], \"a\": {\"x\": null}}], \"z\"] \n", "\"\\ud83d\\ude00\""}) {
    const Result<Json> parsed = parse_json(text);
    ASSERT_TRUE(parsed.ok()) << text << ": " << parsed.status().message();
    EXPECT_EQ(*parsed, Json::parse(text)) << text;
    EXPECT_EQ(parsed->dump(), Json::parse(text).dump()) << text;
  }
}

TEST(JsonReader, KeepsTheOrderOfKeys) {
  const Result<Json> parsed = parse_json(R"({"z":1,"a":2,"m":3})");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->dump(), R"({"z":1,"a":2,"m":3})");
}

TEST(JsonReader, SaysWhere) {
  EXPECT_NE(error_of("{\"a\": 1,\n \"b\": nope}").find("line 2, column"), std::string::npos)
      << error_of("{\"a\": 1,\n \"b\": nope}");
  EXPECT_NE(error_of("{\"a\" 1}").find("line 1, column 6 (byte 6)"), std::string::npos) << error_of("{\"a\" 1}");
  EXPECT_NE(error_of("[1, 2").find("ends here"), std::string::npos) << error_of("[1, 2");
  EXPECT_NE(error_of("").find("empty"), std::string::npos) << error_of("");
  EXPECT_NE(error_of("{\"a\":1,\n\"a\":2}").find("line 2"), std::string::npos);
}

TEST(JsonReader, RefusesWhatIsNotJson) {
  for (const char* text :
       {"NaN",    "[Infinity]", "-Infinity", "{'a': 1}", "[1,]",  "{\"a\":1,}", "[1] [2]", "[1]x",        "01",
        "+1",     ".5",         "\"a\nb\"",  "// no\n1", "1e999", "-1e999",     "[1e400]", "\"\\ud800\"", "\"\\x41\"",
        "{1: 2}", "undefined",  "\"open",    "[",        "{",     "nul",        "\x01"}) {
    error_of(text);
  }
}

TEST(JsonReader, RefusesInvalidUtf8) {
  for (const std::string bytes : {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    const std::string message = error_of("{\"a\": \"" + bytes + "\"}");
    EXPECT_NE(message.find("UTF-8"), std::string::npos) << message;
  }
}

TEST(JsonReader, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_NE(error_of(R"({"a":1,"b":2,"a":3})").find("\"a\" occurs twice"), std::string::npos);
  error_of(R"([{"x":{"y":1,"y":1}}])");
  EXPECT_TRUE(parse_json(R"([{"a":1},{"a":1},{"b":{"a":1}}])").ok());
  // A name that the message cannot show as it is.
  error_of("{\"\\u0000\\n\":1,\"\\u0000\\n\":2}");
}

TEST(JsonReader, BoundsDepth) {
  const JsonLimits limits{.max_depth = 5};
  EXPECT_TRUE(parse_json("[[[[[1]]]]]", limits).ok());
  EXPECT_NE(error_of("[[[[[[1]]]]]]", limits).find("deeper than 5"), std::string::npos);
  EXPECT_NE(error_of(std::string(10'000'000, '[')).find("deeper"), std::string::npos);
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_NE(error_of(objects).find("deeper"), std::string::npos);
}

TEST(JsonReader, BoundsTheNumberOfValues) {
  const JsonLimits limits{.max_values = 10};
  EXPECT_TRUE(parse_json("[1,2,3,4,5,6,7,8,9]", limits).ok());
  EXPECT_NE(error_of("[1,2,3,4,5,6,7,8,9,10]", limits).find("more than 10 values"), std::string::npos);
}

// Quadratic work would take hours here.
TEST(JsonReader, ManyKeysTakeLinearTime) {
  std::string text = "{";
  constexpr int kNumKeys = 200'000;
  for (int i = 0; i < kNumKeys; ++i) text += (i == 0 ? "\"k" : ",\"k") + std::to_string(i) + "\":0";
  const Result<Json> parsed = parse_json(text + "}");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->size(), static_cast<size_t>(kNumKeys));
}

// Whatever the damage, there is an answer, and what is accepted is what the library makes of it.
TEST(JsonReader, DamagedTextIsRefusedOrReadRight) {
  const std::string whole = R"({"model":"m","prompt":["a\u00e9\"","b"],"n":-2,"x":[1.5e3,null,true,{"k":[]}]})";
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int i = 0; i < 20'000; ++i) {
    std::string text = whole.substr(0, random() % (whole.size() + 1));
    for (unsigned k = random() % 4; k > 0 && !text.empty(); --k)
      text[random() % text.size()] = static_cast<char>(random());
    const Result<Json> parsed = parse_json(text);
    if (parsed.ok()) {
      EXPECT_EQ(*parsed, Json::parse(text)) << text;
    } else {
      EXPECT_FALSE(parsed.status().message().empty());
    }
  }
}

}  // namespace
}  // namespace sextant::openai
