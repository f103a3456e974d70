#include "engine/text/bpe_model.h"

#include <chrono>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "engine/text/byte_alphabet.h"
#include "tests/support/random_seed.h"

namespace sextant {
namespace {

using Kind = BpeVocabulary::Kind;

// A vocabulary of single letters and what the merges of "x y" make.
BpeVocabulary vocabulary(const std::string& letters, const std::vector<std::pair<std::string, std::string>>& merges) {
  BpeVocabulary v;
  for (const char c : letters) v.tokens.emplace_back(1, c);
  for (const auto& [left, right] : merges) {
    const std::string merged = left + right;
    if (std::find(v.tokens.begin(), v.tokens.end(), merged) == v.tokens.end()) v.tokens.push_back(merged);
  }
  v.kinds.assign(v.tokens.size(), Kind::kNormal);
  v.merges = merges;
  return v;
}

std::vector<std::string> encode(const BpeModel& model, std::string_view piece, bool allow_special = true) {
  std::vector<int32_t> ids;
  model.encode(piece, allow_special, &ids);
  std::vector<std::string> texts;
  for (const int32_t id : ids) texts.emplace_back(model.token_text(id));
  return texts;
}

BpeModel make(BpeVocabulary v) {
  Result<BpeModel> model = BpeModel::create(std::move(v));
  EXPECT_TRUE(model.ok()) << model.status().message();
  return std::move(model).value();
}

// The definition, word for word.
std::vector<std::string> naive(std::string_view piece, const std::vector<std::pair<std::string, std::string>>& merges) {
  std::vector<std::string> parts;
  for (const char c : piece) parts.emplace_back(1, c);
  while (true) {
    size_t best_rank = merges.size(), best = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        if (merges[rank].first == parts[i] && merges[rank].second == parts[i + 1]) best_rank = rank, best = i;
      }
    }
    if (best_rank == merges.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

TEST(BpeModel, RandomMergesAgreeWithTheDefinition) {
  const uint64_t seed = random_seed();
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int round = 0; round < 60; ++round) {
    std::vector<std::pair<std::string, std::string>> merges;
    std::vector<std::string> tokens = {"a", "b", "c"};
    std::map<std::pair<std::string, std::string>, bool> seen;
    for (int i = 0; i < 25; ++i) {
      std::pair<std::string, std::string> merge = {tokens[random() % tokens.size()], tokens[random() % tokens.size()]};
      if (merge.first.size() + merge.second.size() > 12 || seen[merge]) continue;
      seen[merge] = true;
      tokens.push_back(merge.first + merge.second);
      merges.push_back(std::move(merge));
    }
    const BpeModel model = make(vocabulary("abc", merges));
    for (int i = 0; i < 40; ++i) {
      std::string piece;
      for (size_t n = random() % (i % 4 == 0 ? 300 : 70); n > 0; --n) piece += static_cast<char>('a' + random() % 3);
      ASSERT_EQ(encode(model, piece), naive(piece, merges)) << "seed " << seed << " piece " << piece;
    }
  }
}

TEST(BpeModel, AMegabyteWithoutACutIsNotQuadratic) {
  const BpeModel model = make(vocabulary("ab", {{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}, {"a", "b"}}));
  const auto start = std::chrono::steady_clock::now();
  std::vector<int32_t> ids;
  model.encode(std::string(1 << 20, 'a'), true, &ids);
  EXPECT_EQ(ids.size(), (1u << 20) / 8);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));  // quadratic: hours
}

TEST(BpeModel, SpecialTokensThatMergesMakeAreTakenApart) {
  BpeVocabulary v = vocabulary("abc", {{"a", "b"}, {"ab", "c"}, {"ab", "ab"}});
  v.kinds[3] = Kind::kSpecial;  // "ab"
  v.kinds[4] = Kind::kSpecial;  // "abc"
  const BpeModel model = make(std::move(v));
  EXPECT_EQ(encode(model, "abc"), (std::vector<std::string>{"abc"}));
  EXPECT_EQ(encode(model, "abc", false), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(encode(model, "abab", false), (std::vector<std::string>{"abab"}));
}

TEST(BpeModel, IgnoreMerges) {
  BpeVocabulary v = vocabulary("abc", {{"a", "b"}});
  v.tokens.push_back("abc");  // no merge leads here
  v.kinds.push_back(Kind::kNormal);
  EXPECT_EQ(encode(make(v), "abc"), (std::vector<std::string>{"ab", "c"}));
  v.ignore_merges = true;
  EXPECT_EQ(encode(make(v), "abc"), (std::vector<std::string>{"abc"}));
  v.kinds.back() = Kind::kSpecial;
  EXPECT_EQ(encode(make(v), "abc"), (std::vector<std::string>{"ab", "c"}));
  v.kinds.back() = Kind::kUnused;
  EXPECT_EQ(encode(make(v), "abc"), (std::vector<std::string>{"ab", "c"}));
}

TEST(BpeModel, UnknownBytes) {
  BpeVocabulary v = vocabulary("ab", {});
  EXPECT_EQ(encode(make(v), "axxb"), (std::vector<std::string>{"a", "b"}));
  v.tokens.push_back("<unk>");
  v.kinds.push_back(Kind::kSpecial);
  v.unknown_token = "<unk>";
  EXPECT_EQ(encode(make(v), "axxb"), (std::vector<std::string>{"a", "<unk>", "<unk>", "b"}));
  v.fuse_unknown = true;
  EXPECT_EQ(encode(make(v), "axxb"), (std::vector<std::string>{"a", "<unk>", "b"}));
}

TEST(BpeModel, TokensHaveTheBytesTheyAreSpelledWith) {
  BpeVocabulary v;
  v.tokens = {"\u0120the", "", "<|x|>", "\u65e5", "\u00e9", "\u00c3\u00a9"};
  v.kinds = {Kind::kNormal, Kind::kAbsent, Kind::kSpecial, Kind::kAdded, Kind::kAdded, Kind::kNormal};
  const BpeModel model = make(v);
  EXPECT_EQ(model.token_bytes(0), " the");
  EXPECT_EQ(model.token_bytes(1), "");
  EXPECT_EQ(model.token_bytes(2), "<|x|>");
  EXPECT_EQ(model.token_bytes(3), "\u65e5");
  EXPECT_EQ(model.token_bytes(4), "\u00e9");  // an added token is the text it says
  EXPECT_EQ(model.token_bytes(5), "\u00e9");
  for (const int32_t id : {-1, 6, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(model.token_bytes(id), "");
    EXPECT_EQ(model.token_text(id), "");
    EXPECT_FALSE(model.is_token(id) || model.is_special(id));
  }
  EXPECT_EQ(model.token_id("\u0120the"), 0);
  EXPECT_EQ(model.token_id(""), std::nullopt);
}

TEST(BpeModel, BadVocabulariesAreRefused) {
  const auto message = [](BpeVocabulary v) {
    const Result<BpeModel> model = BpeModel::create(std::move(v));
    return model.ok() ? std::string() : model.status().message();
  };
  EXPECT_NE(message({}).find("empty"), std::string::npos);
  BpeVocabulary twice = vocabulary("ab", {});
  twice.tokens.push_back("a");
  twice.kinds.push_back(Kind::kNormal);
  EXPECT_EQ(message(twice), "token 'a' has two ids, 0 and 2");
  BpeVocabulary unknown = vocabulary("ab", {{"a", "b"}});
  unknown.merges.emplace_back("a", "z");
  EXPECT_EQ(message(unknown), "merge 1: token 'z' is not in the vocabulary");
  BpeVocabulary no_result = vocabulary("ab", {});
  no_result.merges.emplace_back("a", "b");
  EXPECT_EQ(message(no_result), "merge 0: token 'ab' is not in the vocabulary");
  BpeVocabulary no_unknown = vocabulary("ab", {});
  no_unknown.unknown_token = "<unk>";
  EXPECT_NE(message(no_unknown).find("<unk>"), std::string::npos);
}

TEST(ByteAlphabet, EveryByteComesBack) {
  std::string all, spelled;
  for (int byte = 0; byte < 256; ++byte) {
    all += static_cast<char>(byte);
    spelled += byte_alphabet_char(static_cast<uint8_t>(byte));
  }
  EXPECT_EQ(byte_alphabet_decode(spelled), all);
  EXPECT_EQ(byte_alphabet_char(' '), "\u0120");
  EXPECT_EQ(byte_alphabet_char('\n'), "\u010a");
  EXPECT_EQ(byte_alphabet_char(0xFF), "\u00ff");
  EXPECT_EQ(byte_alphabet_decode("a b"), std::nullopt);
  EXPECT_EQ(byte_alphabet_decode("\u65e5"), std::nullopt);
  EXPECT_EQ(byte_alphabet_decode("\xC4"), std::nullopt);
}

}  // namespace
}  // namespace sextant
