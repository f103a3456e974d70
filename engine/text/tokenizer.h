// Tokenizer: text to token ids and back. Immutable after loading; every method may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace sextant {

struct EncodeOptions {
  // Add what the model's own post-processor adds (BOS, for most that add anything).
  bool add_special_tokens = true;
  // Recognise special tokens written in the text ("<|im_start|>"); off, they are encoded as plain text.
  bool parse_special_tokens = true;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Whether there is text at all (IdTokenizer has none).
  virtual bool knows_text() const { return true; }

  // Never fails: bytes that are not UTF-8 are encoded byte by byte where the vocabulary can, else as U+FFFD.
  virtual std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const = 0;

  // The bytes of one token as they appear in running text (may be part of a UTF-8 character). Ids outside the vocabulary
  // give nothing. Special tokens give their text; whether to show them is the caller's choice (is_special).
  virtual std::string token_bytes(int32_t id) const = 0;
  // The same while nothing comes before it: sentencepiece drops the space that it put in front of the text.
  // `*at_start`: whether the next token is still at the start; set to false by the first token that is text.
  virtual std::string token_bytes_at_start(int32_t id, bool* at_start) const {
    std::string bytes = token_bytes(id);
    if (!bytes.empty()) *at_start = false;
    return bytes;
  }
  // The vocabulary's own spelling ("Ġthe", "▁the", "<|im_end|>"), as vLLM's /tokenize returns in token_strs.
  virtual std::string token_text(int32_t id) const = 0;
  virtual std::optional<int32_t> token_id(std::string_view token_text) const = 0;
  virtual bool is_special(int32_t id) const = 0;

  virtual int32_t vocab_size() const = 0;
  virtual std::optional<int32_t> bos_token_id() const = 0;
  // Every id that ends a turn; the first one is the model's eos token.
  virtual const std::vector<int32_t>& eos_token_ids() const = 0;
  // The chat template shipped with the tokenizer, if any.
  virtual const std::optional<std::string>& chat_template() const = 0;

  // The whole text of `ids`; invalid UTF-8 becomes U+FFFD. Models whose first token carries a leading space that is
  // not part of the text (sentencepiece's dummy prefix) have it removed here.
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const = 0;
};

// Reads the tokenizer of a model: a GGUF file, or a directory with tokenizer.json / tokenizer.model /
// tokenizer_config.json / special_tokens_map.json / generation_config.json. Errors name the file and the field.
Result<std::unique_ptr<Tokenizer>> load_tokenizer(const std::string& path);

}  // namespace sextant
