// What GGUF's tokenizer keys may say, and what they get for saying something else: a message with file and key.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  EXPECT_THAT(error(GgufBuilder().string("tokenizer.ggml.model", "llama")), HasSubstr("tokenizer.model"));
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

}  // namespace
}  // namespace sextant
