// ByteTokenizer: a tokenizer small enough to know by heart: id b is the byte b; 256 <bos>, 257 <eos>, 258 <|im_end|> are
// special. For a simulator that has no model, and for tests of what stands above tokenizers. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

namespace sextant {

class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kBos = 256;
  static constexpr int32_t kEos = 257;
  static constexpr int32_t kImEnd = 258;
  static constexpr int32_t kVocabSize = 259;

  explicit ByteTokenizer(std::optional<std::string> chat_template = std::nullopt)
      : chat_template_(std::move(chat_template)) {}

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const override {
    std::vector<int32_t> ids;
    if (options.add_special_tokens) ids.push_back(kBos);
    while (!text.empty()) {
      int32_t special = -1;
      for (int32_t id = kBos; options.parse_special_tokens && id < kVocabSize; ++id) {
        if (text.starts_with(name(id))) special = id;
      }
      ids.push_back(special >= 0 ? special : static_cast<unsigned char>(text.front()));
      text.remove_prefix(special >= 0 ? name(special).size() : 1);
    }
    return ids;
  }
  std::string token_bytes(int32_t id) const override {
    if (id < 0 || id >= kVocabSize) return {};
    return id < 256 ? std::string(1, static_cast<char>(id)) : std::string(name(id));
  }
  std::string token_text(int32_t id) const override {
    return id < 256 ? "<0x" + std::to_string(id) + ">" : token_bytes(id);
  }
  std::optional<int32_t> token_id(std::string_view token_text) const override {
    for (int32_t id = kBos; id < kVocabSize; ++id) {
      if (token_text == name(id)) return id;
    }
    return std::nullopt;
  }
  bool is_special(int32_t id) const override { return id >= kBos && id < kVocabSize; }
  int32_t vocab_size() const override { return kVocabSize; }
  std::optional<int32_t> bos_token_id() const override { return kBos; }
  const std::vector<int32_t>& eos_token_ids() const override { return eos_; }
  const std::optional<std::string>& chat_template() const override { return chat_template_; }
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const override {
    std::string bytes;
    for (const int32_t id : ids) {
      if (!skip_special_tokens || !is_special(id)) bytes += token_bytes(id);
    }
    std::string text;
    append_replacing_invalid(bytes, true, &text);
    return text;
  }

 private:
  static std::string_view name(int32_t id) {
    constexpr std::string_view kNames[] = {"<bos>", "<eos>", "<|im_end|>"};
    return kNames[id - kBos];
  }

  std::vector<int32_t> eos_ = {kEos};
  std::optional<std::string> chat_template_;
};

}  // namespace sextant
