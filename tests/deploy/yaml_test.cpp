#include "deploy/yaml.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace sextant::deploy {
namespace {

using nlohmann::ordered_json;

ordered_json read_back(const std::string& text) {
  const auto documents = parse_yaml_stream(text);
  EXPECT_TRUE(documents.ok()) << documents.status().message() << "\n" << text;
  return documents.ok() && documents->size() == 1 ? (*documents)[0] : ordered_json("not one document");
}

TEST(Yaml, WhatReadersDisagreeOnIsQuoted) {
  for (const char* word :
       {"yes",  "No",  "on",    "OFF",  "y",    "N",     "true", "False",      "null", "~",     "1e3",    "0x1f",
        "0o17", "012", "1_000", "1:30", ".inf", "-.INF", ".nan", "2026-01-01", "",     " lead", "trail ", "a: b",
        "a #b", "- a", "?",     ":",    "&a",   "*a",    "!t",   "%d",         "@x",   "`",     "{",      "[",
        "a,b",  "'",   "\"",    "|",    ">",    "=",     "<<",   "---",        "...",  "\t",    "1.2.3.4"}) {
    const std::string text = to_yaml({{"key", word}});
    EXPECT_EQ(text, "key: " + ordered_json(word).dump() + "\n");
    EXPECT_EQ(read_back(text), ordered_json({{"key", word}})) << text;
    EXPECT_EQ(read_back(to_yaml({{word, 1}})), ordered_json({{word, 1}})) << word;
  }
}

TEST(Yaml, PlainTextsStayReadable) {
  EXPECT_EQ(to_yaml({{"kind", "Deployment"},
                     {"list", {"a", 1, {{"b", true}, {"c", nullptr}}}},
                     {"empty", ordered_json::object()}}),
            "kind: Deployment\nlist:\n- a\n- 1\n- b: true\n  c: null\nempty: {}\n");
  EXPECT_EQ(to_yaml({{"script", "one\n  two\n\nthree\n"}}), "script: |\n  one\n    two\n\n  three\n");
  EXPECT_EQ(to_yaml({{"nested", {{{"a", 1}}, {"b"}}}}), "nested:\n- a: 1\n- - b\n");
}

TEST(Yaml, NumbersKeepTheirValueAndKind) {
  const ordered_json numbers = {0,
                                -1,
                                9007199254740993,
                                1.5,
                                1e30,
                                1e-7,
                                -2.5e-300,
                                100000.0,
                                std::numeric_limits<double>::max(),
                                std::numeric_limits<double>::denorm_min()};
  const ordered_json back = read_back(to_yaml({{"n", numbers}}));
  EXPECT_EQ(back["n"], numbers);
  EXPECT_TRUE(back["n"][7].is_number_float());
  EXPECT_EQ(to_yaml({{"x", 1e30}}), "x: 1.0e+30\n");
  EXPECT_EQ(to_yaml({{"x", std::numeric_limits<double>::infinity()}}), "x: null\n");
}

TEST(Yaml, BytesThatAreNoTextBecomeReplacements) {
  EXPECT_EQ(read_back(to_yaml({{"t", std::string("a\xff\xc0\x80"
                                                 "b\xed\xa0\x80")}}))
                .at("t")
                .get<std::string>()
                .front(),
            'a');
  EXPECT_EQ(read_back(to_yaml({{"t", std::string("\0\x1b\x7f", 3)}})).at("t").get<std::string>(),
            std::string("\0\x1b\x7f", 3));
}

ordered_json random_value(std::mt19937_64& random, int depth) {
  static const std::vector<std::string> pieces = {"a",
                                                  "Z",
                                                  "0",
                                                  "9",
                                                  " ",
                                                  "\n",
                                                  "\t",
                                                  "\"",
                                                  "'",
                                                  "\\",
                                                  ":",
                                                  "#",
                                                  "-",
                                                  "?",
                                                  "{",
                                                  "}",
                                                  "[",
                                                  "]",
                                                  ",",
                                                  "&",
                                                  "*",
                                                  "!",
                                                  "|",
                                                  ">",
                                                  "%",
                                                  "@",
                                                  "`",
                                                  "~",
                                                  "yes",
                                                  "null",
                                                  "1e3",
                                                  "\xc3\xa9",
                                                  "\xe2\x80\xa8",
                                                  "\xc2\x85",
                                                  "\xef\xbb\xbf",
                                                  "\xf0\x9f\x98\x80",
                                                  "\x01",
                                                  "\x7f",
                                                  "$(",
                                                  "..."};
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  const auto text = [&] {
    std::string out;
    for (size_t i = below(8); i > 0; --i) out += pieces[below(pieces.size())];
    return out;
  };
  switch (depth > 4 ? 2 + below(5) : below(7)) {
    case 0: {
      ordered_json out = ordered_json::object();
      for (size_t i = below(4); i > 0; --i) out[text()] = random_value(random, depth + 1);
      return out;
    }
    case 1: {
      ordered_json out = ordered_json::array();
      for (size_t i = below(4); i > 0; --i) out.push_back(random_value(random, depth + 1));
      return out;
    }
    case 2: return static_cast<int64_t>(random() >> below(64)) / 16;
    case 3: return std::ldexp(static_cast<double>(below(1u << 20)), static_cast<int>(below(200)) - 100);
    case 4: return below(2) == 0;
    case 5: return below(4) == 0 ? ordered_json(nullptr) : ordered_json(text());
    default: return text();
  }
}

TEST(Yaml, RandomStructuresReadBackAsTheyWere) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 300; ++i) {
    const ordered_json value = {{"value", random_value(random, 0)}};
    const std::string text = to_yaml(value);
    ASSERT_EQ(read_back(text), value) << text;
  }
}

TEST(Yaml, StreamsKeepTheirDocuments) {
  const std::string text = to_yaml_stream({{{"a", 1}}, {{"b", "---"}}});
  const auto documents = parse_yaml_stream(text + "---\n---\n# nothing\n");
  ASSERT_TRUE(documents.ok());
  ASSERT_EQ(documents->size(), 2u);
  EXPECT_EQ((*documents)[1]["b"], "---");
}

TEST(Yaml, WhatIsHostileOrDoubtfulIsRefusedWithItsLine) {
  const auto error = [](const std::string& text) {
    const auto documents = parse_yaml_stream(text);
    return documents.ok() ? std::string("accepted") : documents.status().message();
  };
  EXPECT_EQ(error("a: 1\nb: yes\n"), "line 2: 'yes' is a boolean to some readers and a text to others: quote it");
  EXPECT_EQ(error("a: 1\na: 2\n"), "line 2: the key a stands here twice");
  EXPECT_EQ(error("a: &x [1]\nb: *x\n"), "line 1: anchors are not read");
  EXPECT_EQ(error("b: *x\n"), "line 1: aliases are not read");
  EXPECT_EQ(error("<<: {a: 1}\n"), "line 1: merge keys are not read");
  EXPECT_EQ(error("a: !!python/object:os.system x\n"), "line 1: tags are not read");
  EXPECT_EQ(error("1: a\n"), "line 1: the key 1 is no text: quote it");
  EXPECT_EQ(error("a: 0\nb: 1e333\n"), "line 2: '1e333' is beyond every number: quote it");
  EXPECT_NE(error("a: -" + std::string(400, '9') + "\n"), "accepted");
  EXPECT_NE(error("a: [1\n").find("line 2"), std::string::npos);
  EXPECT_NE(error("a: \"\xff\"\n"), "accepted");
  EXPECT_EQ(error(std::string(100000, '[')), "line 1: nested too deep");
  EXPECT_NE(error(std::string(kMaxYamlBytes + 1, ' ')), "accepted");
}

}  // namespace
}  // namespace sextant::deploy
