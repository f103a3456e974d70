// BpeTokenizer: the Tokenizer of byte-level BPE vocabularies, put together from what a GGUF file or a tokenizer.json says.
// Immutable; any thread. Must not know file formats.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/added_tokens.h"
#include "engine/text/bpe_model.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/text_normalizer.h"
#include "engine/text/tokenizer.h"

namespace sextant {

// Everything a file said. Ids are checked by BpeTokenizer::create.
struct BpeTokenizerSpec {
  BpeVocabulary vocabulary;  // with the added tokens
  std::vector<AddedToken> added_tokens;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  std::vector<int32_t> prefix_ids;  // put around the text by add_special_tokens
  std::vector<int32_t> suffix_ids;
  std::optional<int32_t> bos_token_id;
  std::vector<int32_t> eos_token_ids;
  std::optional<std::string> chat_template;
};

class BpeTokenizer final : public Tokenizer {
 public:
  // Errors name the part, not the file.
  static Result<std::unique_ptr<Tokenizer>> create(BpeTokenizerSpec spec);

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const override;
  std::string token_bytes(int32_t id) const override { return std::string(model_.token_bytes(id)); }
  std::string token_text(int32_t id) const override { return std::string(model_.token_text(id)); }
  std::optional<int32_t> token_id(std::string_view token_text) const override { return model_.token_id(token_text); }
  bool is_special(int32_t id) const override { return model_.is_special(id); }
  int32_t vocab_size() const override { return model_.vocab_size(); }
  std::optional<int32_t> bos_token_id() const override { return bos_token_id_; }
  const std::vector<int32_t>& eos_token_ids() const override { return eos_token_ids_; }
  const std::optional<std::string>& chat_template() const override { return chat_template_; }
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const override;

 private:
  class Encoding;

  BpeTokenizer(BpeTokenizerSpec spec, BpeModel model, TextNormalizer normalizer, PreTokenizer pre_tokenizer);
  std::vector<AddedToken> select_added(const std::vector<AddedToken>& tokens, bool normalized) const;

  BpeModel model_;
  TextNormalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  // Added tokens are looked for twice: before normalisation and after.
  AddedTokenMatcher raw_matcher_, normalized_matcher_;
  std::vector<int32_t> prefix_ids_, suffix_ids_;
  std::optional<int32_t> bos_token_id_;
  std::vector<int32_t> eos_token_ids_;
  std::optional<std::string> chat_template_;
};

}  // namespace sextant
