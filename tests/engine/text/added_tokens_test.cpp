#include "engine/text/added_tokens.h"

#include <gtest/gtest.h>

namespace sextant {
namespace {

// "[content]" for each token found, text as it stands.
std::string marked(const std::vector<AddedToken>& tokens, std::string_view text, bool allow_special = true) {
  std::string out;
  AddedTokenMatcher(tokens).split(
      text, allow_special, [&](const AddedToken& token) { out += '[' + token.content + ']'; },
      [&](std::string_view part) { out += part; });
  return out;
}

TEST(AddedTokens, LeftmostThenLongest) {
  const std::vector<AddedToken> tokens = {{.id = 0, .content = "<a>"},
                                          {.id = 1, .content = "<a>b"},
                                          {.id = 2, .content = "b<"},
                                          {.id = 3, .content = "\u65e5"}};
  EXPECT_EQ(marked(tokens, "x<a>bb<a>"), "x[<a>b][b<]a>");
  EXPECT_EQ(marked(tokens, "<a><a"), "[<a>]<a");
  EXPECT_EQ(marked(tokens, "\u65e5\u672c"), "[\u65e5]\u672c");
  EXPECT_EQ(marked(tokens, ""), "");
  EXPECT_EQ(marked({}, "<a>"), "<a>");
}

TEST(AddedTokens, SpecialOnesCanBeText) {
  const std::vector<AddedToken> tokens = {{.id = 0, .content = "<|end|>", .special = true}, {.id = 1, .content = "<|"}};
  EXPECT_EQ(marked(tokens, "a<|end|><|x"), "a[<|end|>][<|]x");
  EXPECT_EQ(marked(tokens, "a<|end|><|x", false), "a<|end|>[<|]x");  // nor does it fall apart into other tokens
}

TEST(AddedTokens, StrippingAndWords) {
  EXPECT_EQ(marked({{.id = 0, .content = "<m>", .lstrip = true}}, "a \n<m> b"), "a[<m>] b");
  EXPECT_EQ(marked({{.id = 0, .content = "<m>", .rstrip = true}}, "a <m>\u3000 b<m>"), "a [<m>]b[<m>]");
  EXPECT_EQ(marked({{.id = 0, .content = "<m>", .lstrip = true, .rstrip = true}}, "<m>  <m>"), "[<m>][<m>]");
  const std::vector<AddedToken> word = {{.id = 0, .content = "the", .single_word = true}};
  EXPECT_EQ(marked(word, "the then bathe _the the\u00e9 \u00e9the the."),
            "[the] then bathe _the the\u00e9 \u00e9the [the].");
}

TEST(AddedTokens, TextNeedNotBeUtf8) {
  const std::vector<AddedToken> tokens = {
      {.id = 0, .content = "<m>", .lstrip = true, .rstrip = true, .single_word = true}};
  EXPECT_EQ(marked(tokens, "\xFF<m>\xE2\x82"), "\xFF[<m>]\xE2\x82");
  EXPECT_EQ(marked(tokens, "\x80 <m> \xC3"), "\x80[<m>]\xC3");
}

TEST(AddedTokens, ManyWithOnePrefixAreFast) {
  std::vector<AddedToken> tokens;
  for (int i = 0; i < 3000; ++i) {
    tokens.push_back({.id = i, .content = "<|reserved_special_token_" + std::to_string(i) + "|>", .special = true});
  }
  std::string text;
  for (int i = 0; i < 50'000; ++i) text += "<|reserved_special_token_";
  EXPECT_EQ(marked(tokens, text), text);
  EXPECT_EQ(marked(tokens, text + "2999|>").substr(text.size() - 25), "[<|reserved_special_token_2999|>]");
}

}  // namespace
}  // namespace sextant
