#include "engine/text/detokenizer.h"

#include <random>

#include <gtest/gtest.h>

#include "engine/text/utf8.h"
#include "tests/support/random_seed.h"

namespace sextant {
namespace {

// Token n is the n-th of a list of byte strings; the last one is special.
class ListTokenizer final : public Tokenizer {
 public:
  explicit ListTokenizer(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {}
  std::vector<int32_t> encode(std::string_view, const EncodeOptions&) const override { return {}; }
  std::string token_bytes(int32_t id) const override {
    return id >= 0 && id < vocab_size() ? tokens_[static_cast<size_t>(id)] : "";
  }
  std::string token_text(int32_t id) const override { return token_bytes(id); }
  std::optional<int32_t> token_id(std::string_view) const override { return std::nullopt; }
  bool is_special(int32_t id) const override { return id == vocab_size() - 1; }
  int32_t vocab_size() const override { return static_cast<int32_t>(tokens_.size()); }
  std::optional<int32_t> bos_token_id() const override { return std::nullopt; }
  const std::vector<int32_t>& eos_token_ids() const override { return eos_; }
  const std::optional<std::string>& chat_template() const override { return template_; }
  std::string decode(std::span<const int32_t>, bool) const override { return {}; }

 private:
  std::vector<std::string> tokens_;
  std::vector<int32_t> eos_;
  std::optional<std::string> template_;
};

TEST(Detokenizer, HoldsBackAnUnfinishedCharacter) {
  const ListTokenizer tokenizer({"a\xE2", "\x82",
                                 "\xAC"
                                 "b",
                                 "<end>"});
  Detokenizer detokenizer(tokenizer, true);
  EXPECT_EQ(detokenizer.append(std::vector<int32_t>{0}), "a");
  EXPECT_EQ(detokenizer.append(std::vector<int32_t>{1}), "");
  EXPECT_EQ(detokenizer.append(std::vector<int32_t>{3}), "");
  EXPECT_EQ(detokenizer.append(std::vector<int32_t>{2}),
            "\u20ac"
            "b");
  EXPECT_EQ(detokenizer.append(std::vector<int32_t>{0, 0}), "a\uFFFDa");
  EXPECT_EQ(detokenizer.flush(), "\uFFFD");
  EXPECT_EQ(detokenizer.flush(), "");
}

TEST(Detokenizer, AnyBytesUnderAnyCutGiveWhatTheWholeGives) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* more :
       {"\xF0\x9F", "\x98\x80", "\xE2\x82", "\xAC", "\xC3", "\xED\xA0", "abc", "é", "\xF4\x90", "!"}) {
    tokens.emplace_back(more);
  }
  const ListTokenizer tokenizer(tokens);
  const uint64_t seed = random_seed();
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int i = 0; i < 5000; ++i) {
    std::vector<int32_t> ids(random() % 24);
    std::string bytes;
    for (int32_t& id : ids) {
      id = static_cast<int32_t>(random() % 2 == 0 ? 128 + random() % 128 : random() % tokens.size());
      bytes += tokenizer.token_bytes(id);
    }
    std::string whole;
    append_replacing_invalid(bytes, true, &whole);
    Detokenizer detokenizer(tokenizer, false);
    std::string streamed;
    for (size_t done = 0; done < ids.size();) {
      const size_t n = std::min<size_t>(random() % 3, ids.size() - done);
      const std::string part = detokenizer.append(std::span(ids).subspan(done, n));
      ASSERT_EQ(valid_utf8_prefix(part), part.size()) << "seed " << seed;
      streamed += part;
      done += n;
    }
    streamed += detokenizer.flush();
    ASSERT_EQ(streamed, whole) << "seed " << seed;
  }
}

}  // namespace
}  // namespace sextant
