// What the files beside a tokenizer say: tokenizer_config.json, special_tokens_map.json, added_tokens.json,
// generation_config.json, config.json (ids only) and chat_template.jinja. All are optional.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/text/added_tokens.h"

namespace sextant {

struct TokenizerConfig {
  std::string tokenizer_class;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  bool legacy = true;  // sentencepiece: text after a special token gets its own leading space
  std::optional<std::string> bos_token;
  std::optional<std::string> eos_token;
  std::vector<std::string> special_tokens;  // all that are named, bos and eos among them
  std::vector<AddedToken> added_tokens;     // added_tokens_decoder, or added_tokens.json
  std::optional<int32_t> model_bos_token_id;
  std::vector<int32_t> model_eos_token_ids;  // generation_config.json, else config.json
  std::optional<std::string> chat_template;

  // Llama's and its kin's classes put BOS in front of a text unless told otherwise, whatever tokenizer.json says.
  bool class_adds_bos() const;
};

Result<TokenizerConfig> read_tokenizer_config(const std::string& directory);

}  // namespace sextant
