// IdTokenizer: stands in for a tokenizer where only token ids go in and out (--skip-tokenizer-init). It knows no text: encode gives no ids,
// tokens have no bytes, nothing is special. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"

namespace sextant {

class IdTokenizer final : public Tokenizer {
 public:
  bool knows_text() const override { return false; }
  std::vector<int32_t> encode(std::string_view, const EncodeOptions& = {}) const override { return {}; }
  std::string token_bytes(int32_t) const override { return {}; }
  std::string token_text(int32_t) const override { return {}; }
  std::optional<int32_t> token_id(std::string_view) const override { return std::nullopt; }
  bool is_special(int32_t) const override { return false; }
  int32_t vocab_size() const override { return 0; }
  std::optional<int32_t> bos_token_id() const override { return std::nullopt; }
  const std::vector<int32_t>& eos_token_ids() const override { return eos_; }
  const std::optional<std::string>& chat_template() const override { return chat_template_; }
  std::string decode(std::span<const int32_t>, bool) const override { return {}; }

 private:
  std::vector<int32_t> eos_;
  std::optional<std::string> chat_template_;
};

}  // namespace sextant
