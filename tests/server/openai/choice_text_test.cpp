// Tokens to text with stop strings and stop tokens, however the engine cuts its events.
#include "server/openai/choice_text.h"

#include <gtest/gtest.h>
#include <random>
#include <string>
#include <vector>

#include "tests/support/byte_tokenizer.h"
#include "tests/support/random_seed.h"

namespace sextant::openai {
namespace {

using testing_support::ByteTokenizer;

std::vector<int32_t> ids_of(const std::string& text) {
  return ByteTokenizer().encode(text, {.add_special_tokens = false});
}

class ChoiceTextTest : public ::testing::Test {
 protected:
  ChoiceText make() { return ChoiceText(tokenizer_, spec_, eos_); }
  static OutputEvent event(std::vector<int32_t> ids, std::optional<FinishReason> finish = std::nullopt) {
    OutputEvent event;
    event.token_ids = std::move(ids);
    event.finish_reason = finish;
    return event;
  }
  static ChoiceUpdate append(ChoiceText* choice, OutputEvent event) { return choice->append(&event); }

  ByteTokenizer tokenizer_;
  GenerationSpec spec_;
  std::vector<int32_t> eos_ = {ByteTokenizer::kEos};
};

TEST_F(ChoiceTextTest, PlainTextPassesThrough) {
  ChoiceText choice = make();
  const ChoiceUpdate update = append(&choice, event(ids_of("hello"), FinishReason::kLength));
  EXPECT_EQ(update.text, "hello");
  EXPECT_EQ(update.token_ids.size(), 5u);
  EXPECT_EQ(update.finish_reason, FinishReason::kLength);
  EXPECT_EQ(update.stop_reason, StopReason());
}

TEST_F(ChoiceTextTest, CharactersAreNotSplit) {
  ChoiceText choice = make();
  EXPECT_EQ(append(&choice, event({0xC3})).text, "");
  EXPECT_EQ(append(&choice, event({0xA9})).text, "é");
  EXPECT_EQ(append(&choice, event({0xE2, 0x82})).text, "");
  EXPECT_EQ(append(&choice, event({}, FinishReason::kLength)).text, "\xEF\xBF\xBD");
}

TEST_F(ChoiceTextTest, TheModelsEndIsNotShownAndHasNoStopReason) {
  ChoiceText choice = make();
  OutputEvent last = event({'a', ByteTokenizer::kEos}, FinishReason::kStop);
  last.stop_token_id = ByteTokenizer::kEos;
  const ChoiceUpdate update = append(&choice, last);
  EXPECT_EQ(update.text, "a");
  EXPECT_EQ(update.token_ids, (std::vector<int32_t>{'a', ByteTokenizer::kEos}));
  EXPECT_EQ(update.stop_reason, StopReason());
}

TEST_F(ChoiceTextTest, AStopTokenIsHiddenUnlessAskedFor) {
  for (const bool include : {false, true}) {
    spec_.include_stop_str_in_output = include;
    ChoiceText choice = make();
    OutputEvent last = event({'a', 'Z'}, FinishReason::kStop);
    last.stop_token_id = 'Z';
    const ChoiceUpdate update = append(&choice, last);
    EXPECT_EQ(update.text, include ? "aZ" : "a");
    EXPECT_EQ(update.stop_reason, StopReason('Z'));
    EXPECT_EQ(choice.num_tokens(), 2);
  }
}

TEST_F(ChoiceTextTest, SpecialTokensAreShownWhenNotSkipped) {
  spec_.skip_special_tokens = false;
  ChoiceText choice = make();
  EXPECT_EQ(append(&choice, event({'a', ByteTokenizer::kImEnd, 'b'}, FinishReason::kLength)).text, "a<|im_end|>b");
}

TEST_F(ChoiceTextTest, TokensBehindAStopStringAreDropped) {
  spec_.stop = {"END"};
  ChoiceText choice = make();
  OutputEvent one = event(ids_of("abENDxy"));
  one.logprobs.resize(7);
  const ChoiceUpdate update = append(&choice, one);
  EXPECT_EQ(update.text, "ab");
  EXPECT_EQ(update.token_ids, ids_of("abEND"));
  EXPECT_EQ(update.logprobs.size(), 5u);
  EXPECT_EQ(update.finish_reason, FinishReason::kStop);
  EXPECT_EQ(update.stop_reason, StopReason(std::string("END")));
  EXPECT_EQ(choice.num_tokens(), 5);
}

TEST_F(ChoiceTextTest, AStopStringOverridesTheLengthThatCameWithIt) {
  spec_.stop = {"d"};
  ChoiceText choice = make();
  const ChoiceUpdate update = append(&choice, event(ids_of("abcd"), FinishReason::kLength));
  EXPECT_EQ(update.finish_reason, FinishReason::kStop);
  EXPECT_EQ(update.text, "abc");
}

TEST_F(ChoiceTextTest, HeldBackTextComesOutAtTheEnd) {
  spec_.stop = {"END"};
  ChoiceText choice = make();
  EXPECT_EQ(append(&choice, event(ids_of("abEN"))).text, "ab");
  const ChoiceUpdate update = append(&choice, event({}, FinishReason::kLength));
  EXPECT_EQ(update.text, "EN");
  EXPECT_EQ(update.finish_reason, FinishReason::kLength);
}

TEST_F(ChoiceTextTest, MinTokensProtectsText) {
  spec_.stop = {"a"};
  spec_.sampling.min_tokens = 3;
  ChoiceText choice = make();
  const ChoiceUpdate first = append(&choice, event(ids_of("aaa")));
  EXPECT_EQ(first.text, "aaa");
  EXPECT_FALSE(first.finish_reason);
  const ChoiceUpdate second = append(&choice, event(ids_of("ba")));
  EXPECT_EQ(second.text, "b");
  EXPECT_EQ(second.finish_reason, FinishReason::kStop);
}

// However a text is cut into events, the outcome is that of a search in the whole text.
TEST_F(ChoiceTextTest, AnyCutGivesTheSameOutcome) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (unsigned i = random() % 30; i > 0; --i) text += "abé"[random() % 4];
    text += "é";
    spec_.stop.clear();
    for (unsigned i = random() % 3; i > 0; --i) {
      std::string stop;
      for (unsigned k = 1 + random() % 3; k > 0; --k) stop += "ab"[random() % 2];
      spec_.stop.push_back(stop);
    }
    spec_.include_stop_str_in_output = random() % 2 == 0;

    std::string decoded = tokenizer_.decode(ids_of(text), true);
    size_t first_end = std::string::npos;
    size_t first_begin = 0;
    for (const std::string& stop : spec_.stop) {
      const size_t at = decoded.find(stop);
      if (at != std::string::npos && at + stop.size() < first_end) {
        first_end = at + stop.size();
        first_begin = at;
      } else if (at != std::string::npos && at + stop.size() == first_end) {
        // Several end here: which one is named is StopStrings' business, the cut differs with it.
        first_begin = std::string::npos;
      }
    }
    ChoiceText choice = make();
    std::string shown;
    std::optional<FinishReason> finish;
    const std::vector<int32_t> ids = ids_of(text);
    for (size_t begin = 0; begin < ids.size() && !finish;) {
      const size_t end = std::min(ids.size(), begin + 1 + random() % 5);
      OutputEvent one =
          event({ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.begin() + static_cast<std::ptrdiff_t>(end)});
      if (end == ids.size()) one.finish_reason = FinishReason::kLength;
      const ChoiceUpdate update = append(&choice, one);
      shown += update.text;
      finish = update.finish_reason;
      begin = end;
    }
    if (first_end == std::string::npos) {
      EXPECT_EQ(shown, decoded);
      EXPECT_EQ(finish, FinishReason::kLength);
    } else {
      EXPECT_EQ(finish, FinishReason::kStop);
      if (first_begin != std::string::npos) {
        EXPECT_EQ(shown, decoded.substr(0, spec_.include_stop_str_in_output ? first_end : first_begin));
      }
    }
  }
}

}  // namespace
}  // namespace sextant::openai
