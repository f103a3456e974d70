#include "engine/format/json_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/format/printable.h"
#include "tests/support/random_seed.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

std::string error_of(std::string_view text, const JsonLimits& limits = {}) {
  const Result<Json> value = parse_json(text, "x.json", limits);
  EXPECT_FALSE(value.ok()) << text;
  return value.ok() ? "" : value.status().message();
}

TEST(JsonFile, ParsesWhatTheLibraryParses) {
  for (const char* text :
       {"{}", "[]", "0", "null", "\"x\"", "[1,[2,[3]],{\"a\":[{}],\"b\":{\"c\":null}}]",
        "{\"a\":-1,\"b\":1.5,\"c\":true,\"d\":18446744073709551615,\"e\":\"\\u00e9\\ud83d\\ude00\"}", " [ 1 , 2 ]\n"}) {
    const Result<Json> value = parse_json(text, "x.json");
    ASSERT_TRUE(value.ok()) << value.status().message();
    EXPECT_EQ(*value, Json::parse(text)) << text;
  }
}

TEST(JsonFile, ErrorsSayWhere) {
  EXPECT_THAT(error_of("{\n  \"a\": tru\n}"), HasSubstr("x.json: line 2, column 11 (byte 12)"));
  EXPECT_THAT(error_of("{\n  \"a\": tru\n}"), HasSubstr("invalid literal"));
  EXPECT_THAT(error_of(""), HasSubstr("line 1, column 1 (byte 0)"));
  EXPECT_THAT(error_of("[1,\n2"), HasSubstr("line 2, column 2 (byte 5)"));
  EXPECT_THAT(error_of("{} {}"), HasSubstr("x.json: line 1, column 4 (byte 3)"));
  EXPECT_THAT(error_of("{\"a\":1,\"b\":{\"a\":1,\"a\":2}}"), HasSubstr("key 'a' occurs twice"));
  EXPECT_THAT(error_of("{\"a\":NaN}"), HasSubstr("invalid literal"));
  EXPECT_THAT(error_of("{\"a\":Infinity}"), HasSubstr("invalid literal"));
  EXPECT_THAT(error_of("[1e999]"), HasSubstr("number overflow"));
  EXPECT_THAT(error_of("[\"\xff\xfe\"]"), HasSubstr("ill-formed UTF-8"));
  EXPECT_THAT(error_of("[\"\x1b[31m\"]"), ::testing::Not(HasSubstr("\x1b"))) << "no terminal codes in messages";
}

TEST(JsonFile, LimitsHold) {
  JsonLimits limits;
  limits.max_depth = 3;
  EXPECT_TRUE(parse_json("[[[1]]]", "x.json", limits).ok());
  EXPECT_THAT(error_of("[[[[1]]]]", limits), HasSubstr("nested deeper than 3 levels"));
  EXPECT_THAT(error_of(std::string(1 << 20, '[')), HasSubstr("nested deeper than 64 levels"));
  limits.max_values = 4;
  EXPECT_TRUE(parse_json("[1,2,3]", "x.json", limits).ok());
  EXPECT_THAT(error_of("[1,2,3,4]", limits), HasSubstr("more than 4 values"));
  limits.max_bytes = 4;
  EXPECT_EQ(parse_json("[1,2]", "x.json", limits).status().code(), StatusCode::kTooLarge);
}

TEST(JsonFile, ReadsFilesWithinTheLimit) {
  const ScratchDirectory scratch;
  const std::string path = scratch.write("a.json", "{\"a\": 1}");
  EXPECT_EQ((*read_json_file(path))["a"], 1);
  JsonLimits limits;
  limits.max_bytes = 7;
  EXPECT_EQ(read_json_file(path, limits).status().code(), StatusCode::kTooLarge);
  EXPECT_EQ(read_json_file(scratch.file("absent.json")).status().code(), StatusCode::kNotFound);
  EXPECT_THAT(read_json_file(scratch.path()).status().message(), HasSubstr("is a directory"));
  EXPECT_EQ(read_text_file("/dev/zero", 100).status().code(), StatusCode::kInvalidArgument) << "not a regular file";
}

TEST(JsonFile, EveryPrefixOfAnObjectIsAnError) {
  const std::string text = R"({"a":[1,2,{"b":"c\u00e9"}],"d":-1.5e3,"e":[true,null]})";
  for (size_t length = 0; length < text.size(); ++length) error_of(std::string_view(text).substr(0, length));
}

TEST(JsonFile, DamagedTextAgreesWithTheLibrary) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(static_cast<uint32_t>(seed));
  const std::string valid = R"({"a":[1,2,{"b":"c\u00e9"}],"d":-1.5e3,"e":[true,null],"f":{"g":{}}})";
  for (int round = 0; round < 5000; ++round) {
    std::string text = valid;
    for (uint32_t i = 0; i <= random() % 3; ++i) text[random() % text.size()] = "{}[]\",:0ae.\\-\x80"[random() % 15];
    const Result<Json> ours = parse_json(text, "x.json");
    const Json theirs = Json::parse(text, nullptr, false);
    if (ours.ok()) {
      EXPECT_EQ(*ours, theirs) << text;
    } else if (ours.status().message().find("occurs twice") == std::string::npos) {
      EXPECT_TRUE(theirs.is_discarded()) << text << ": " << ours.status().message();
    }
  }
}

TEST(Printable, EscapesAndCuts) {
  EXPECT_EQ(printable("plain name"), "'plain name'");
  EXPECT_EQ(printable(std::string_view("a\0\n\x1b'\\\xff", 7)), "'a\\x00\\x0a\\x1b\\x27\\x5c\\xff'");
  EXPECT_EQ(printable("abcdef", 3), "'abc...'");
}

}  // namespace
}  // namespace sextant
