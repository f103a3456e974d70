// GGUF's tokenizer.* keys as a BpeTokenizerSpec (byte-level BPE, "gpt2"), or as a sentencepiece model.
#include "engine/text/gguf_tokenizer.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/bpe_tokenizer.h"
#include "engine/text/gguf_sentencepiece.h"
#include "engine/text/pre_tokenizer_families.h"
#include "engine/text/sentencepiece_tokenizer.h"

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

// Those of the keys, then those of tokens that end a turn whatever the keys say; each once.
Result<std::vector<int32_t>> read_eos_ids(const GgufFile& file, size_t vocab_size,
                                          const std::vector<AddedToken>& added_tokens) {
  std::vector<int32_t> ids;
  const auto add = [&](int32_t id) {
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  };
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    ASSIGN_OR_RETURN(const std::optional<int32_t> id, optional_id(file, key, vocab_size));
    if (id) add(*id);
  }
  for (const AddedToken& token : added_tokens) {
    if (std::find(std::begin(kEndNames), std::end(kEndNames), token.content) != std::end(kEndNames)) add(token.id);
  }
  return ids;
}

Status read_special_ids(const GgufFile& file, bool add_bos_by_default, BpeTokenizerSpec* spec) {
  const size_t vocab_size = spec->vocabulary.tokens.size();
  ASSIGN_OR_RETURN(spec->bos_token_id, optional_id(file, "tokenizer.ggml.bos_token_id", vocab_size));
  ASSIGN_OR_RETURN(spec->eos_token_ids, read_eos_ids(file, vocab_size, spec->added_tokens));
  ASSIGN_OR_RETURN(const bool add_bos, file.get_bool_or("tokenizer.ggml.add_bos_token", add_bos_by_default));
  ASSIGN_OR_RETURN(const bool add_eos, file.get_bool_or("tokenizer.ggml.add_eos_token", false));
  if (add_bos && !spec->bos_token_id && file.has("tokenizer.ggml.add_bos_token")) {
    return in_file(file, "tokenizer.ggml.add_bos_token", "is true, but there is no tokenizer.ggml.bos_token_id");
  }
  if (add_bos && spec->bos_token_id) spec->prefix_ids.push_back(*spec->bos_token_id);
  if (add_eos) {
    if (spec->eos_token_ids.empty()) {
      return in_file(file, "tokenizer.ggml.add_eos_token", "is true, but there is no eos_token_id");
    }
    spec->suffix_ids.push_back(spec->eos_token_ids.front());
  }
  return ok_status();
}

// Text after a special token gets a leading space of its own where text has one at all, as in llama.cpp.
Result<std::unique_ptr<Tokenizer>> load_sentencepiece(const GgufFile& file, const std::string& model) {
  ASSIGN_OR_RETURN(std::string serialized, sentencepiece_model_from_gguf(file, model));
  ASSIGN_OR_RETURN(const std::vector<std::string> tokens, file.get_strings("tokenizer.ggml.tokens"));
  TokenizerConfig config;
  ASSIGN_OR_RETURN(const std::optional<int32_t> bos, optional_id(file, "tokenizer.ggml.bos_token_id", tokens.size()));
  if (bos) config.bos_token = tokens[static_cast<size_t>(*bos)];
  std::vector<AddedToken> all;
  for (size_t id = 0; id < tokens.size(); ++id) all.push_back({.id = static_cast<int32_t>(id), .content = tokens[id]});
  ASSIGN_OR_RETURN(config.model_eos_token_ids, read_eos_ids(file, tokens.size(), all));
  if (!config.model_eos_token_ids.empty()) {
    config.eos_token = tokens[static_cast<size_t>(config.model_eos_token_ids.front())];
  }
  ASSIGN_OR_RETURN(config.add_bos_token, file.get_bool_or("tokenizer.ggml.add_bos_token", model == "llama"));
  ASSIGN_OR_RETURN(config.add_eos_token, file.get_bool_or("tokenizer.ggml.add_eos_token", model == "t5"));
  if (file.has("tokenizer.chat_template")) {
    ASSIGN_OR_RETURN(config.chat_template, file.get_string("tokenizer.chat_template"));
  }
  return SentencePieceTokenizer::create(std::move(serialized), file.path(), config);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> load_gguf_tokenizer(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string model, file.get_string("tokenizer.ggml.model"));
  if (model == "llama" || model == "t5") return load_sentencepiece(file, model);
  if (model != "gpt2") {
    return unsupported(file.path() + ": tokenizer.ggml.model is '" + model +
                       "'; supported inside GGUF are 'gpt2' (byte-level BPE), 'llama' and 't5' (sentencepiece)");
  }
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
