// Expected texts are those of Python's unicodedata and of Hugging Face's tokenizers.
#include "engine/text/text_normalizer.h"

#include <chrono>

#include <gtest/gtest.h>

namespace sextant {
namespace {

using Kind = NormalizerStep::Kind;

std::string normalize(std::vector<NormalizerStep> steps, std::string_view text) {
  Result<TextNormalizer> normalizer = TextNormalizer::create(std::move(steps));
  EXPECT_TRUE(normalizer.ok()) << normalizer.status().message();
  return normalizer->normalize(text);
}

std::string normalize(Kind kind, std::string_view text) { return normalize({{.kind = kind}}, text); }

TEST(TextNormalizer, Forms) {
  EXPECT_EQ(normalize(Kind::kNfc, "e\u0301"), "\u00e9");
  EXPECT_EQ(normalize(Kind::kNfd, "\u00e9"), "e\u0301");
  EXPECT_EQ(normalize(Kind::kNfc, "\u212b \u1100\u1161\u11a8"), "\u00c5 \uac01");
  EXPECT_EQ(normalize(Kind::kNfd, "\uac01"), "\u1100\u1161\u11a8");
  EXPECT_EQ(normalize(Kind::kNfc, "\u0958"), "\u0915\u093c");  // excluded from composition
  EXPECT_EQ(normalize(Kind::kNfc, "q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(normalize(Kind::kNfkc, "\ufb01 \u00bd \u00b2 \u210c"), "fi 1\u20442 2 H");
  EXPECT_EQ(normalize(Kind::kNfkd, "\u1e9b\u0323"), "s\u0323\u0307");
  EXPECT_EQ(normalize(Kind::kNfkc, "\ufdfa").size(), 33u);
  EXPECT_EQ(normalize(Kind::kNfc, std::string("a\0b", 3)), std::string("a\0b", 3));
  EXPECT_EQ(normalize(Kind::kNfc, "\U0010ffff\ufffe\u0378"), "\U0010ffff\ufffe\u0378");
}

TEST(TextNormalizer, OtherSteps) {
  EXPECT_EQ(normalize(Kind::kLowercase, "ÀΣ İ"), "àσ i\u0307");
  EXPECT_EQ(normalize({{.kind = Kind::kStrip, .strip_left = true}}, " \u3000a "), "a ");
  EXPECT_EQ(normalize({{.kind = Kind::kStrip, .strip_left = true, .strip_right = true}}, " \n "), "");
  EXPECT_EQ(normalize({{.kind = Kind::kPrepend, .content = "_"}}, "a"), "_a");
  EXPECT_EQ(normalize({{.kind = Kind::kPrepend, .content = "_"}}, ""), "");
  EXPECT_EQ(normalize({{.kind = Kind::kReplace, .pattern = ".", .content = "!"}}, "a.b"), "a!b");
  EXPECT_EQ(
      normalize({{.kind = Kind::kReplace, .pattern = R"(\s+)", .syntax = Regex::Syntax::kOniguruma, .content = ""}},
                "a \u2003b"),
      "ab");
  EXPECT_FALSE(
      TextNormalizer::create({{.kind = Kind::kReplace, .pattern = "(", .syntax = Regex::Syntax::kOniguruma}}).ok());
}

TEST(TextNormalizer, RunsOfCombiningMarksAreNotQuadratic) {
  std::string text = "a";
  for (int i = 0; i < 300'000; ++i) text += "\u0301";  // class 230
  for (int i = 0; i < 300'000; ++i) text += "\u0323";  // class 220: belongs before
  const auto start = std::chrono::steady_clock::now();
  const std::string normalized = normalize(Kind::kNfc, text);
  EXPECT_TRUE(normalized.starts_with("\u1ea1\u0323\u0323"));
  EXPECT_TRUE(normalized.ends_with("\u0301\u0301"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

}  // namespace
}  // namespace sextant
