// What tokenizer.json and the files beside it may say, and what they get for saying something else: a message with file
// and field.
#include <filesystem>
#include <functional>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/text/tokenizer.h"
#include "tests/support/random_seed.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

// Every byte, "ab", and two added tokens.
json small_tokenizer() {
  json vocab = json::object();
  json added = json::array();
  const auto add = [&](const std::string& content, int id, bool special) {
    added.push_back({{"id", id},
                     {"content", content},
                     {"special", special},
                     {"normalized", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"single_word", false}});
  };
  for (const char c : std::string("abcdefgh")) vocab[std::string(1, c)] = static_cast<int>(vocab.size());
  vocab["\u0120"] = 8;
  vocab["ab"] = 9;
  vocab["<s>"] = 10;
  add("<s>", 10, true);
  add("<e>", 11, true);
  return {{"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b"}}}}};
}

class TokenizerFiles : public ::testing::Test {
 protected:
  Result<std::unique_ptr<Tokenizer>> load(const json& tokenizer) {
    directory_.write("tokenizer.json", tokenizer.dump());
    return load_tokenizer(directory_.path());
  }
  std::string error(const json& tokenizer) {
    const auto result = load(tokenizer);
    return result.ok() ? "it loads" : result.status().message();
  }
  std::string error_after(const std::function<void(json&)>& change) {
    json tokenizer = small_tokenizer();
    change(tokenizer);
    return error(tokenizer);
  }
  Ids ids(const json& tokenizer, std::string_view text) {
    const auto result = load(tokenizer);
    EXPECT_TRUE(result.ok()) << result.status().message();
    return result.ok() ? (*result)->encode(text) : Ids{};
  }
  ScratchDirectory directory_;
};

TEST_F(TokenizerFiles, MergesComeInTwoForms) {
  EXPECT_EQ(ids(small_tokenizer(), "abc ab<s>"), (Ids{9, 2, 8, 9, 10}));
  json pairs = small_tokenizer();
  pairs["model"]["merges"] = json::parse(R"([["a", "b"]])");
  EXPECT_EQ(ids(pairs, "abc ab<e>"), (Ids{9, 2, 8, 9, 11}));
}

TEST_F(TokenizerFiles, WrongFieldsAreNamed) {
  const auto path = directory_.file("tokenizer.json");
  const std::pair<std::string, std::function<void(json&)>> cases[] = {
      {"model is missing", [](json& j) { j.erase("model"); }},
      {"model must be an object, is array", [](json& j) { j["model"] = json::array(); }},
      {"model.type is 'Unigram'", [](json& j) { j["model"]["type"] = "Unigram"; }},
      {"model.type must be a string", [](json& j) { j["model"]["type"] = 3; }},
      {"model.byte_fallback is true", [](json& j) { j["model"]["byte_fallback"] = true; }},
      {"model.byte_fallback must be true or false", [](json& j) { j["model"]["byte_fallback"] = "no"; }},
      {"model.dropout is set", [](json& j) { j["model"]["dropout"] = 0.1; }},
      {"model.end_of_word_suffix is set", [](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }},
      {"model.vocab is missing", [](json& j) { j["model"].erase("vocab"); }},
      {"model.vocab must be an object",
       [](json& j) {
         j["model"]["vocab"] = {1, 2};
       }},
      {"model.vocab['a'] must be an integer, is string", [](json& j) { j["model"]["vocab"]["a"] = "0"; }},
      {"model.vocab['a'] is -1; token ids", [](json& j) { j["model"]["vocab"]["a"] = -1; }},
      {"token ids lie between",
       [](json& j) {
         j["model"]["vocab"]["a"] = 1e18;
         j["model"]["vocab"]["a"] = 1LL << 60;
       }},
      {"has id 9000000 in a vocabulary of 13", [](json& j) { j["model"]["vocab"]["a"] = 9'000'000; }},
      {"id 1 belongs to both", [](json& j) { j["model"]["vocab"]["a"] = 1; }},
      {"model.merges is missing", [](json& j) { j["model"].erase("merges"); }},
      {"model.merges[0] is not two tokens", [](json& j) { j["model"]["merges"] = {"ab"}; }},
      {"model.merges[0] is not two tokens", [](json& j) { j["model"]["merges"] = {"a b c"}; }},
      {"model.merges[0] must be a string or a pair",
       [](json& j) { j["model"]["merges"] = json::parse(R"([["a", 1]])"); }},
      {"merge 1: token 'z' is not in the vocabulary",
       [](json& j) {
         j["model"]["merges"] = {"a b", "a z"};
       }},
      {"merge 0: token 'bc' is not in the vocabulary", [](json& j) { j["model"]["merges"] = {"b c"}; }},
      {"unknown token '<unk>' is not", [](json& j) { j["model"]["unk_token"] = "<unk>"; }},
      {"added_tokens must be an array", [](json& j) { j["added_tokens"] = json::object(); }},
      {"added_tokens[0] must be an object", [](json& j) { j["added_tokens"][0] = 1; }},
      {"added_tokens[0].id is missing", [](json& j) { j["added_tokens"][0].erase("id"); }},
      {"added_tokens[0].id must be an integer", [](json& j) { j["added_tokens"][0]["id"] = 1.5; }},
      {"added_tokens[1].content must be a string", [](json& j) { j["added_tokens"][1]["content"] = 7; }},
      {"added_tokens[1].special must be true or false", [](json& j) { j["added_tokens"][1]["special"] = "yes"; }},
      {"id 0 belongs to both 'a' and '<e>'", [](json& j) { j["added_tokens"][1]["id"] = 0; }},
      {"token '<s>' has two ids", [](json& j) { j["added_tokens"][0]["id"] = 12; }},
      {"pre_tokenizer is missing", [](json& j) { j["pre_tokenizer"] = nullptr; }},
      {"pre_tokenizer has 0 ByteLevel",
       [](json& j) {
         j["pre_tokenizer"] = {{"type", "Whitespace"}};
       }},
      {"pre_tokenizer.type 'Metaspace' is not supported",
       [](json& j) {
         j["pre_tokenizer"] = {{"type", "Metaspace"}};
       }},
      {"pre_tokenizer.pretokenizers[0].pattern is missing",
       [](json& j) {
         j["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {{{"type", "Split"}}}}};
       }},
      {"pre_tokenizer.pretokenizers[0].behavior is 'Odd'",
       [](json& j) {
         j["pre_tokenizer"] = {
             {"type", "Sequence"},
             {"pretokenizers", {{{"type", "Split"}, {"pattern", {{"String", "a"}}}, {"behavior", "Odd"}}}}};
       }},
      {"pre_tokenizer: step 0: regular expression",
       [](json& j) {
         j["pre_tokenizer"] = {{"type", "Sequence"},
                               {"pretokenizers",
                                {{{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}},
                                 {{"type", "ByteLevel"}, {"use_regex", false}}}}};
       }},
      {"normalizer.type 'Precompiled' is not supported",
       [](json& j) {
         j["normalizer"] = {{"type", "Precompiled"}};
       }},
      {"normalizer must be an object", [](json& j) { j["normalizer"] = "NFC"; }},
      {"a replacement of 1000 bytes",
       [](json& j) {
         j["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(1000, 'a')}};
       }},
      {"post_processor.type 'X' is not supported",
       [](json& j) {
         j["post_processor"] = {{"type", "X"}};
       }},
      {"post_processor.single is missing",
       [](json& j) {
         j["post_processor"] = {{"type", "TemplateProcessing"}};
       }},
      {"post_processor.single does not contain the text",
       [](json& j) {
         j["post_processor"] = {{"type", "TemplateProcessing"}, {"single", json::array()}};
       }},
      {"post-processor token id 500 is not in the vocabulary",
       [](json& j) {
         j["post_processor"] = {{"type", "RobertaProcessing"}, {"cls", {"<s>", 500}}, {"sep", {"<e>", 11}}};
       }},
      {"added token 11 has 2000 bytes", [](json& j) { j["added_tokens"][1]["content"] = std::string(2000, 'x'); }},
  };
  for (const auto& [expected, change] : cases) {
    const std::string message = error_after(change);
    EXPECT_THAT(message, HasSubstr(expected));
    EXPECT_THAT(message, HasSubstr(path));
  }
}

TEST_F(TokenizerFiles, SequencesDoNotNestWithoutEnd) {
  for (const char* part : {"pre_tokenizer", "normalizer", "post_processor"}) {
    const std::string name = part == std::string("pre_tokenizer") ? "pretokenizers"
                             : part == std::string("normalizer")  ? "normalizers"
                                                                  : "processors";
    json inner = {{"type", "ByteLevel"}};
    for (int i = 0; i < 15; ++i) inner = {{"type", "Sequence"}, {name, {inner}}};
    EXPECT_THAT(error_after([&](json& j) { j[part] = inner; }), HasSubstr("nested too deeply"));
  }
}

TEST_F(TokenizerFiles, DamagedJsonIsRefused) {
  const std::string whole = small_tokenizer().dump();
  for (size_t n = 0; n < whole.size(); n += 7) {
    directory_.write("tokenizer.json", whole.substr(0, n));
    EXPECT_FALSE(load_tokenizer(directory_.path()).ok()) << n;
  }
  const uint64_t seed = random_seed();
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int i = 0; i < 500; ++i) {  // whatever comes of it, it is a tokenizer or a message
    std::string damaged = whole;
    for (int k = 0; k < 3; ++k) damaged[random() % damaged.size()] = static_cast<char>(random());
    directory_.write("tokenizer.json", damaged);
    const auto result = load_tokenizer(directory_.path());
    if (result.ok()) {
      (*result)->encode("abc <s> x");
    } else {
      EXPECT_FALSE(result.status().message().empty()) << "seed " << seed;
    }
  }
}

TEST_F(TokenizerFiles, TemplatesPutTokensAround) {
  json tokenizer = small_tokenizer();
  tokenizer["post_processor"] = json::parse(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"},
      {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "B", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<e>", "type_id": 0}}],
       "special_tokens": {"B": {"id": "B", "ids": [10, 0], "tokens": ["<s>", "a"]},
                          "<e>": {"id": "<e>", "ids": [11], "tokens": ["<e>"]}}}]})");
  EXPECT_EQ(ids(tokenizer, "b"), (Ids{10, 0, 1, 11}));
  const auto loaded = load(tokenizer);
  EXPECT_EQ((*loaded)->encode("b", {.add_special_tokens = false}), Ids{1});
}

TEST_F(TokenizerFiles, ConfigsBesideIt) {
  directory_.write("tokenizer_config.json", R"({"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "<e>",
      "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}],
      "additional_special_tokens": ["<e>", {"content": "gh"}], "pad_token": "[none]",
      "added_tokens_decoder": {"11": {"content": "<e>", "special": true}, "12": {"content": "gh", "special": false}}})");
  directory_.write("generation_config.json", R"({"eos_token_id": [11, 3]})");
  const auto result = load(small_tokenizer());
  ASSERT_TRUE(result.ok()) << result.status().message();
  const Tokenizer& tokenizer = **result;
  EXPECT_EQ(tokenizer.bos_token_id(), 10);
  EXPECT_EQ(tokenizer.eos_token_ids(), (Ids{11, 3}));
  EXPECT_EQ(tokenizer.chat_template(), "D");
  EXPECT_EQ(tokenizer.encode("gh"), Ids{12});
  EXPECT_TRUE(tokenizer.is_special(12));
  EXPECT_EQ(tokenizer.encode("gh", {.parse_special_tokens = false}), (Ids{6, 7}));
  directory_.write("chat_template.jinja", "J");
  EXPECT_EQ((*load(small_tokenizer()))->chat_template(), "J");
}

TEST_F(TokenizerFiles, LlamaClassesAddBos) {
  directory_.write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<s>"})");
  EXPECT_EQ(ids(small_tokenizer(), "a"), (Ids{10, 0}));
  directory_.write(
      "tokenizer_config.json",
      R"({"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "<e>", "add_bos_token": false,
                       "add_eos_token": true})");
  EXPECT_EQ(ids(small_tokenizer(), "a"), (Ids{0, 11}));
  directory_.write("tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>"})");
  EXPECT_EQ(ids(small_tokenizer(), "a"), (Ids{0}));
}

TEST_F(TokenizerFiles, BadConfigsAreNamed) {
  const std::pair<std::string, std::pair<std::string, std::string>> cases[] = {
      {"tokenizer_config.json: bos_token '<none>'", {"tokenizer_config.json", R"({"bos_token": "<none>"})"}},
      {"tokenizer_config.json: eos_token.content is missing", {"tokenizer_config.json", R"({"eos_token": {}})"}},
      {"eos_token must be an object", {"tokenizer_config.json", R"({"eos_token": 3})"}},
      {"added_tokens_decoder has the key 'x'", {"tokenizer_config.json", R"({"added_tokens_decoder": {"x": {}}})"}},
      {"added_tokens_decoder.12.content is missing",
       {"tokenizer_config.json", R"({"added_tokens_decoder": {"12": {}}})"}},
      {"has id 16000000", {"tokenizer_config.json", R"({"added_tokens_decoder": {"16000000": {"content": "x"}}})"}},
      {"belongs to both 'a' and 'x'",
       {"tokenizer_config.json", R"({"added_tokens_decoder": {"0": {"content": "x"}}})"}},
      {"chat_template must be a string", {"tokenizer_config.json", R"({"chat_template": 3})"}},
      {"chat_template[0].name is missing", {"tokenizer_config.json", R"({"chat_template": [{}]})"}},
      {"add_bos_token must be true or false", {"tokenizer_config.json", R"({"add_bos_token": 1})"}},
      {"tokenizer_config.json: must be an object", {"tokenizer_config.json", "[]"}},
      {"generation_config.json: eos_token_id[1] must be an integer",
       {"generation_config.json", R"({"eos_token_id": [1, "2"]})"}},
      {"eos token id 99 is not in the vocabulary", {"generation_config.json", R"({"eos_token_id": 99})"}},
      {"special_tokens_map.json: additional_special_tokens[0] must be an object",
       {"special_tokens_map.json", R"({"additional_special_tokens": [1]})"}},
  };
  for (const auto& [expected, file] : cases) {
    const std::string path = directory_.write(file.first, file.second);
    EXPECT_THAT(error(small_tokenizer()), HasSubstr(expected));
    std::filesystem::remove(path);
  }
  EXPECT_TRUE(load(small_tokenizer()).ok());
}

}  // namespace
}  // namespace sextant
