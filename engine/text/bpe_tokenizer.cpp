// Encoding in the order of Hugging Face's tokenizers: added tokens in the raw text; normalisation; added tokens in
// the normalised text; pre-tokenization; BPE. Bytes that are not UTF-8 pass all of it by and become byte tokens.
#include "engine/text/bpe_tokenizer.h"

#include "engine/text/detokenizer.h"
#include "engine/text/utf8.h"

namespace sextant {

class BpeTokenizer::Encoding {
 public:
  Encoding(const BpeTokenizer& tokenizer, bool allow_special, std::vector<int32_t>* out)
      : tokenizer_(tokenizer), allow_special_(allow_special), session_(tokenizer.pre_tokenizer_), out_(out) {}

  void add(std::string_view text) {
    split_off_added(tokenizer_.raw_matcher_, text, [this](std::string_view part) { add_raw(part); });
  }

 private:
  template <typename AddText>
  void split_off_added(const AddedTokenMatcher& matcher, std::string_view text, const AddText& add_text) {
    matcher.split(
        text, allow_special_, [this](const AddedToken& token) { out_->push_back(token.id); }, add_text);
  }

  void add_raw(std::string_view text) {
    while (!text.empty()) {
      const size_t valid = valid_utf8_prefix(text);
      if (valid > 0) add_valid(text.substr(0, valid));
      text.remove_prefix(valid);
      if (text.empty()) break;
      const size_t invalid = decode_utf8_char(text).length;
      add_invalid(text.substr(0, invalid));
      text.remove_prefix(invalid);
    }
  }

  void add_valid(std::string_view text) {
    std::string normalized;
    if (!tokenizer_.normalizer_.empty()) {
      normalized = tokenizer_.normalizer_.normalize(text);
      text = normalized;
    }
    split_off_added(tokenizer_.normalized_matcher_, text, [this](std::string_view part) { add_normalized(part); });
  }

  void add_normalized(std::string_view text) {
    for (const std::string_view piece : session_.split(text)) {
      tokenizer_.model_.encode(piece, allow_special_, out_);
    }
  }

  void add_invalid(std::string_view bytes) {
    const BpeModel& model = tokenizer_.model_;
    for (const char byte : bytes) {
      if (const std::optional<int32_t> id = model.byte_token(static_cast<uint8_t>(byte))) {
        out_->push_back(*id);
      } else {
        model.encode(kReplacementCharacter, allow_special_, out_);
      }
    }
  }

  const BpeTokenizer& tokenizer_;
  bool allow_special_;
  PreTokenizer::Session session_;
  std::vector<int32_t>* out_;
};

Result<std::unique_ptr<Tokenizer>> BpeTokenizer::create(BpeTokenizerSpec spec) {
  const auto in_part = [](const char* part, const Status& status) {
    return Status(status.code(), std::string(part) + ": " + status.message());
  };
  Result<BpeModel> model = BpeModel::create(std::move(spec.vocabulary));
  if (!model.ok()) return model.status();
  Result<TextNormalizer> normalizer = TextNormalizer::create(std::move(spec.normalizer));
  if (!normalizer.ok()) return in_part("normalizer", normalizer.status());
  Result<PreTokenizer> pre_tokenizer = PreTokenizer::create(std::move(spec.pre_tokenizer));
  if (!pre_tokenizer.ok()) return in_part("pre_tokenizer", pre_tokenizer.status());

  const auto check = [&](int32_t id, const char* what) {
    if (model->is_token(id)) return ok_status();
    return data_loss(std::string(what) + " id " + std::to_string(id) + " is not in the vocabulary of " +
                     std::to_string(model->vocab_size()));
  };
  for (const int32_t id : spec.prefix_ids) RETURN_IF_ERROR(check(id, "post-processor token"));
  for (const int32_t id : spec.suffix_ids) RETURN_IF_ERROR(check(id, "post-processor token"));
  for (const int32_t id : spec.eos_token_ids) RETURN_IF_ERROR(check(id, "eos token"));
  if (spec.bos_token_id) RETURN_IF_ERROR(check(*spec.bos_token_id, "bos token"));
  for (const AddedToken& token : spec.added_tokens) {
    RETURN_IF_ERROR(check(token.id, "added token"));
    if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes) {
      return data_loss("added token " + std::to_string(token.id) + " has " + std::to_string(token.content.size()) +
                       " bytes; 1 to " + std::to_string(kMaxAddedTokenBytes) + " are supported");
    }
  }
  return std::unique_ptr<Tokenizer>(new BpeTokenizer(std::move(spec), std::move(model).value(),
                                                     std::move(normalizer).value(), std::move(pre_tokenizer).value()));
}

BpeTokenizer::BpeTokenizer(BpeTokenizerSpec spec, BpeModel model, TextNormalizer normalizer, PreTokenizer pre_tokenizer)
    : model_(std::move(model)),
      normalizer_(std::move(normalizer)),
      pre_tokenizer_(std::move(pre_tokenizer)),
      raw_matcher_(select_added(spec.added_tokens, false)),
      normalized_matcher_(select_added(spec.added_tokens, true)),
      prefix_ids_(std::move(spec.prefix_ids)),
      suffix_ids_(std::move(spec.suffix_ids)),
      bos_token_id_(spec.bos_token_id),
      eos_token_ids_(std::move(spec.eos_token_ids)),
      chat_template_(std::move(spec.chat_template)) {}

std::vector<AddedToken> BpeTokenizer::select_added(const std::vector<AddedToken>& tokens, bool normalized) const {
  std::vector<AddedToken> selected;
  for (AddedToken token : tokens) {
    if (token.normalized != normalized) continue;
    if (normalized && !normalizer_.empty()) token.content = normalizer_.normalize(token.content);
    if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes) continue;  // can never be met
    selected.push_back(std::move(token));
  }
  return selected;
}

std::vector<int32_t> BpeTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + prefix_ids_.size() + suffix_ids_.size() + 1);
  if (options.add_special_tokens) ids.insert(ids.end(), prefix_ids_.begin(), prefix_ids_.end());
  Encoding(*this, options.parse_special_tokens, &ids).add(text);
  if (options.add_special_tokens) ids.insert(ids.end(), suffix_ids_.begin(), suffix_ids_.end());
  return ids;
}

std::string BpeTokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  Detokenizer detokenizer(*this, skip_special_tokens);
  std::string text = detokenizer.append(ids);
  text += detokenizer.flush();
  return text;
}

}  // namespace sextant
