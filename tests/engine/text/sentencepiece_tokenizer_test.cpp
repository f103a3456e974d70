// tokenizer.model files: decoding held against the library's own, and damaged files.
#include <algorithm>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include "engine/format/json_file.h"
#include "engine/text/sentencepiece_model.h"
#include "engine/text/tokenizer.h"
#include "tests/support/random_seed.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using Ids = std::vector<int32_t>;

const std::string kTokenizers = SEXTANT_TEST_DATA "/golden/tokenizers/";

class SentencePieceFiles : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    Result<std::string> bytes = read_text_file(kTokenizers + GetParam() + "/tokenizer.model", 1 << 24);
    ASSERT_TRUE(bytes.ok());
    bytes_ = std::move(bytes).value();
  }
  Result<std::unique_ptr<Tokenizer>> load(std::string_view bytes) {
    directory_.write("tokenizer.model", bytes);
    return load_tokenizer(directory_.path());
  }
  std::string bytes_;
  ScratchDirectory directory_;
};

TEST_P(SentencePieceFiles, DecodingAgreesWithTheLibrary) {
  const auto tokenizer = load(bytes_);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  sentencepiece::SentencePieceProcessor processor;
  ASSERT_TRUE(processor.LoadFromSerializedProto(bytes_).ok());
  std::vector<int32_t> spaces;
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    if (processor.IdToPiece(id).starts_with("\u2581")) spaces.push_back(id);
  }
  const uint64_t seed = random_seed();
  std::mt19937 random(static_cast<uint32_t>(seed));
  int num_compared = 0;
  for (int i = 0; i < 4000; ++i) {
    Ids ids(random() % 8);
    for (int32_t& id : ids) {
      id = random() % 3 == 0 && !spaces.empty() ? spaces[random() % spaces.size()]
                                                : static_cast<int32_t>(random() % processor.GetPieceSize());
    }
    std::string bytes;
    for (const int32_t id : ids) bytes += (*tokenizer)->token_bytes(id);
    const std::string expected = processor.DecodeIds(ids);
    // Of bytes that are no UTF-8 the library makes one U+FFFD each; here they are Python's (see utf8.h).
    if (expected.find("\uFFFD") != std::string::npos) continue;
    ASSERT_EQ((*tokenizer)->decode(ids, true), expected) << "seed " << seed;
    ++num_compared;
  }
  EXPECT_GT(num_compared, 500);
}

TEST_P(SentencePieceFiles, DamageGivesAMessage) {
  for (size_t n = 0; n < bytes_.size(); n += 1 + bytes_.size() / 40) {
    const auto result = load(std::string_view(bytes_).substr(0, n));
    EXPECT_TRUE(result.ok() || result.status().message().find("tokenizer.model") != std::string::npos);
  }
  const uint64_t seed = random_seed();
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int i = 0; i < 60; ++i) {
    std::string damaged = bytes_;
    for (int k = 0; k < 4; ++k) damaged[random() % damaged.size()] = static_cast<char>(random());
    const auto result = load(damaged);
    if (!result.ok()) continue;
    (*result)->encode("some text, some \u65e5\u672c\u8a9e \ufb01 \u00bd \xFF bytes");
  }
  EXPECT_FALSE(load("").ok());
  EXPECT_FALSE(load("not a model at all").ok());
}

TEST_P(SentencePieceFiles, ConfigBesideIt) {
  const int32_t num_pieces = (*load(bytes_))->vocab_size();
  directory_.write(
      "tokenizer_config.json",
      R"({"add_bos_token": false, "add_eos_token": true, "chat_template": "T", "added_tokens_decoder": {")" +
          std::to_string(num_pieces + 1) + R"(": {"content": "<|x|>", "special": true}}})");
  const auto result = load(bytes_);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const Tokenizer& tokenizer = **result;
  const Ids ids = tokenizer.encode("hi<|x|>hi");
  EXPECT_EQ(std::count(ids.begin(), ids.end(), num_pieces + 1), 1);
  EXPECT_EQ(ids.back(), tokenizer.eos_token_ids()[0]);
  EXPECT_NE(ids.front(), tokenizer.bos_token_id());
  EXPECT_EQ(tokenizer.token_text(num_pieces), "");
  EXPECT_EQ(tokenizer.token_text(num_pieces + 1), "<|x|>");
  EXPECT_EQ(tokenizer.chat_template(), "T");
}

TEST_P(SentencePieceFiles, TextAfterASpecialToken) {
  const auto spaces = [&](const char* config) {
    directory_.write("tokenizer_config.json", config);
    const auto tokenizer = load(bytes_);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    const Ids ids = (*tokenizer)->encode("</s>the", {.add_special_tokens = false});
    std::string bytes;
    for (const int32_t id : ids) bytes += (*tokenizer)->token_bytes(id);
    return bytes;
  };
  const bool dummy_prefix = inspect_sentencepiece_model(bytes_)->add_dummy_prefix;
  EXPECT_EQ(spaces(R"({"legacy": true})"), dummy_prefix ? "</s> the" : "</s>the");
  EXPECT_EQ(spaces(R"({"legacy": false})"), "</s>the");
}

INSTANTIATE_TEST_SUITE_P(All, SentencePieceFiles,
                         ::testing::Values("spm_bpe_byte_fallback", "spm_bpe_no_dummy_prefix", "spm_unigram",
                                           "spm_unigram_byte_fallback"));

TEST(SentencePieceModel, WhatTheLibraryWouldFollowBlindly) {
  Result<std::string> bytes = read_text_file(kTokenizers + "spm_unigram/tokenizer.model", 1 << 24);
  ASSERT_TRUE(bytes.ok());
  ASSERT_TRUE(inspect_sentencepiece_model(*bytes).ok());
  const std::string nan_piece(
      "\x0A\x08\x0A\x01"
      "a"
      "\x15\x00\x00\xC0\x7F",
      10);
  EXPECT_FALSE(inspect_sentencepiece_model(nan_piece).ok());
  EXPECT_FALSE(inspect_sentencepiece_model(std::string("\x0A\x04\x0A\x02\x00z", 6)).ok());  // a NUL in a piece
  EXPECT_TRUE(inspect_sentencepiece_model(std::string("\x0A\x04\x0A\x02yz", 6)).ok());
  const auto charsmap = [](const std::string& map) {
    const std::string spec = std::string("\x12") + static_cast<char>(map.size()) + map;
    return std::string(
               "\x0A\x03\x0A\x01"
               "a"
               "\x1A") +
           static_cast<char>(spec.size()) + spec;
  };
  EXPECT_TRUE(inspect_sentencepiece_model(charsmap("")).ok());
  EXPECT_FALSE(inspect_sentencepiece_model(charsmap("abc")).ok());
  EXPECT_FALSE(
      inspect_sentencepiece_model(charsmap(std::string("\x04\0\0\0\0\0\0\0\0", 9))).ok());  // one node, no children
  EXPECT_FALSE(inspect_sentencepiece_model(charsmap(std::string("\xFF\xFF\0\0\0\0\0\0\0", 9))).ok());
}

}  // namespace
}  // namespace sextant
