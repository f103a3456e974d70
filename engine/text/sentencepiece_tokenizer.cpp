// Added tokens are cut out here, the rest is the library's. Decoding is done piece by piece, so that it can stream;
// a test holds it against the library's own.
#include "engine/text/sentencepiece_tokenizer.h"

#include <algorithm>
#include <exception>
#include <utility>

#include <sentencepiece_processor.h>

#include "engine/format/json_file.h"
#include "engine/text/detokenizer.h"
#include "engine/text/sentencepiece_model.h"

namespace sextant {
namespace {

constexpr size_t kMaxModelBytes = 256 << 20;
constexpr size_t kMaxAddedIds = 1 << 20;                   // beyond the pieces
constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581

std::string with_spaces(std::string_view piece) {
  std::string text;
  text.reserve(piece.size());
  while (!piece.empty()) {
    const bool space = piece.starts_with(kSpaceSymbol);
    text += space ? ' ' : piece[0];
    piece.remove_prefix(space ? kSpaceSymbol.size() : 1);
  }
  return text;
}

// The byte of "<0x0A>".
char byte_of_piece(const std::string& piece) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; };
  return piece.size() == 6 ? static_cast<char>(digit(piece[3]) << 4 | digit(piece[4])) : '?';
}

Status load_processor(const std::string& path, std::string_view serialized,
                      sentencepiece::SentencePieceProcessor* processor) {
  std::string reason;
  try {
    const sentencepiece::util::Status status = processor->LoadFromSerializedProto(serialized);
    if (status.ok()) return ok_status();
    reason = status.ToString();
  } catch (const std::exception& error) {  // its trie throws
    reason = error.what();
  }
  return data_loss(path + ": sentencepiece refuses it: " + reason);
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer()
    : processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {}
SentencePieceTokenizer::~SentencePieceTokenizer() = default;

Result<std::unique_ptr<Tokenizer>> SentencePieceTokenizer::load(const std::string& path,
                                                                const TokenizerConfig& config) {
  ASSIGN_OR_RETURN(std::string serialized, read_text_file(path, kMaxModelBytes));
  return create(std::move(serialized), path, config);
}

Result<std::unique_ptr<Tokenizer>> SentencePieceTokenizer::create(std::string serialized, const std::string& path,
                                                                  const TokenizerConfig& config) {
  Result<SentencePieceModelFacts> facts = inspect_sentencepiece_model(serialized);
  if (!facts.ok()) return Status(facts.status().code(), path + ": " + facts.status().message());
  if (facts->has_denormalizer) return unsupported(path + ": a model with a denormalizer is not supported");

  std::unique_ptr<SentencePieceTokenizer> tokenizer(new SentencePieceTokenizer());
  RETURN_IF_ERROR(load_processor(path, serialized, tokenizer->processor_.get()));
  tokenizer->strips_leading_space_ = facts->add_dummy_prefix || facts->remove_extra_whitespaces;
  tokenizer->strips_all_leading_spaces_ = facts->remove_extra_whitespaces;
  if (!config.legacy && facts->add_dummy_prefix) {
    serialized += kNoDummyPrefixPatch;
    tokenizer->continuation_ = std::make_unique<sentencepiece::SentencePieceProcessor>();
    RETURN_IF_ERROR(load_processor(path, serialized, tokenizer->continuation_.get()));
  }
  const auto in_file = [&](const Status& status) { return Status(status.code(), path + ": " + status.message()); };
  if (Status status = tokenizer->read_pieces(); !status.ok()) return in_file(status);
  if (Status status = tokenizer->add_tokens(config); !status.ok()) return in_file(status);
  if (Status status = tokenizer->set_special_ids(config); !status.ok()) return in_file(status);
  tokenizer->chat_template_ = config.chat_template;
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

Status SentencePieceTokenizer::read_pieces() {
  const int num_pieces = processor_->GetPieceSize();
  tokens_.resize(static_cast<size_t>(num_pieces));
  for (int id = 0; id < num_pieces; ++id) {
    Token& token = tokens_[static_cast<size_t>(id)];
    token.text = processor_->IdToPiece(id);
    if (processor_->IsControl(id)) {
      token.special = true;
      token.bytes = token.text;
      added_tokens_.push_back({.id = id, .content = token.text, .special = true});
    } else if (processor_->IsUnknown(id)) {
      token.bytes = processor_->DecodeIds({id});
    } else if (processor_->IsByte(id)) {
      token.bytes = byte_of_piece(token.text);
    } else {
      token.bytes = with_spaces(token.text);
      token.is_piece = true;
    }
  }
  return ok_status();
}

Status SentencePieceTokenizer::add_tokens(const TokenizerConfig& config) {
  const size_t num_pieces = tokens_.size();
  for (const AddedToken& added : config.added_tokens) {
    const auto id = static_cast<size_t>(added.id);
    if (added.content.empty()) continue;
    if (added.content.size() > kMaxAddedTokenBytes || id >= num_pieces + kMaxAddedIds) {
      return data_loss("added token " + std::to_string(id) + " beside it is too long or its id too large");
    }
    if (id >= tokens_.size()) tokens_.resize(id + 1);
    Token& token = tokens_[id];
    if (!token.text.empty() && token.text != added.content) {
      return data_loss("id " + std::to_string(id) + " is '" + token.text + "' here and '" + added.content +
                       "' among the added tokens beside it");
    }
    if (id >= num_pieces) token = {.text = added.content, .bytes = added.content};
    token.special = token.special || added.special;
    added_tokens_.push_back(added);
  }
  std::vector<AddedToken> matched;
  for (AddedToken& token : added_tokens_) {
    if (token.content.size() > kMaxAddedTokenBytes || token.content.empty()) continue;
    token.special = tokens_[static_cast<size_t>(token.id)].special;
    matched.push_back(token);
  }
  matcher_.emplace(std::move(matched));
  return ok_status();
}

Status SentencePieceTokenizer::set_special_ids(const TokenizerConfig& config) {
  const auto find = [&](const std::optional<std::string>& text, int piece_id,
                        const char* field) -> Result<std::optional<int32_t>> {
    if (!text) return piece_id >= 0 ? std::optional<int32_t>(piece_id) : std::nullopt;
    const std::optional<int32_t> id = token_id(*text);
    if (!id)
      return data_loss(std::string(field) + " '" + *text + "' of tokenizer_config.json is not in the vocabulary");
    return id;
  };
  ASSIGN_OR_RETURN(bos_token_id_, find(config.bos_token, processor_->bos_id(), "bos_token"));
  ASSIGN_OR_RETURN(const std::optional<int32_t> eos, find(config.eos_token, processor_->eos_id(), "eos_token"));
  if (eos) eos_token_ids_.push_back(*eos);
  for (const int32_t id : config.model_eos_token_ids) {
    if (id >= vocab_size()) return data_loss("eos_token_id " + std::to_string(id) + " is not in the vocabulary");
    if (std::find(eos_token_ids_.begin(), eos_token_ids_.end(), id) == eos_token_ids_.end()) {
      eos_token_ids_.push_back(id);
    }
  }
  add_bos_ = config.add_bos_token.value_or(true) && bos_token_id_.has_value();
  add_eos_ = config.add_eos_token.value_or(false) && eos.has_value();
  return ok_status();
}

std::vector<int32_t> SentencePieceTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  if (options.add_special_tokens && add_bos_) ids.push_back(*bos_token_id_);
  bool is_first = true;
  matcher_->split(
      text, options.parse_special_tokens,
      [&](const AddedToken& token) {
        ids.push_back(token.id);
        is_first = false;
      },
      [&](std::string_view part) { encode_text(part, is_first, &ids); });
  if (options.add_special_tokens && add_eos_) ids.push_back(eos_token_ids_.front());
  return ids;
}

void SentencePieceTokenizer::encode_text(std::string_view text, bool is_first, std::vector<int32_t>* out) const {
  if (text.empty()) return;
  const auto& processor = is_first || !continuation_ ? *processor_ : *continuation_;
  const std::vector<int> ids = processor.EncodeAsIds(text);
  out->insert(out->end(), ids.begin(), ids.end());
}

std::string SentencePieceTokenizer::token_bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return tokens_[static_cast<size_t>(id)].bytes;
}

std::string SentencePieceTokenizer::token_bytes_at_start(int32_t id, bool* at_start) const {
  std::string bytes = token_bytes(id);
  if (bytes.empty()) return bytes;
  const bool strip = strips_leading_space_ && tokens_[static_cast<size_t>(id)].is_piece && bytes[0] == ' ';
  if (strip) bytes.erase(0, 1);
  *at_start = strip && bytes.empty() && strips_all_leading_spaces_;
  return bytes;
}

std::string SentencePieceTokenizer::token_text(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return tokens_[static_cast<size_t>(id)].text;
}

std::optional<int32_t> SentencePieceTokenizer::token_id(std::string_view text) const {
  for (const AddedToken& token : added_tokens_) {
    if (token.content == text) return token.id;
  }
  const int id = processor_->PieceToId(text);
  if (processor_->IsUnknown(id) && processor_->IdToPiece(id) != text) return std::nullopt;
  return id;
}

bool SentencePieceTokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && tokens_[static_cast<size_t>(id)].special;
}

std::string SentencePieceTokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  Detokenizer detokenizer(*this, skip_special_tokens);
  std::string text = detokenizer.append(ids);
  text += detokenizer.flush();
  return text;
}

}  // namespace sextant
