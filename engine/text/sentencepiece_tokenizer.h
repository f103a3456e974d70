// SentencePieceTokenizer: a tokenizer.model file, through the sentencepiece library.
// Immutable; any thread (the library's encoding is const and without state).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/added_tokens.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_config.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace sextant {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  // Errors name the file.
  static Result<std::unique_ptr<Tokenizer>> load(const std::string& path, const TokenizerConfig& config);
  // Of a serialized ModelProto; `source` names it in messages.
  static Result<std::unique_ptr<Tokenizer>> create(std::string serialized, const std::string& source,
                                                   const TokenizerConfig& config);
  ~SentencePieceTokenizer() override;

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const override;
  std::string token_bytes(int32_t id) const override;
  std::string token_bytes_at_start(int32_t id, bool* at_start) const override;
  std::string token_text(int32_t id) const override;
  std::optional<int32_t> token_id(std::string_view token_text) const override;
  bool is_special(int32_t id) const override;
  int32_t vocab_size() const override { return static_cast<int32_t>(tokens_.size()); }
  std::optional<int32_t> bos_token_id() const override { return bos_token_id_; }
  const std::vector<int32_t>& eos_token_ids() const override { return eos_token_ids_; }
  const std::optional<std::string>& chat_template() const override { return chat_template_; }
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const override;

 private:
  struct Token {
    std::string text;   // the vocabulary's spelling; empty: no token has this id
    std::string bytes;  // as it appears in running text
    bool special = false;
    bool is_piece = false;  // written with U+2581 for spaces; only such pieces lose one at the start
  };

  SentencePieceTokenizer();
  Status read_pieces();
  Status add_tokens(const TokenizerConfig& config);
  Status set_special_ids(const TokenizerConfig& config);
  void encode_text(std::string_view text, bool is_first, std::vector<int32_t>* out) const;

  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  // For text after a special token, where that gets no leading space of its own; else null.
  std::unique_ptr<sentencepiece::SentencePieceProcessor> continuation_;
  bool strips_leading_space_ = false;
  bool strips_all_leading_spaces_ = false;
  std::vector<Token> tokens_;  // by id: the pieces, then added tokens
  std::vector<AddedToken> added_tokens_;
  std::optional<AddedTokenMatcher> matcher_;
  bool add_bos_ = false, add_eos_ = false;
  std::optional<int32_t> bos_token_id_;
  std::vector<int32_t> eos_token_ids_;
  std::optional<std::string> chat_template_;
};

}  // namespace sextant
