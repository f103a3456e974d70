// A token in these files is a string, or an object with its text in "content".
#include "engine/text/tokenizer_config.h"

#include <algorithm>
#include <filesystem>
#include <string_view>

#include "engine/format/json_file.h"
#include "engine/text/json_fields.h"

namespace sextant {
namespace {

using nlohmann::json;

constexpr size_t kMaxTemplateBytes = 4 << 20;

bool is_file(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

Result<std::optional<std::string>> token_content(const JsonObject& object, std::string_view key) {
  const json* value = object.find(key);
  if (value == nullptr) return std::optional<std::string>();
  if (value->is_string()) return object.optional_string(key);
  ASSIGN_OR_RETURN(const JsonObject token, JsonObject::from(*value, object.where(key)));
  ASSIGN_OR_RETURN(std::string content, token.string("content"));
  return std::optional<std::string>(std::move(content));
}

// bos_token, eos_token, ..., additional_special_tokens: the same fields in tokenizer_config and special_tokens_map.
Status read_named_tokens(const JsonObject& object, TokenizerConfig* config) {
  for (const char* key : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    ASSIGN_OR_RETURN(const std::optional<std::string> content, token_content(object, key));
    if (!content) continue;
    config->special_tokens.push_back(*content);
    if (std::string_view(key) == "bos_token" && !config->bos_token) config->bos_token = content;
    if (std::string_view(key) == "eos_token" && !config->eos_token) config->eos_token = content;
  }
  const json* more = object.find("additional_special_tokens");
  if (more == nullptr || !more->is_array()) return ok_status();
  for (size_t i = 0; i < more->size(); ++i) {
    const std::string where = object.where("additional_special_tokens") + '[' + std::to_string(i) + ']';
    if ((*more)[i].is_string()) {
      config->special_tokens.push_back((*more)[i].get_ref<const std::string&>());
      continue;
    }
    ASSIGN_OR_RETURN(const JsonObject token, JsonObject::from((*more)[i], where));
    ASSIGN_OR_RETURN(std::string content, token.string("content"));
    config->special_tokens.push_back(std::move(content));
  }
  return ok_status();
}

Status read_added_tokens_decoder(const JsonObject& object, TokenizerConfig* config) {
  if (object.find("added_tokens_decoder") == nullptr) return ok_status();
  ASSIGN_OR_RETURN(const JsonObject decoder, object.object("added_tokens_decoder"));
  const json& entries = *object.find("added_tokens_decoder");
  for (auto it = entries.begin(); it != entries.end(); ++it) {
    const std::string& key = it.key();
    if (key.empty() || key.size() > 8 || key.find_first_not_of("0123456789") != std::string::npos) {
      return data_loss(decoder.where() + " has the key '" + key.substr(0, 40) + "', which is no token id");
    }
    ASSIGN_OR_RETURN(const JsonObject token, JsonObject::from(it.value(), decoder.where(key)));
    AddedToken added;
    ASSIGN_OR_RETURN(added.id, json_token_id(json(std::stoul(key)), decoder.where(key)));
    ASSIGN_OR_RETURN(added.content, token.string("content"));
    ASSIGN_OR_RETURN(added.special, token.boolean_or("special", false));
    ASSIGN_OR_RETURN(added.normalized, token.boolean_or("normalized", !added.special));
    ASSIGN_OR_RETURN(added.lstrip, token.boolean_or("lstrip", false));
    ASSIGN_OR_RETURN(added.rstrip, token.boolean_or("rstrip", false));
    ASSIGN_OR_RETURN(added.single_word, token.boolean_or("single_word", false));
    config->added_tokens.push_back(std::move(added));
  }
  return ok_status();
}

// A string, or a list of named ones of which "default" is used.
Status read_chat_template(const JsonObject& object, TokenizerConfig* config) {
  const json* value = object.find("chat_template");
  if (value == nullptr) return ok_status();
  if (!value->is_array()) {
    ASSIGN_OR_RETURN(config->chat_template, object.optional_string("chat_template"));
    return ok_status();
  }
  for (size_t i = 0; i < value->size(); ++i) {
    ASSIGN_OR_RETURN(const JsonObject entry,
                     JsonObject::from((*value)[i], object.where("chat_template") + '[' + std::to_string(i) + ']'));
    ASSIGN_OR_RETURN(const std::string name, entry.string("name"));
    ASSIGN_OR_RETURN(std::string source, entry.string("template"));
    if (name == "default") config->chat_template = std::move(source);
  }
  return ok_status();
}

Status read_main(const std::string& path, TokenizerConfig* config) {
  if (!is_file(path)) return ok_status();
  ASSIGN_OR_RETURN(const json document, read_json_file(path));
  ASSIGN_OR_RETURN(const JsonObject object, JsonObject::from(document, path + ':'));
  ASSIGN_OR_RETURN(const std::optional<std::string> tokenizer_class, object.optional_string("tokenizer_class"));
  config->tokenizer_class = tokenizer_class.value_or("");
  if (object.find("add_bos_token") != nullptr) {
    ASSIGN_OR_RETURN(config->add_bos_token, object.boolean_or("add_bos_token", false));
  }
  if (object.find("add_eos_token") != nullptr) {
    ASSIGN_OR_RETURN(config->add_eos_token, object.boolean_or("add_eos_token", false));
  }
  ASSIGN_OR_RETURN(config->legacy, object.boolean_or("legacy", true));
  RETURN_IF_ERROR(read_named_tokens(object, config));
  RETURN_IF_ERROR(read_added_tokens_decoder(object, config));
  return read_chat_template(object, config);
}

Status read_added_tokens_file(const std::string& path, TokenizerConfig* config) {
  if (!config->added_tokens.empty() || !is_file(path)) return ok_status();
  ASSIGN_OR_RETURN(const json document, read_json_file(path));
  ASSIGN_OR_RETURN(const JsonObject object, JsonObject::from(document, path + ':'));
  for (auto it = document.begin(); it != document.end(); ++it) {
    AddedToken added;
    ASSIGN_OR_RETURN(added.id, json_token_id(it.value(), object.where(it.key().substr(0, 40))));
    added.content = it.key();
    config->added_tokens.push_back(std::move(added));
  }
  return ok_status();
}

Status read_model_ids(const std::string& path, TokenizerConfig* config) {
  if (!is_file(path)) return ok_status();
  ASSIGN_OR_RETURN(const json document, read_json_file(path));
  ASSIGN_OR_RETURN(const JsonObject object, JsonObject::from(document, path + ':'));
  const json* bos = object.find("bos_token_id");
  if (bos != nullptr && bos->is_number_integer() && !config->model_bos_token_id) {
    ASSIGN_OR_RETURN(config->model_bos_token_id, json_token_id(*bos, object.where("bos_token_id")));
  }
  const json* eos = object.find("eos_token_id");
  if (eos == nullptr || !config->model_eos_token_ids.empty()) return ok_status();
  const std::string where = object.where("eos_token_id");
  if (!eos->is_array()) {
    ASSIGN_OR_RETURN(const int32_t id, json_token_id(*eos, where));
    config->model_eos_token_ids.push_back(id);
    return ok_status();
  }
  for (size_t i = 0; i < eos->size(); ++i) {
    ASSIGN_OR_RETURN(const int32_t id, json_token_id((*eos)[i], where + '[' + std::to_string(i) + ']'));
    config->model_eos_token_ids.push_back(id);
  }
  return ok_status();
}

}  // namespace

bool TokenizerConfig::class_adds_bos() const {
  for (const std::string_view prefix : {"Llama", "CodeLlama", "Gemma", "Cohere"}) {
    if (tokenizer_class.starts_with(prefix)) return true;
  }
  return false;
}

Result<TokenizerConfig> read_tokenizer_config(const std::string& directory) {
  TokenizerConfig config;
  RETURN_IF_ERROR(read_main(directory + "/tokenizer_config.json", &config));
  if (const std::string path = directory + "/special_tokens_map.json"; is_file(path)) {
    ASSIGN_OR_RETURN(const json document, read_json_file(path));
    ASSIGN_OR_RETURN(const JsonObject object, JsonObject::from(document, path + ':'));
    RETURN_IF_ERROR(read_named_tokens(object, &config));
  }
  RETURN_IF_ERROR(read_added_tokens_file(directory + "/added_tokens.json", &config));
  RETURN_IF_ERROR(read_model_ids(directory + "/generation_config.json", &config));
  RETURN_IF_ERROR(read_model_ids(directory + "/config.json", &config));
  if (const std::string path = directory + "/chat_template.jinja"; is_file(path)) {
    ASSIGN_OR_RETURN(config.chat_template, read_text_file(path, kMaxTemplateBytes));
  }
  return config;
}

}  // namespace sextant
