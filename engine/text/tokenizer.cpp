// load_tokenizer: which files make a tokenizer, and what the files beside tokenizer.json change in it.
#include "engine/text/tokenizer.h"

#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "engine/format/gguf.h"
#include "engine/format/json_file.h"
#include "engine/text/gguf_tokenizer.h"
#include "engine/text/sentencepiece_tokenizer.h"
#include "engine/text/tokenizer_config.h"
#include "engine/text/tokenizer_json.h"

namespace sextant {
namespace {

namespace fs = std::filesystem;
using Kind = BpeVocabulary::Kind;

std::optional<int32_t> find_token(const BpeVocabulary& vocabulary, const std::string& text) {
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.kinds[id] != Kind::kAbsent && vocabulary.tokens[id] == text) return static_cast<int32_t>(id);
  }
  return std::nullopt;
}

bool is_added(const BpeTokenizerSpec& spec, const std::string& content) {
  return std::any_of(spec.added_tokens.begin(), spec.added_tokens.end(),
                     [&](const AddedToken& token) { return token.content == content; });
}

// A token named as special is special, wherever it stands.
void make_special(const std::string& content, BpeTokenizerSpec* spec) {
  const std::optional<int32_t> id = find_token(spec->vocabulary, content);
  if (!id) return;  // "[PAD]" of a model without one
  spec->vocabulary.kinds[static_cast<size_t>(*id)] = Kind::kSpecial;
  for (AddedToken& token : spec->added_tokens) {
    if (token.id != *id) continue;
    token.special = true;
    return;
  }
  spec->added_tokens.push_back({.id = *id, .content = content, .special = true});
}

Status apply_config(const std::string& directory, const TokenizerConfig& config, BpeTokenizerSpec* spec) {
  const std::string config_name = directory + "/tokenizer_config.json: ";
  for (const AddedToken& token : config.added_tokens) {
    if (token.content.empty() || is_added(*spec, token.content)) continue;
    RETURN_IF_ERROR(add_token(config_name + "added_tokens_decoder", token, spec));
  }
  for (const std::string& content : config.special_tokens) make_special(content, spec);

  spec->bos_token_id = config.model_bos_token_id;
  if (config.bos_token) {
    spec->bos_token_id = find_token(spec->vocabulary, *config.bos_token);
    if (!spec->bos_token_id)
      return data_loss(config_name + "bos_token '" + *config.bos_token + "' is not in the vocabulary");
  }
  if (config.eos_token) {
    const std::optional<int32_t> eos = find_token(spec->vocabulary, *config.eos_token);
    if (!eos) return data_loss(config_name + "eos_token '" + *config.eos_token + "' is not in the vocabulary");
    spec->eos_token_ids.push_back(*eos);
  }
  for (const int32_t id : config.model_eos_token_ids) {
    if (std::find(spec->eos_token_ids.begin(), spec->eos_token_ids.end(), id) == spec->eos_token_ids.end()) {
      spec->eos_token_ids.push_back(id);
    }
  }
  if (config.class_adds_bos()) {
    spec->prefix_ids.clear();
    spec->suffix_ids.clear();
    if (config.add_bos_token.value_or(true) && spec->bos_token_id) spec->prefix_ids.push_back(*spec->bos_token_id);
    if (config.add_eos_token.value_or(false) && !spec->eos_token_ids.empty()) {
      spec->suffix_ids.push_back(spec->eos_token_ids.front());
    }
  }
  spec->chat_template = config.chat_template;
  return ok_status();
}

Result<std::unique_ptr<Tokenizer>> load_from_json(const std::string& directory, const TokenizerConfig& config) {
  const std::string path = directory + "/tokenizer.json";
  ASSIGN_OR_RETURN(const nlohmann::json document, read_json_file(path));
  ASSIGN_OR_RETURN(BpeTokenizerSpec spec, parse_tokenizer_json(document, path));
  RETURN_IF_ERROR(apply_config(directory, config, &spec));
  Result<std::unique_ptr<Tokenizer>> tokenizer = BpeTokenizer::create(std::move(spec));
  if (!tokenizer.ok()) return Status(tokenizer.status().code(), path + ": " + tokenizer.status().message());
  return tokenizer;
}

Result<std::unique_ptr<Tokenizer>> load_gguf(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::open(path));
  return load_gguf_tokenizer(*file);
}

Result<std::unique_ptr<Tokenizer>> load_directory(const std::string& directory) {
  std::error_code ignored;
  const std::string model_path = directory + "/tokenizer.model";
  const bool has_json = fs::is_regular_file(directory + "/tokenizer.json", ignored);
  const bool has_model = fs::is_regular_file(model_path, ignored);
  if (!has_json && !has_model) {
    std::vector<std::string> gguf_paths;
    for (fs::directory_iterator it(directory, ignored), end; it != end; it.increment(ignored)) {
      if (it->path().extension() == ".gguf") gguf_paths.push_back(it->path().string());
      if (ignored) break;
    }
    if (gguf_paths.size() == 1) return load_gguf(gguf_paths[0]);
    return not_found(directory + " has no tokenizer: neither tokenizer.json nor tokenizer.model nor one .gguf file");
  }
  ASSIGN_OR_RETURN(const TokenizerConfig config, read_tokenizer_config(directory));
  if (!has_json) return SentencePieceTokenizer::load(model_path, config);
  Result<std::unique_ptr<Tokenizer>> tokenizer = load_from_json(directory, config);
  // tokenizer.json of a sentencepiece model says the same as tokenizer.model, in a way not read here.
  if (has_model && tokenizer.status().code() == StatusCode::kUnsupported) {
    return SentencePieceTokenizer::load(model_path, config);
  }
  return tokenizer;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> load_tokenizer(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) return load_directory(path);
  if (!fs::exists(status)) return not_found(path + ": no such file or directory");
  return load_gguf(path);
}

}  // namespace sextant
