// Tokenizers against the reference implementations' own results: Hugging Face's tokenizers for byte-level BPE, the
// sentencepiece library, and the real SmolLM2 vocabulary out of its GGUF file.
#include "engine/text/tokenizer.h"

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <random>
#include <thread>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/text/detokenizer.h"
#include "tests/support/random_seed.h"

namespace sextant {
namespace {

using nlohmann::json;

const std::string kGolden = SEXTANT_TEST_DATA "/golden";

json read_json(const std::string& path) {
  std::ifstream stream(path);
  EXPECT_TRUE(stream.good()) << path;
  return json::parse(stream);
}

std::unique_ptr<Tokenizer> load(const std::string& path) {
  Result<std::unique_ptr<Tokenizer>> tokenizer = load_tokenizer(path);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? std::move(tokenizer).value() : nullptr;
}

// Valid UTF-8 with what tokenizers treat differently: scripts, digits, white space, marks, contractions, controls.
std::string random_text(std::mt19937& random, size_t num_parts) {
  static const std::vector<std::string> parts = {
      "a",     "the",      " the",   "Hello",   "'ll",       "'S",   " ",
      "  ",    "\n",       "\r\n",   "\t",      "1",         "23",   "456",
      "²",     "½",        "é",      "e\u0301", "ß",         "日本", "の",
      "🙂",  "👩\u200d👧", "\u00a0", "\u2003",  "\u200b",    "—",    "…",
      "!",     "...",      "_",      "$",       "<|",        "|>",   "<s>",
      "مرحبا", "Привет",   "ǅ",      "ʰ",       "\u0300",    "٣",    std::string(1, '\0'),
      "\x01",  "\x7f",     "\u0085", "\u2028",  "\U0010ffff"};
  std::string text;
  for (size_t i = 0; i < num_parts; ++i) {
    if (random() % 8 == 0) {
      uint32_t c = random() % 0x110000;
      if (c >= 0xD800 && c < 0xE000) c = 0xFFFD;
      char32_t wide = c;
      if (wide < 0x80)
        text += static_cast<char>(wide);
      else if (wide < 0x800)
        text += {static_cast<char>(0xC0 | wide >> 6), static_cast<char>(0x80 | (wide & 63))};
      else if (wide < 0x10000)
        text += {static_cast<char>(0xE0 | wide >> 12), static_cast<char>(0x80 | (wide >> 6 & 63)),
                 static_cast<char>(0x80 | (wide & 63))};
      else
        text += {static_cast<char>(0xF0 | wide >> 18), static_cast<char>(0x80 | (wide >> 12 & 63)),
                 static_cast<char>(0x80 | (wide >> 6 & 63)), static_cast<char>(0x80 | (wide & 63))};
    } else {
      text += parts[random() % parts.size()];
    }
  }
  return text;
}

class BpeGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(BpeGolden, IdsAndText) {
  const std::string directory = kGolden + "/tokenizers/" + GetParam();
  const auto tokenizer = load(directory);
  ASSERT_NE(tokenizer, nullptr);
  const json cases = read_json(directory + "/golden.json");
  ASSERT_GE(cases.size(), 20u);
  for (const json& c : cases) {
    const std::string text = c["text"];
    const auto ids = c["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer->encode(text, {.add_special_tokens = false}), ids) << text;
    EXPECT_EQ(tokenizer->encode(text), c["ids_with_special"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(tokenizer->decode(ids, false), c["decoded"].get<std::string>()) << text;
  }
}

TEST_P(BpeGolden, WithoutParsingNoTextMakesSpecialTokens) {
  const auto tokenizer = load(kGolden + "/tokenizers/" + GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const std::string text = "<|special|>hi<|end|><|special|";
  const auto ids = tokenizer->encode(text, {.add_special_tokens = false, .parse_special_tokens = false});
  for (const int32_t id : ids) EXPECT_FALSE(tokenizer->is_special(id)) << id;
  EXPECT_EQ(tokenizer->decode(ids, true), text);
  EXPECT_EQ(tokenizer->encode(text, {.add_special_tokens = false})[0], 0);
}

TEST_P(BpeGolden, DecodingGivesBackTheText) {
  const auto tokenizer = load(kGolden + "/tokenizers/" + GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const bool normalizes = std::string(GetParam()) == "bpe_qwen2";
  const uint64_t seed = random_seed();
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int i = 0; i < 300; ++i) {
    const std::string text = random_text(random, random() % 40);
    const auto ids = tokenizer->encode(text, {.add_special_tokens = false, .parse_special_tokens = i % 2 == 0});
    if (!normalizes) {
      ASSERT_EQ(tokenizer->decode(ids, false), text) << "seed " << seed;
    } else {  // normalising twice changes nothing
      const std::string once = tokenizer->decode(ids, false);
      ASSERT_EQ(tokenizer->decode(tokenizer->encode(once, {.add_special_tokens = false}), false), once)
          << "seed " << seed;
    }
  }
}

TEST_P(BpeGolden, StreamedTextIsTheWholeText) {
  const auto tokenizer = load(kGolden + "/tokenizers/" + GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const uint64_t seed = random_seed();
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int i = 0; i < 300; ++i) {
    std::vector<int32_t> ids(random() % 50);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % 1300) - 20;  // also ids that do not exist
    const bool skip = random() % 2 == 0;
    Detokenizer detokenizer(*tokenizer, skip);
    std::string streamed;
    for (size_t done = 0; done < ids.size();) {
      const size_t n = std::min<size_t>(random() % 4, ids.size() - done);
      const std::string part = detokenizer.append(std::span(ids).subspan(done, n));
      EXPECT_NO_THROW(json(part).dump()) << "a part that is not UTF-8, seed " << seed;
      streamed += part;
      done += n;
    }
    streamed += detokenizer.flush();
    ASSERT_EQ(streamed, tokenizer->decode(ids, skip)) << "seed " << seed;
  }
}

TEST_P(BpeGolden, AnyBytesAreEncoded) {
  const auto tokenizer = load(kGolden + "/tokenizers/" + GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const uint64_t seed = random_seed();
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int i = 0; i < 300; ++i) {
    std::string bytes;
    const size_t size = random() % 60;
    for (size_t k = 0; k < size; ++k) bytes += static_cast<char>(random() % 3 == 0 ? random() : random() % 128);
    const auto ids = tokenizer->encode(bytes, {.add_special_tokens = false});
    if (std::string(GetParam()) == "bpe_qwen2") continue;
    std::string back;
    for (const int32_t id : ids) back += tokenizer->token_bytes(id);
    ASSERT_EQ(back, bytes) << "seed " << seed;  // the vocabulary has all 256 bytes
  }
}

TEST_P(BpeGolden, ManyThreadsShareOneTokenizer) {
  const auto tokenizer = load(kGolden + "/tokenizers/" + GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const uint64_t seed = random_seed();
  std::mt19937 random(static_cast<uint32_t>(seed));
  std::vector<std::string> texts(50);
  std::vector<std::vector<int32_t>> expected;
  for (std::string& text : texts) {
    text = random_text(random, 200);
    expected.push_back(tokenizer->encode(text));
  }
  std::vector<std::thread> threads;
  std::atomic<int> num_wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (size_t i = 0; i < texts.size(); ++i) num_wrong += tokenizer->encode(texts[i]) != expected[i];
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_wrong, 0) << "seed " << seed;
}

INSTANTIATE_TEST_SUITE_P(All, BpeGolden, ::testing::Values("bpe_gpt2", "bpe_llama3", "bpe_qwen2"));

class SentencePieceGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(SentencePieceGolden, IdsAndText) {
  const std::string directory = kGolden + "/tokenizers/" + GetParam();
  const auto tokenizer = load(directory);
  ASSERT_NE(tokenizer, nullptr);
  const json cases = read_json(directory + "/golden.json");
  ASSERT_GE(cases.size(), 20u);
  for (const json& c : cases) {
    const std::string text = c["text"];
    const auto ids = c["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer->encode(text, {.add_special_tokens = false, .parse_special_tokens = false}), ids) << text;
    EXPECT_EQ(tokenizer->decode(ids, true), c["decoded"].get<std::string>()) << text;
  }
}

TEST_P(SentencePieceGolden, SpecialTokensAndIds) {
  const auto tokenizer = load(kGolden + "/tokenizers/" + GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const std::optional<int32_t> bos = tokenizer->token_id("<s>"), eos = tokenizer->token_id("</s>");
  ASSERT_TRUE(bos && eos);
  EXPECT_EQ(tokenizer->bos_token_id(), bos);
  EXPECT_EQ(tokenizer->eos_token_ids(), std::vector<int32_t>{*eos});
  EXPECT_TRUE(tokenizer->is_special(*bos));
  const auto ids = tokenizer->encode("<s>hi</s>");
  ASSERT_GE(ids.size(), 4u);
  EXPECT_EQ(ids[0], *bos);
  EXPECT_EQ(ids[1], *bos);
  EXPECT_EQ(ids.back(), *eos);
  for (const int32_t id :
       tokenizer->encode("<s>hi</s>", {.add_special_tokens = false, .parse_special_tokens = false})) {
    EXPECT_FALSE(tokenizer->is_special(id));
  }
  EXPECT_EQ(tokenizer->token_id("no such token"), std::nullopt);
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
    ASSERT_EQ(tokenizer->token_id(tokenizer->token_text(id)), id);
  }
  EXPECT_EQ(tokenizer->token_bytes(-1), "");
  EXPECT_EQ(tokenizer->token_bytes(1 << 30), "");
}

INSTANTIATE_TEST_SUITE_P(All, SentencePieceGolden,
                         ::testing::Values("spm_bpe_byte_fallback", "spm_bpe_no_dummy_prefix", "spm_unigram",
                                           "spm_unigram_byte_fallback"));

// A sentencepiece vocabulary of 262,144 out of a GGUF file; the reference's prompts begin with BOS.
TEST(Gemma3, TokenizesAsTheReference) {
  const char* path = std::getenv("SEXTANT_TEST_GEMMA3");
  if (path == nullptr) GTEST_SKIP() << "SEXTANT_TEST_GEMMA3, the path of gemma-3-270m-q4_k_m.gguf, is not set";
  const std::unique_ptr<Tokenizer> tokenizer = load(path);
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocab_size(), 262144);
  EXPECT_EQ(tokenizer->bos_token_id(), 2);
  const json golden = read_json(kGolden + "/gemma3-270m-q4_k_m.json");
  ASSERT_EQ(golden["tokenize"].size(), 16u);
  for (const json& c : golden["tokenize"]) {
    const std::string text = c["text"];
    const auto ids = c["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer->encode(text, {.add_special_tokens = false}), ids) << text;
    EXPECT_EQ(tokenizer->decode(ids, false), c["decoded"].get<std::string>()) << text;
  }
  ASSERT_EQ(golden["greedy"].size(), 12u);
  for (const json& c : golden["greedy"]) {
    EXPECT_EQ(tokenizer->encode(c["prompt"].get<std::string>()), c["ids"].get<std::vector<int32_t>>());
  }
}

class SmolLm2 : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("SEXTANT_TEST_MODEL");
    if (path == nullptr) GTEST_SKIP() << "SEXTANT_TEST_MODEL (path of SmolLM2-135M-Instruct.Q4_1.gguf) is not set";
    tokenizer_ = load(path);
    ASSERT_NE(tokenizer_, nullptr);
    golden_ = read_json(kGolden + "/smollm2-135m-instruct-q4_1.json");
  }
  std::unique_ptr<Tokenizer> tokenizer_;
  json golden_;
};

TEST_F(SmolLm2, Tokenize) {
  ASSERT_EQ(golden_["tokenize"].size(), 16u);
  for (const json& c : golden_["tokenize"]) {
    const std::string text = c["text"];
    const auto ids = c["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer_->encode(text, {.add_special_tokens = false}), ids) << text;
    EXPECT_EQ(tokenizer_->decode(ids, false), c["decoded"].get<std::string>()) << text;
  }
}

TEST_F(SmolLm2, ChatAndPrompts) {
  ASSERT_GE(golden_["chat"].size(), 1u);
  for (const json& c : golden_["chat"]) {
    const std::string text = c["text"];
    EXPECT_EQ(tokenizer_->encode(text, {.add_special_tokens = false}), c["ids"].get<std::vector<int32_t>>()) << text;
  }
  for (const json& c : golden_["greedy"]) {
    EXPECT_EQ(tokenizer_->encode(c["prompt"].get<std::string>()), c["ids"].get<std::vector<int32_t>>());
  }
}

TEST_F(SmolLm2, Facts) {
  EXPECT_EQ(tokenizer_->vocab_size(), 49152);
  EXPECT_EQ(tokenizer_->bos_token_id(), 1);
  ASSERT_FALSE(tokenizer_->eos_token_ids().empty());
  EXPECT_EQ(tokenizer_->eos_token_ids()[0], 2);
  EXPECT_TRUE(tokenizer_->chat_template().has_value());
  EXPECT_TRUE(tokenizer_->is_special(2));
  EXPECT_FALSE(tokenizer_->is_special(504));
  EXPECT_EQ(tokenizer_->token_text(504), "The");
  EXPECT_EQ(tokenizer_->token_id("<|im_end|>"), 2);
  EXPECT_EQ(tokenizer_->token_text(260), "\u0120the");
  EXPECT_EQ(tokenizer_->token_bytes(260), " the");
}

TEST(LoadTokenizer, SaysWhatIsMissing) {
  const auto missing = load_tokenizer(kGolden + "/nowhere");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.status().code(), StatusCode::kNotFound);
  const auto empty = load_tokenizer(kGolden);
  ASSERT_FALSE(empty.ok());
  EXPECT_NE(empty.status().message().find("tokenizer.json"), std::string::npos);
}

}  // namespace
}  // namespace sextant
