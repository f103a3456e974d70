#include "engine/text/stop_strings.h"
#include "tests/support/random_seed.h"

#include <random>

#include <gtest/gtest.h>

namespace sextant {
namespace {

struct Outcome {
  std::string text;
  std::optional<std::string> matched;
  bool operator==(const Outcome&) const = default;
};

// The definition: the match that ends first; of those the first in the list.
Outcome expected(const std::string& text, const std::vector<std::string>& stops, bool include) {
  for (size_t end = 1; end <= text.size(); ++end) {
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop)) {
        return {text.substr(0, include ? end : end - stop.size()), stop};
      }
    }
  }
  return {text, std::nullopt};
}

// `cuts` bit i: a cut after byte i. Also checks that text is sent as soon as it cannot belong to a stop string.
Outcome streamed(const std::string& text, const std::vector<std::string>& stops, bool include, uint64_t cuts) {
  StopStrings finder(stops, include);
  Outcome outcome;
  std::string part, seen;
  const auto give = [&] {
    const StopStrings::Result result = finder.append(part);
    seen += part;
    part.clear();
    outcome.text += result.text;
    if (result.matched) {
      EXPECT_FALSE(outcome.matched);
      outcome.matched = result.matched;
    }
    if (outcome.matched) return;
    size_t held = 0;
    for (const std::string& stop : stops) {
      for (size_t n = 1; n < stop.size(); ++n) {
        if (seen.ends_with(std::string_view(stop).substr(0, n))) held = std::max(held, n);
      }
    }
    EXPECT_EQ(outcome.text, seen.substr(0, seen.size() - held)) << "held back too much or too little";
  };
  for (size_t i = 0; i < text.size(); ++i) {
    part += text[i];
    if (cuts >> (i % 64) & 1) give();
  }
  give();
  outcome.text += finder.flush();
  return outcome;
}

TEST(StopStrings, EveryCutOfEveryText) {
  const std::vector<std::vector<std::string>> lists = {
      {},          {"a"},       {"ab"},         {"aab"},       {"aba"},
      {"ab", "b"}, {"b", "ab"}, {"abab", "ba"}, {"aa", "aaa"}, {"bb", "abb", "abab"}};
  for (const auto& stops : lists) {
    for (uint32_t bits = 0; bits < 1 << 7; ++bits) {
      std::string text;
      for (int i = 0; i < 7; ++i) text += bits >> i & 1 ? 'a' : 'b';
      for (const bool include : {false, true}) {
        const Outcome whole = expected(text, stops, include);
        for (uint64_t cuts = 0; cuts < 1 << 6; ++cuts) ASSERT_EQ(streamed(text, stops, include, cuts), whole) << text;
      }
    }
  }
}

TEST(StopStrings, RandomTexts) {
  const uint64_t seed = random_seed();
  std::mt19937 random(static_cast<uint32_t>(seed));
  const auto word = [&](size_t max) {
    static const std::vector<std::string> letters = {"a", "b", "\n", "é", "日"};
    std::string text;
    for (size_t n = 1 + random() % max; n > 0; --n) text += letters[random() % letters.size()];
    return text;
  };
  for (int i = 0; i < 3000; ++i) {
    std::vector<std::string> stops(random() % 5);
    for (std::string& stop : stops) stop = word(5);
    const std::string text = word(60);
    const bool include = random() % 2 == 0;
    const uint64_t cuts = static_cast<uint64_t>(random()) << 32 | random();
    ASSERT_EQ(streamed(text, stops, include, cuts), expected(text, stops, include)) << "seed " << seed;
  }
}

TEST(StopStrings, NothingFollowsAMatch) {
  StopStrings finder({"END"}, false);
  EXPECT_EQ(finder.append("some E").text, "some ");
  const auto result = finder.append("ND and more");
  EXPECT_EQ(result.text, "");
  EXPECT_EQ(result.matched, "END");
  EXPECT_EQ(finder.append("END more").text, "");
  EXPECT_FALSE(finder.append("END").matched.has_value());
  EXPECT_EQ(finder.flush(), "");
}

TEST(StopStrings, LongOnesCostNoMore) {
  // A stop string of half a megabyte that fails at its last byte over and over: quadratic work would not end.
  const std::string stop = std::string(500'000, 'a') + "b";
  StopStrings finder({stop, stop + "c"}, false);
  size_t num_bytes = 0;
  for (int i = 0; i < 2'000'000 / 4; ++i) num_bytes += finder.append("aaaa").text.size();
  num_bytes += finder.flush().size();
  EXPECT_EQ(num_bytes, 2'000'000u);
}

}  // namespace
}  // namespace sextant
