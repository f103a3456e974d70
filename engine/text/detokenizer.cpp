// Bytes of tokens, cut where characters end.
#include "engine/text/detokenizer.h"

#include "engine/text/utf8.h"

namespace sextant {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

std::string Detokenizer::append(std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    if (skip_special_tokens_ && tokenizer_.is_special(id)) continue;
    held_bytes_ += at_start_ ? tokenizer_.token_bytes_at_start(id, &at_start_) : tokenizer_.token_bytes(id);
  }
  std::string text;
  held_bytes_.erase(0, append_replacing_invalid(held_bytes_, false, &text));
  return text;
}

std::string Detokenizer::flush() {
  std::string text;
  append_replacing_invalid(held_bytes_, true, &text);
  held_bytes_.clear();
  return text;
}

}  // namespace sextant
