// GGUF's tokenizer.* keys as a BpeTokenizerSpec. Only byte-level BPE ("gpt2") is read so far.
#include "engine/text/gguf_tokenizer.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/bpe_tokenizer.h"
#include "engine/text/pre_tokenizer_families.h"

namespace sextant {
namespace {

using Kind = BpeVocabulary::Kind;

// tokenizer.ggml.token_type
constexpr int64_t kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5;

// Tokens that end a turn or a text under one of these names do so even where no key says it; GGUF has no
// generation_config.json to list them.
constexpr std::string_view kEndNames[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<EOT>",
    "[EOT]",
    "<\xEF\xBD\x9C"
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
    "<end_of_utterance>",
};

Status in_file(const GgufFile& file, const std::string& key, const std::string& what) {
  return data_loss(file.path() + ": " + key + ": " + what);
}

Result<std::optional<int32_t>> optional_id(const GgufFile& file, const std::string& key, size_t vocab_size) {
  if (!file.has(key)) return std::optional<int32_t>();
  ASSIGN_OR_RETURN(const int64_t id, file.get_int(key, 0, static_cast<int64_t>(vocab_size) - 1));
  return std::optional<int32_t>(static_cast<int32_t>(id));
}

Status check_model(const GgufFile& file) {
  const Result<std::string> model = file.get_string("tokenizer.ggml.model");
  if (!model.ok()) return model.status();
  if (*model == "gpt2") return ok_status();
  std::string message = file.path() + ": tokenizer.ggml.model is '" + *model +
                        "'; only 'gpt2' (byte-level BPE) is supported inside GGUF so far";
  if (*model == "llama") message += ". For a sentencepiece model use a directory with its tokenizer.model";
  return unsupported(std::move(message));
}

Status read_vocabulary(const GgufFile& file, BpeTokenizerSpec* spec) {
  BpeVocabulary& vocabulary = spec->vocabulary;
  ASSIGN_OR_RETURN(vocabulary.tokens, file.get_strings("tokenizer.ggml.tokens"));
  vocabulary.kinds.assign(vocabulary.tokens.size(), Kind::kNormal);
  const std::string types_key = "tokenizer.ggml.token_type";
  if (file.has(types_key)) {
    ASSIGN_OR_RETURN(const std::vector<int64_t> types, file.get_ints(types_key));
    if (types.size() != vocabulary.tokens.size()) {
      return in_file(file, types_key,
                     "has " + std::to_string(types.size()) + " entries for " +
                         std::to_string(vocabulary.tokens.size()) + " tokens");
    }
    for (size_t id = 0; id < types.size(); ++id) {
      Kind& kind = vocabulary.kinds[id];
      if (types[id] == kControl || types[id] == kUnknown) kind = Kind::kSpecial;
      if (types[id] == kUserDefined) kind = Kind::kAdded;
      if (types[id] == kUnused) kind = Kind::kUnused;
    }
  }
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const bool special = vocabulary.kinds[id] == Kind::kSpecial;
    if (!special && vocabulary.kinds[id] != Kind::kAdded) continue;
    if (vocabulary.tokens[id].empty()) continue;
    spec->added_tokens.push_back(
        {.id = static_cast<int32_t>(id), .content = vocabulary.tokens[id], .special = special});
  }
  const std::string merges_key = "tokenizer.ggml.merges";
  ASSIGN_OR_RETURN(const std::vector<std::string> merges, file.get_strings(merges_key));
  vocabulary.merges.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const size_t space = merges[i].find(' ', 1);  // a first part may be a space itself
    if (space == std::string::npos || space + 1 == merges[i].size()) {
      return in_file(file, merges_key, "entry " + std::to_string(i) + " is not two tokens with a space between");
    }
    vocabulary.merges.emplace_back(merges[i].substr(0, space), merges[i].substr(space + 1));
  }
  return ok_status();
}

Status read_special_ids(const GgufFile& file, bool add_bos_by_default, BpeTokenizerSpec* spec) {
  const size_t vocab_size = spec->vocabulary.tokens.size();
  ASSIGN_OR_RETURN(spec->bos_token_id, optional_id(file, "tokenizer.ggml.bos_token_id", vocab_size));
  std::optional<int32_t> eos;
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    ASSIGN_OR_RETURN(const std::optional<int32_t> id, optional_id(file, key, vocab_size));
    if (!id) continue;
    if (spec->eos_token_ids.empty()) eos = id;
    spec->eos_token_ids.push_back(*id);
  }
  for (const AddedToken& token : spec->added_tokens) {
    if (std::find(std::begin(kEndNames), std::end(kEndNames), token.content) != std::end(kEndNames)) {
      spec->eos_token_ids.push_back(token.id);
    }
  }
  std::vector<int32_t> unique;
  for (const int32_t id : spec->eos_token_ids) {
    if (std::find(unique.begin(), unique.end(), id) == unique.end()) unique.push_back(id);
  }
  spec->eos_token_ids = std::move(unique);

  ASSIGN_OR_RETURN(const bool add_bos, file.get_bool_or("tokenizer.ggml.add_bos_token", add_bos_by_default));
  ASSIGN_OR_RETURN(const bool add_eos, file.get_bool_or("tokenizer.ggml.add_eos_token", false));
  if (add_bos && !spec->bos_token_id && file.has("tokenizer.ggml.add_bos_token")) {
    return in_file(file, "tokenizer.ggml.add_bos_token", "is true, but there is no tokenizer.ggml.bos_token_id");
  }
  if (add_bos && spec->bos_token_id) spec->prefix_ids.push_back(*spec->bos_token_id);
  if (add_eos) {
    if (!eos) return in_file(file, "tokenizer.ggml.add_eos_token", "is true, but there is no eos_token_id");
    spec->suffix_ids.push_back(*eos);
  }
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> load_gguf_tokenizer(const GgufFile& file) {
  RETURN_IF_ERROR(check_model(file));
  ASSIGN_OR_RETURN(const std::string pre, file.get_string_or("tokenizer.ggml.pre", "default"));
  std::optional<PreTokenizerFamily> family = pre_tokenizer_family(pre);
  if (!family) {
    return unsupported(file.path() + ": tokenizer.ggml.pre is '" + pre +
                       "', a pre-tokenizer not known here; known: " + known_pre_tokenizer_families());
  }
  BpeTokenizerSpec spec;
  spec.normalizer = std::move(family->normalizer);
  spec.pre_tokenizer = std::move(family->steps);
  spec.vocabulary.ignore_merges = family->ignore_merges;
  RETURN_IF_ERROR(read_vocabulary(file, &spec));
  RETURN_IF_ERROR(read_special_ids(file, family->add_bos_token, &spec));
  if (file.has("tokenizer.chat_template")) {
    ASSIGN_OR_RETURN(spec.chat_template, file.get_string("tokenizer.chat_template"));
  }
  Result<std::unique_ptr<Tokenizer>> tokenizer = BpeTokenizer::create(std::move(spec));
  if (!tokenizer.ok()) {
    return Status(tokenizer.status().code(), file.path() + ": tokenizer: " + tokenizer.status().message());
  }
  return tokenizer;
}

}  // namespace sextant
