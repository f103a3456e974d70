// What GGUF's tokenizer keys may say, and what they get for saying something else: a message with file and key.
#include <gmock/gmock.h>
#include <cmath>

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include "engine/format/json_file.h"
#include "engine/text/sentencepiece_model.h"
#include "engine/text/sentencepiece_tokenizer.h"
#include "engine/text/tokenizer.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

GgufBuilder small_gguf() {
  GgufBuilder gguf;
  gguf.string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "gpt-2");
  gguf.strings("tokenizer.ggml.tokens", {"a", "b", "c", "ab", "<s>", "<|im_end|>", "  ", "[PAD0]"});
  gguf.array<int32_t>("tokenizer.ggml.token_type", GgufBuilder::kInt32, {1, 1, 1, 1, 3, 3, 4, 5});
  gguf.strings("tokenizer.ggml.merges", {"a b"});
  return gguf;
}

class GgufTokenizer : public ::testing::Test {
 protected:
  Result<std::unique_ptr<Tokenizer>> load(const GgufBuilder& gguf) {
    return load_tokenizer(directory_.write("model.gguf", gguf.build()));
  }
  std::string error(const GgufBuilder& gguf) {
    const auto result = load(gguf);
    EXPECT_FALSE(result.ok());
    return result.ok() ? "" : result.status().message();
  }
  ScratchDirectory directory_;
};

TEST_F(GgufTokenizer, Keys) {
  GgufBuilder gguf = small_gguf();
  gguf.u32("tokenizer.ggml.bos_token_id", 4).u32("tokenizer.ggml.eos_token_id", 4);
  gguf.boolean("tokenizer.ggml.add_bos_token", true).boolean("tokenizer.ggml.add_eos_token", true);
  gguf.string("tokenizer.chat_template", "T");
  const auto result = load(gguf);
  ASSERT_TRUE(result.ok()) << result.status().message();
  const Tokenizer& tokenizer = **result;
  EXPECT_EQ(tokenizer.encode("abc"), (Ids{4, 3, 2, 4}));
  EXPECT_EQ(tokenizer.encode("a  <s>[PAD0]b", {.add_special_tokens = false}), (Ids{0, 6, 4, 1}));
  EXPECT_EQ(tokenizer.encode("a  <s>b", {.add_special_tokens = false, .parse_special_tokens = false}), (Ids{0, 6, 1}));
  EXPECT_EQ(tokenizer.bos_token_id(), 4);
  EXPECT_EQ(tokenizer.eos_token_ids(), (Ids{4, 5}));  // <|im_end|> ends a turn under any key
  EXPECT_EQ(tokenizer.chat_template(), "T");
  EXPECT_EQ(tokenizer.decode(Ids{6, 3, 5}, true), "  ab");
  // A directory with one GGUF file and nothing else is that file.
  EXPECT_TRUE(load_tokenizer(directory_.path()).ok());
}

TEST_F(GgufTokenizer, FamiliesBringTheirDefaults) {
  GgufBuilder gguf;
  gguf.string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "llama-bpe");
  gguf.strings("tokenizer.ggml.tokens", {"a", "b", "ab", "<s>"});
  gguf.array<int32_t>("tokenizer.ggml.token_type", GgufBuilder::kInt32, {1, 1, 1, 3});
  gguf.strings("tokenizer.ggml.merges", {}).u32("tokenizer.ggml.bos_token_id", 3);
  const auto result = load(gguf);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ((*result)->encode("ab"), (Ids{3, 2}));  // BOS, and the whole piece whatever the merges say
}

TEST_F(GgufTokenizer, BadKeysAreNamed) {
  EXPECT_THAT(error(GgufBuilder().string("x", "y")), HasSubstr("tokenizer.ggml.model"));
  EXPECT_THAT(error(GgufBuilder().string("tokenizer.ggml.model", "llama")), HasSubstr("tokenizer.ggml.tokens"));
  EXPECT_THAT(error(GgufBuilder().string("tokenizer.ggml.model", "bert")), HasSubstr("'bert'"));
  EXPECT_THAT(error(GgufBuilder().string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "odd")),
              HasSubstr("known: gpt-2, "));
  EXPECT_THAT(error(GgufBuilder().string("tokenizer.ggml.model", "gpt2")), HasSubstr("tokenizer.ggml.tokens"));
  const auto with_tokens = [] {
    return GgufBuilder().string("tokenizer.ggml.model", "gpt2").strings("tokenizer.ggml.tokens", {"a", "b"});
  };
  EXPECT_THAT(error(with_tokens()), HasSubstr("tokenizer.ggml.merges"));
  EXPECT_THAT(error(with_tokens().strings("tokenizer.ggml.merges", {"a b"})),
              HasSubstr("'ab' is not in the vocabulary"));
  for (const char* merge : {"", " ", "a", "a ", " a"}) {
    EXPECT_THAT(error(with_tokens().strings("tokenizer.ggml.merges", {merge})), HasSubstr("entry 0 is not two tokens"));
  }
  EXPECT_THAT(error(with_tokens().array<int32_t>("tokenizer.ggml.token_type", GgufBuilder::kInt32, {1})),
              HasSubstr("has 1 entries for 2 tokens"));
  const auto complete = [&] { return with_tokens().strings("tokenizer.ggml.merges", {}); };
  EXPECT_THAT(error(complete().u32("tokenizer.ggml.bos_token_id", 2)), HasSubstr("tokenizer.ggml.bos_token_id"));
  EXPECT_THAT(error(complete().u32("tokenizer.ggml.eos_token_id", 0xFFFFFFFF)),
              HasSubstr("tokenizer.ggml.eos_token_id"));
  EXPECT_THAT(error(complete().boolean("tokenizer.ggml.add_bos_token", true)),
              HasSubstr("no tokenizer.ggml.bos_token_id"));
  EXPECT_THAT(error(complete().boolean("tokenizer.ggml.add_eos_token", true)), HasSubstr("no eos_token_id"));
  EXPECT_THAT(error(complete().string("tokenizer.ggml.add_eos_token", "yes")),
              HasSubstr("tokenizer.ggml.add_eos_token"));
  GgufBuilder twice;
  twice.string("tokenizer.ggml.model", "gpt2").strings("tokenizer.ggml.tokens", {"a", "a"});
  EXPECT_THAT(error(twice.strings("tokenizer.ggml.merges", {})), HasSubstr("token 'a' has two ids"));
  GgufBuilder none;
  none.string("tokenizer.ggml.model", "gpt2").strings("tokenizer.ggml.tokens", {});
  EXPECT_THAT(error(none.strings("tokenizer.ggml.merges", {})), HasSubstr("the vocabulary is empty"));
}

// The bytes of field `id` of a protobuf message of length-delimited fields, varints and fp32 numbers; empty without one.
std::string_view field_of(std::string_view message, uint64_t id) {
  const auto varint = [&message] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<uint8_t>(message.front());
      message.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (!message.empty()) {
    const uint64_t tag = varint(), kind = tag & 7;
    const uint64_t size = kind == 5 ? 4 : varint();
    if (kind == 0) continue;
    if (tag >> 3 == id) return message.substr(0, size);
    message.remove_prefix(size);
  }
  return {};
}

// tokenizer.model files again, as GGUF would hold them: the same ids and the same text.
class GgufSentencePiece : public GgufTokenizer, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    path_ = std::string(SEXTANT_TEST_DATA "/golden/tokenizers/") + GetParam() + "/tokenizer.model";
    Result<std::string> bytes = read_text_file(path_, 1 << 24);
    ASSERT_TRUE(bytes.ok());
    facts_ = *inspect_sentencepiece_model(*bytes);
    charsmap_ = field_of(field_of(*bytes, 3), 2);
    ASSERT_TRUE(processor_.LoadFromSerializedProto(*bytes).ok());
  }
  GgufBuilder gguf() {
    GgufBuilder gguf;
    std::vector<std::string> tokens;
    std::vector<float> scores;
    std::vector<int32_t> kinds;
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      tokens.push_back(processor_.IdToPiece(id));
      scores.push_back(processor_.GetScore(id));
      kinds.push_back(processor_.IsUnknown(id)   ? 2
                      : processor_.IsControl(id) ? 3
                      : processor_.IsUnused(id)  ? 5
                      : processor_.IsByte(id)    ? 6
                                                 : 1);
    }
    gguf.string("tokenizer.ggml.model", std::string_view(GetParam()).starts_with("spm_unigram") ? "t5" : "llama");
    gguf.strings("tokenizer.ggml.tokens", tokens);
    gguf.array("tokenizer.ggml.scores", GgufBuilder::kFloat32, scores);
    gguf.array("tokenizer.ggml.token_type", GgufBuilder::kInt32, kinds);
    gguf.u32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(processor_.bos_id()));
    gguf.u32("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(processor_.eos_id()));
    gguf.boolean("tokenizer.ggml.add_bos_token", true).boolean("tokenizer.ggml.add_eos_token", false);
    gguf.boolean("tokenizer.ggml.add_space_prefix", facts_.add_dummy_prefix);
    gguf.boolean("tokenizer.ggml.remove_extra_whitespaces", facts_.remove_extra_whitespaces);
    if (!charsmap_.empty()) {
      gguf.array("tokenizer.ggml.precompiled_charsmap", GgufBuilder::kUint8,
                 std::vector<uint8_t>(charsmap_.begin(), charsmap_.end()));
    }
    return gguf;
  }
  std::string path_;
  SentencePieceModelFacts facts_;
  std::string charsmap_;
  sentencepiece::SentencePieceProcessor processor_;
};

TEST_P(GgufSentencePiece, GivesTheIdsOfItsModelFile) {
  const auto result = load(gguf());
  ASSERT_TRUE(result.ok()) << result.status().message();
  const auto original = SentencePieceTokenizer::load(path_, {});
  ASSERT_TRUE(original.ok());
  EXPECT_EQ((*result)->vocab_size(), (*original)->vocab_size());
  EXPECT_EQ((*result)->bos_token_id(), (*original)->bos_token_id());
  EXPECT_EQ((*result)->eos_token_ids(), (*original)->eos_token_ids());
  for (const char* text : {"", " ", "hello world", "  two  spaces ", "The quick brown fox, 12 times.", "\n\ttabs\n",
                           "na\u00efve \u65e5\u672c\u8a9e \U0001F600", "<s>a</s> b", "x\u2581y", "\xFF\xFE"}) {
    for (const bool special : {false, true}) {
      const EncodeOptions options{.add_special_tokens = special, .parse_special_tokens = special};
      const Ids ids = (*result)->encode(text, options);
      EXPECT_EQ(ids, (*original)->encode(text, options)) << text;
      EXPECT_EQ((*result)->decode(ids, true), (*original)->decode(ids, true)) << text;
    }
  }
}

TEST_P(GgufSentencePiece, BadKeysAreNamed) {
  const std::string good = gguf().build();
  for (const char* key : {"tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"}) {
    std::string renamed = good;
    renamed.replace(renamed.find(key), 1, "T");
    const auto result = load_tokenizer(directory_.write("model.gguf", renamed));
    ASSERT_FALSE(result.ok());
    EXPECT_THAT(result.status().message(), HasSubstr(key));
  }
  const auto few = [](std::vector<int32_t> kinds, std::vector<float> scores = {0, 0}) {
    GgufBuilder gguf;
    gguf.string("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", {"<unk>", "a"});
    gguf.array("tokenizer.ggml.scores", GgufBuilder::kFloat32, scores);
    return gguf.array("tokenizer.ggml.token_type", GgufBuilder::kInt32, kinds);
  };
  EXPECT_TRUE(load(few({2, 1})).ok());
  EXPECT_THAT(error(few({2})), HasSubstr("has 1 entries for 2 tokens"));
  EXPECT_THAT(error(few({2, 1}, {1})), HasSubstr("tokenizer.ggml.scores: has 1 entries"));
  EXPECT_THAT(error(few({2, 7})), HasSubstr("token 1 is of kind 7"));
  EXPECT_THAT(error(few({1, 1})), HasSubstr("no token is the unknown one"));
  // Gemma's is called a control token.
  const auto named = load(few({3, 1}).u32("tokenizer.ggml.unknown_token_id", 0));
  ASSERT_TRUE(named.ok()) << named.status().message();
  EXPECT_EQ((*named)->encode("b", {.add_special_tokens = false}), Ids{0});
  EXPECT_THAT(error(few({3, 1}).u32("tokenizer.ggml.unknown_token_id", 2)),
              HasSubstr("tokenizer.ggml.unknown_token_id"));
  EXPECT_THAT(error(few({2, 1}, {0, NAN})), HasSubstr("score of piece 1"));
  EXPECT_THAT(error(few({2, 1}).u32("tokenizer.ggml.bos_token_id", 2)), HasSubstr("tokenizer.ggml.bos_token_id"));
  EXPECT_THAT(
      error(few({2, 1}).array<uint8_t>("tokenizer.ggml.precompiled_charsmap", GgufBuilder::kUint8, {9, 0, 0, 0})),
      HasSubstr("precompiled_charsmap"));
}

// A user-defined token that a converter wrote as text, with spaces: it goes before any other piece.
TEST_F(GgufTokenizer, UserDefinedRunsOfSpacesAreOneToken) {
  GgufBuilder gguf;
  gguf.string("tokenizer.ggml.model", "llama");
  gguf.strings("tokenizer.ggml.tokens", {"<unk>", "a", "\xe2\x96\x81", "  ",
                                         "\xe2\x96\x81"
                                         "a"});
  gguf.array<float>("tokenizer.ggml.scores", GgufBuilder::kFloat32, {0, -2, -3, -1000, -1});
  gguf.array<int32_t>("tokenizer.ggml.token_type", GgufBuilder::kInt32, {2, 1, 1, 4, 1});
  gguf.boolean("tokenizer.ggml.add_space_prefix", false).boolean("tokenizer.ggml.add_bos_token", false);
  const auto tokenizer = load(gguf);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  EXPECT_EQ((*tokenizer)->encode("a  a"), (Ids{1, 3, 1}));
  EXPECT_EQ((*tokenizer)->encode("a a"), (Ids{1, 4}));
  EXPECT_EQ((*tokenizer)->decode(Ids{1, 3, 1}, false), "a  a");
}

INSTANTIATE_TEST_SUITE_P(All, GgufSentencePiece,
                         ::testing::Values("spm_bpe_byte_fallback", "spm_bpe_no_dummy_prefix", "spm_unigram",
                                           "spm_unigram_byte_fallback"));

}  // namespace
}  // namespace sextant
