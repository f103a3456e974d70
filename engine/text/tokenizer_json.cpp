// model, added_tokens and post_processor of tokenizer.json; normalizer and pre_tokenizer are in tokenizer_json_steps.
#include "engine/text/tokenizer_json.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "engine/format/json_file.h"
#include "engine/text/json_fields.h"
#include "engine/text/tokenizer_json_steps.h"

namespace sextant {
namespace {

using nlohmann::json;
using Kind = BpeVocabulary::Kind;

// Ids may have gaps, but not so many that a small file asks for a large table.
constexpr size_t kMaxMissingIds = 1 << 20;

std::string shown(std::string_view text) {
  constexpr size_t kShown = 60;
  return "'" + std::string(text.substr(0, kShown)) + (text.size() > kShown ? "...'" : "'");
}

Status set_token(const std::string& where, int32_t id, const std::string& content, Kind kind, size_t num_tokens,
                 BpeVocabulary* vocabulary) {
  const auto i = static_cast<size_t>(id);
  if (i >= num_tokens + kMaxMissingIds) {
    return data_loss(where + ": token " + shown(content) + " has id " + std::to_string(id) + " in a vocabulary of " +
                     std::to_string(num_tokens));
  }
  if (i >= vocabulary->tokens.size()) {
    vocabulary->tokens.resize(i + 1);
    vocabulary->kinds.resize(i + 1, Kind::kAbsent);
  }
  if (vocabulary->kinds[i] != Kind::kAbsent && vocabulary->tokens[i] != content) {
    return data_loss(where + ": id " + std::to_string(id) + " belongs to both " + shown(vocabulary->tokens[i]) +
                     " and " + shown(content));
  }
  vocabulary->tokens[i] = content;
  vocabulary->kinds[i] = kind;
  return ok_status();
}

Status check_model_options(const JsonObject& model) {
  ASSIGN_OR_RETURN(const std::optional<std::string> type, model.optional_string("type"));
  if (type && *type != "BPE") {
    return unsupported(model.where("type") + " is " + shown(*type) + "; only byte-level BPE is supported");
  }
  ASSIGN_OR_RETURN(const bool byte_fallback, model.boolean_or("byte_fallback", false));
  if (byte_fallback) {
    return unsupported(model.where("byte_fallback") +
                       " is true: this is a sentencepiece vocabulary. Put its tokenizer.model beside it");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    ASSIGN_OR_RETURN(const std::optional<std::string> affix, model.optional_string(key));
    if (affix && !affix->empty()) return unsupported(model.where(key) + " is set; only byte-level BPE is supported");
  }
  if (const json* dropout = model.find("dropout"); dropout != nullptr && *dropout != 0) {
    return unsupported(model.where("dropout") + " is set; a tokenizer that gives random results cannot be served");
  }
  return ok_status();
}

Status read_vocab(const JsonObject& model, size_t num_added, BpeVocabulary* vocabulary) {
  ASSIGN_OR_RETURN(const JsonObject object, model.object("vocab"));
  const json& vocab = *model.find("vocab");
  const size_t num_tokens = vocab.size() + num_added;
  vocabulary->tokens.reserve(num_tokens);
  vocabulary->kinds.reserve(num_tokens);
  for (auto it = vocab.begin(); it != vocab.end(); ++it) {
    ASSIGN_OR_RETURN(const int32_t id, json_token_id(it.value(), object.where() + '[' + shown(it.key()) + ']'));
    RETURN_IF_ERROR(set_token(object.where(), id, it.key(), Kind::kNormal, num_tokens, vocabulary));
  }
  return ok_status();
}

// Each merge is "a b" or ["a", "b"].
Status read_merges(const JsonObject& model, BpeVocabulary* vocabulary) {
  ASSIGN_OR_RETURN(const json* merges, model.array("merges"));
  vocabulary->merges.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    const json& merge = (*merges)[i];
    const auto where = [&] { return model.where("merges") + '[' + std::to_string(i) + ']'; };
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      vocabulary->merges.emplace_back(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>());
    } else if (merge.is_string()) {
      const std::string& text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
        return data_loss(where() + " is not two tokens with one space between: " + shown(text));
      }
      vocabulary->merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    } else {
      return data_loss(where() + " must be a string or a pair of strings");
    }
  }
  return ok_status();
}

Status read_added_tokens(const JsonObject& root, BpeTokenizerSpec* spec) {
  if (root.find("added_tokens") == nullptr) return ok_status();
  ASSIGN_OR_RETURN(const json* tokens, root.array("added_tokens"));
  for (size_t i = 0; i < tokens->size(); ++i) {
    const std::string where = root.where("added_tokens") + '[' + std::to_string(i) + ']';
    ASSIGN_OR_RETURN(const JsonObject object, JsonObject::from((*tokens)[i], where));
    AddedToken token;
    if (object.find("id") == nullptr) return object.error("id", "is missing");
    ASSIGN_OR_RETURN(token.id, json_token_id(*object.find("id"), object.where("id")));
    ASSIGN_OR_RETURN(token.content, object.string("content"));
    ASSIGN_OR_RETURN(token.special, object.boolean_or("special", false));
    ASSIGN_OR_RETURN(token.normalized, object.boolean_or("normalized", !token.special));
    ASSIGN_OR_RETURN(token.lstrip, object.boolean_or("lstrip", false));
    ASSIGN_OR_RETURN(token.rstrip, object.boolean_or("rstrip", false));
    ASSIGN_OR_RETURN(token.single_word, object.boolean_or("single_word", false));
    if (token.content.empty()) continue;  // Hugging Face ignores these
    RETURN_IF_ERROR(add_token(where, std::move(token), spec));
  }
  return ok_status();
}

// "single": what goes around one text A.
Status read_template(const JsonObject& processor, BpeTokenizerSpec* spec) {
  ASSIGN_OR_RETURN(const json* single, processor.array("single"));
  bool text_seen = false;
  for (size_t i = 0; i < single->size(); ++i) {
    const std::string where = processor.where("single") + '[' + std::to_string(i) + ']';
    ASSIGN_OR_RETURN(const JsonObject item, JsonObject::from((*single)[i], where));
    if (item.find("Sequence") != nullptr) {
      if (text_seen) return unsupported(where + ": the text comes twice");
      text_seen = true;
      continue;
    }
    ASSIGN_OR_RETURN(const JsonObject special, item.object("SpecialToken"));
    ASSIGN_OR_RETURN(const std::string name, special.string("id"));
    ASSIGN_OR_RETURN(const JsonObject specials, processor.object("special_tokens"));
    ASSIGN_OR_RETURN(const JsonObject entry, specials.object(name));
    ASSIGN_OR_RETURN(const json* ids, entry.array("ids"));
    for (const json& id : *ids) {
      ASSIGN_OR_RETURN(const int32_t token, json_token_id(id, entry.where("ids")));
      (text_seen ? spec->suffix_ids : spec->prefix_ids).push_back(token);
    }
  }
  if (!text_seen) return processor.error("single", "does not contain the text");
  return ok_status();
}

Status read_post_processor(const JsonObject& processor, int depth, BpeTokenizerSpec* spec) {
  if (depth > 4) return data_loss(processor.where() + ": Sequences are nested too deeply");
  ASSIGN_OR_RETURN(const std::string type, processor.string("type"));
  if (type == "ByteLevel") return ok_status();  // moves offsets only
  if (type == "TemplateProcessing") return read_template(processor, spec);
  if (type == "RobertaProcessing" || type == "BertProcessing") {
    for (const char* key : {"cls", "sep"}) {
      ASSIGN_OR_RETURN(const json* pair, processor.array(key));
      if (pair->size() != 2 || !(*pair)[0].is_string()) return processor.error(key, "must be [token, id]");
      ASSIGN_OR_RETURN(const int32_t id, json_token_id((*pair)[1], processor.where(key)));
      (std::string_view(key) == "cls" ? spec->prefix_ids : spec->suffix_ids).push_back(id);
    }
    return ok_status();
  }
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const json* processors, processor.array("processors"));
    for (size_t i = 0; i < processors->size(); ++i) {
      ASSIGN_OR_RETURN(const JsonObject part, JsonObject::from((*processors)[i], processor.where("processors") + '[' +
                                                                                     std::to_string(i) + ']'));
      RETURN_IF_ERROR(read_post_processor(part, depth + 1, spec));
    }
    return ok_status();
  }
  return unsupported(processor.where("type") + " '" + type + "' is not supported");
}

}  // namespace

Status add_token(const std::string& where, AddedToken token, BpeTokenizerSpec* spec) {
  BpeVocabulary& vocabulary = spec->vocabulary;
  const bool grows = static_cast<size_t>(token.id) >= vocabulary.tokens.size();
  const auto num_absent = grows ? std::count(vocabulary.kinds.begin(), vocabulary.kinds.end(), Kind::kAbsent) : 0;
  RETURN_IF_ERROR(set_token(where, token.id, token.content, token.special ? Kind::kSpecial : Kind::kAdded,
                            vocabulary.tokens.size() - static_cast<size_t>(num_absent), &vocabulary));
  spec->added_tokens.push_back(std::move(token));
  return ok_status();
}

Result<BpeTokenizerSpec> parse_tokenizer_json(const json& document, const std::string& name) {
  ASSIGN_OR_RETURN(const JsonObject root, JsonObject::from(document, name + ':'));
  ASSIGN_OR_RETURN(const JsonObject model, root.object("model"));
  RETURN_IF_ERROR(check_model_options(model));
  BpeTokenizerSpec spec;
  const json* added = root.find("added_tokens");
  RETURN_IF_ERROR(read_vocab(model, added != nullptr ? added->size() : 0, &spec.vocabulary));
  RETURN_IF_ERROR(read_merges(model, &spec.vocabulary));
  ASSIGN_OR_RETURN(spec.vocabulary.ignore_merges, model.boolean_or("ignore_merges", false));
  ASSIGN_OR_RETURN(spec.vocabulary.unknown_token, model.optional_string("unk_token"));
  ASSIGN_OR_RETURN(spec.vocabulary.fuse_unknown, model.boolean_or("fuse_unk", false));
  RETURN_IF_ERROR(read_added_tokens(root, &spec));
  if (root.find("normalizer") != nullptr) {
    ASSIGN_OR_RETURN(const JsonObject normalizer, root.object("normalizer"));
    RETURN_IF_ERROR(read_normalizer(normalizer, &spec.normalizer));
  }
  if (root.find("pre_tokenizer") == nullptr) {
    return unsupported(root.where("pre_tokenizer") + " is missing: only byte-level BPE is supported");
  }
  ASSIGN_OR_RETURN(const JsonObject pre_tokenizer, root.object("pre_tokenizer"));
  RETURN_IF_ERROR(read_pre_tokenizer(pre_tokenizer, &spec.pre_tokenizer));
  if (root.find("post_processor") != nullptr) {
    ASSIGN_OR_RETURN(const JsonObject post_processor, root.object("post_processor"));
    RETURN_IF_ERROR(read_post_processor(post_processor, 0, &spec));
  }
  return spec;
}

Result<BpeTokenizerSpec> parse_tokenizer_json_text(std::string_view text, const std::string& name) {
  ASSIGN_OR_RETURN(const json document, parse_json(text, name));
  return parse_tokenizer_json(document, name);
}

}  // namespace sextant
