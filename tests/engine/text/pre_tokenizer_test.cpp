// Expected pieces are those of Hugging Face's tokenizers 0.23.3 for the same steps.
#include "engine/text/pre_tokenizer.h"

#include <chrono>

#include <gtest/gtest.h>

#include "engine/text/oniguruma_pattern.h"
#include "engine/text/pre_tokenizer_families.h"

namespace sextant {
namespace {

using Behavior = PreTokenizerStep::Behavior;
using Kind = PreTokenizerStep::Kind;
using Pieces = std::vector<std::string>;

Pieces split(const PreTokenizer& pre_tokenizer, std::string_view text) {
  PreTokenizer::Session session(pre_tokenizer);
  Pieces pieces;
  for (const std::string_view piece : session.split(text)) pieces.emplace_back(piece);
  return pieces;
}

PreTokenizer make(std::vector<PreTokenizerStep> steps) {
  Result<PreTokenizer> result = PreTokenizer::create(std::move(steps));
  EXPECT_TRUE(result.ok()) << result.status().message();
  return std::move(result).value();
}

Pieces split_by(std::string pattern, std::string_view text, Behavior behavior = Behavior::kIsolated,
                bool invert = false) {
  return split(make({{.kind = Kind::kSplit, .pattern = std::move(pattern), .behavior = behavior, .invert = invert},
                     {.kind = Kind::kByteAlphabet}}),
               text);
}

TEST(PreTokenizer, Behaviors) {
  const std::string pattern = R"(\s|-)", text = "-a  b-- c-";
  const auto by = [&](Behavior behavior, bool invert) { return split_by(pattern, text, behavior, invert); };
  EXPECT_EQ(by(Behavior::kIsolated, false), (Pieces{"-", "a", " ", " ", "b", "-", "-", " ", "c", "-"}));
  EXPECT_EQ(by(Behavior::kIsolated, true), (Pieces{"-", "a", " ", " ", "b", "-", "-", " ", "c", "-"}));
  EXPECT_EQ(by(Behavior::kRemoved, false), (Pieces{"a", "b", "c"}));
  EXPECT_EQ(by(Behavior::kRemoved, true), (Pieces{"-", " ", " ", "-", "-", " ", "-"}));
  EXPECT_EQ(by(Behavior::kMergedWithPrevious, false), (Pieces{"-", "a ", " ", "b-", "-", " ", "c-"}));
  EXPECT_EQ(by(Behavior::kMergedWithPrevious, true), (Pieces{"-a", " ", " b", "-", "-", " c", "-"}));
  EXPECT_EQ(by(Behavior::kMergedWithNext, false), (Pieces{"-a", " ", " b", "-", "-", " c", "-"}));
  EXPECT_EQ(by(Behavior::kMergedWithNext, true), (Pieces{"-", "a ", " ", "b-", "-", " ", "c-"}));
  EXPECT_EQ(by(Behavior::kContiguous, false), (Pieces{"-", "a", "  ", "b", "-- ", "c", "-"}));
  EXPECT_EQ(by(Behavior::kContiguous, true), (Pieces{"-", "a", "  ", "b", "-- ", "c", "-"}));
}

TEST(PreTokenizer, OnigurumaMeansOtherThings) {
  EXPECT_EQ(split_by(R"(\d{1,3}+)", "a1234567b"), (Pieces{"a", "1234567", "b"}));  // not possessive
  EXPECT_EQ(split_by(R"(a{2}+)", "aaaaa"), (Pieces{"aaaa", "a"}));
  EXPECT_EQ(split_by(R"(\p{N}{1,3}+|\p{L}{2}+x)", "12345abcdx"), (Pieces{"12345", "abcdx"}));
  EXPECT_EQ(split_by(R"(a{,2})", "aaab"), (Pieces{"aa", "a", "b"}));
  EXPECT_EQ(split_by(R"(\s+$)", "ab  \ncd  "), (Pieces{"ab", "  ", "\ncd", "  "}));  // '$' knows lines
  EXPECT_EQ(split_by(R"(\h)", "xyzaf \t"), (Pieces{"xyz", "a", "f", " \t"}));        // a hexadecimal digit
  EXPECT_EQ(split_by(R"([[a-c]d])", "abcde[]"), (Pieces{"a", "b", "c", "d", "e[]"}));
  EXPECT_EQ(split_by(R"([a-z&&[^b]]+)", "acbd1"), (Pieces{"ac", "b", "d", "1"}));
  EXPECT_EQ(split_by(R"(\s)", "a\u180eb\u0085d"), (Pieces{"a\u180eb", "\u0085", "d"}));
  EXPECT_EQ(split_by(R"([]a])", "a]b"), (Pieces{"a", "]", "b"}));
  EXPECT_EQ(split_by(R"((?m:a.c))", "xa\ncx"), (Pieces{"x", "a\nc", "x"}));
  EXPECT_EQ(split_by(R"([^\S\r\n]+)", "a \t\n b"), (Pieces{"a", " \t", "\n", " ", "b"}));
  EXPECT_EQ(split_by(R"([[:alpha:]]+)", "a\u00e91"), (Pieces{"a\u00e9", "1"}));
  EXPECT_EQ(split_by(R"((?=(\d{3})+(?!\d)))", "1234567"), (Pieces{"1", "234", "567"}));  // empty matches cut too
}

TEST(PreTokenizer, BadPatternsAreRefused) {
  for (const char* pattern : {"(", "[a", "(a", "a)", "(*FAIL)a", "(*LIMIT_MATCH=1)a", "\\", "[a&&]", "(?<",
                              "\\p{Nonsense}", "(?P<a>", "[[:", "[\\", "a**(", "\\C", "(?C1"}) {
    const auto result = Regex::compile(pattern, Regex::Syntax::kOniguruma);
    EXPECT_FALSE(result.ok()) << pattern;
    EXPECT_NE(result.status().message().find("regular expression"), std::string::npos) << pattern;
  }
  EXPECT_FALSE(Regex::compile(std::string(1000, '(') + "a" + std::string(1000, ')'), Regex::Syntax::kOniguruma).ok());
  EXPECT_FALSE(Regex::compile(std::string(100'000, 'a'), Regex::Syntax::kOniguruma).ok());
  EXPECT_FALSE(Regex::compile("((((a{1,999}){1,999}){1,999}){1,999})", Regex::Syntax::kOniguruma).ok());
  EXPECT_FALSE(Regex::compile("", Regex::Syntax::kLiteral).ok());
  std::string nested(40, '[');
  EXPECT_FALSE(oniguruma_to_pcre2(nested + "a" + std::string(40, ']')).ok());
}

TEST(PreTokenizer, CatastrophicPatternsEnd) {
  const auto start = std::chrono::steady_clock::now();
  const std::string text = std::string(5000, 'a') + "c";
  for (const char* pattern :
       {"(a+)+[bd]", "(a|a)+[bd]", "(?:a?){40}a{40}[bd]", "((a*)*)*[bd]", "(a|[ab]|[ac])+$x?[bd]"}) {
    Pieces pieces = split_by(pattern, text);
    std::string joined;
    for (const std::string& piece : pieces) joined += piece;
    EXPECT_EQ(joined, text) << pattern;
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(PreTokenizer, StepsAfterTheByteAlphabetSeeIt) {
  const PreTokenizer pre_tokenizer = make({{.kind = Kind::kSplit, .pattern = std::string(kGpt2Pattern)},
                                           {.kind = Kind::kByteAlphabet},
                                           {.kind = Kind::kSplit, .pattern = "\u0120"}});
  EXPECT_EQ(split(pre_tokenizer, "a b \u00e9"), (Pieces{"a", " ", "b", " ", "\u00e9"}));
}

TEST(PreTokenizer, PrefixSpaceGoesToEachPiece) {
  const PreTokenizer pre_tokenizer = make({{.kind = Kind::kSplit, .pattern = R"(\p{N})"},
                                           {.kind = Kind::kAddPrefixSpace},
                                           {.kind = Kind::kSplit, .pattern = std::string(kGpt2Pattern)},
                                           {.kind = Kind::kByteAlphabet}});
  EXPECT_EQ(split(pre_tokenizer, "ab1 c"), (Pieces{" ab", " 1", " c"}));
  EXPECT_EQ(split(pre_tokenizer, ""), Pieces{});
}

TEST(PreTokenizerFamilies, CutAsTheirTokenizersDo) {
  const auto by = [](std::string_view name, std::string_view text) {
    const std::optional<PreTokenizerFamily> family = pre_tokenizer_family(name);
    EXPECT_TRUE(family.has_value()) << name;
    return split(make(family->steps), text);
  };
  EXPECT_EQ(by("gpt-2", "I'll 1234  x"), (Pieces{"I", "'ll", " 1234", " ", " x"}));
  EXPECT_EQ(by("smollm", "I'll 1234  x"), (Pieces{"I", "'ll", " ", "1", "2", "3", "4", " ", " x"}));
  EXPECT_EQ(by("llama-bpe", "I'LL 1234\n\n x"), (Pieces{"I", "'LL", " ", "123", "4", "\n\n", " x"}));
  EXPECT_EQ(by("qwen2", "ab 123"), (Pieces{"ab", " ", "1", "2", "3"}));
  EXPECT_EQ(by("gpt-4o", "camelCase's"), (Pieces{"camel", "Case's"}));
  EXPECT_EQ(by("tekken", "HTTPServer12"), (Pieces{"HTTPServer", "1", "2"}));
  EXPECT_EQ(by("deepseek-v3", "a1234 \u65e5\u672c!b"), (Pieces{"a", "123", "4", " ", "\u65e5\u672c", "!b"}));
  // Its punctuation runs from ':' to '~', letters included.
  EXPECT_EQ(by("deepseek-llm", "Caf\u00e9 \u65e5!  \n"), (Pieces{"Caf", "\u00e9", " ", "\u65e5", "!", "  ", "\n"}));
  EXPECT_EQ(by("default", "x=12345"), (Pieces{"x", "=", "123", "45"}));
  EXPECT_FALSE(pre_tokenizer_family("no-such-family").has_value());
  EXPECT_FALSE(pre_tokenizer_family("").has_value());
}

TEST(PreTokenizerFamilies, AllCompileAndLoseNothing) {
  std::string names = known_pre_tokenizer_families() + ", ";
  const std::string text =
      "I'll 12345, na\u00efve  caf\u00e9\r\n\n\t\u65e5\u672c\u8a9e\u306e \u0645\u0631 \U0001F642!! snake_case ... "
      "\u0301x\n ";
  int num_families = 0;
  for (size_t comma; (comma = names.find(", ")) != std::string::npos; names.erase(0, comma + 2), ++num_families) {
    const std::optional<PreTokenizerFamily> family = pre_tokenizer_family(names.substr(0, comma));
    ASSERT_TRUE(family.has_value()) << names;
    std::string joined;
    for (const std::string& piece : split(make(family->steps), text)) joined += piece;
    EXPECT_EQ(joined, text) << names.substr(0, comma);
  }
  EXPECT_GE(num_families, 50);
}

}  // namespace
}  // namespace sextant
