// Each of Hugging Face's kinds is said with the few of ours: Digits and Punctuation are splits, ByteLevel is up to three
// steps.
#include "engine/text/tokenizer_json_steps.h"

#include <string>
#include <utility>

namespace sextant {
namespace {

using nlohmann::json;
using Behavior = PreTokenizerStep::Behavior;
using StepKind = PreTokenizerStep::Kind;

constexpr int kMaxSequenceDepth = 4;
constexpr size_t kMaxSteps = 64;
constexpr size_t kMaxContentBytes = 256;  // of a replacement: it multiplies the text

// {"Regex": "..."} or {"String": "..."}.
Status read_pattern(const JsonObject& object, std::string* pattern, Regex::Syntax* syntax) {
  ASSIGN_OR_RETURN(const JsonObject value, object.object("pattern"));
  const bool is_regex = value.find("Regex") != nullptr;
  ASSIGN_OR_RETURN(*pattern, value.string(is_regex ? "Regex" : "String"));
  *syntax = is_regex ? Regex::Syntax::kOniguruma : Regex::Syntax::kLiteral;
  if (pattern->empty()) return value.error(is_regex ? "Regex" : "String", "is empty");
  return ok_status();
}

Result<Behavior> read_behavior(const JsonObject& object, Behavior fallback) {
  ASSIGN_OR_RETURN(const std::optional<std::string> name, object.optional_string("behavior"));
  if (!name) return fallback;
  if (*name == "Isolated") return Behavior::kIsolated;
  if (*name == "Removed") return Behavior::kRemoved;
  if (*name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (*name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (*name == "Contiguous") return Behavior::kContiguous;
  return object.error("behavior", "is '" + name->substr(0, 40) +
                                      "'; known are Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous");
}

template <typename ReadPart>
Status read_sequence(const JsonObject& object, std::string_view key, int depth, const ReadPart& read_part) {
  if (depth >= kMaxSequenceDepth) return data_loss(object.where() + ": Sequences are nested too deeply");
  ASSIGN_OR_RETURN(const json* parts, object.array(key));
  if (parts->size() > kMaxSteps) {
    return object.error(key, "has " + std::to_string(parts->size()) + " entries; at most " + std::to_string(kMaxSteps) +
                                 " are supported");
  }
  for (size_t i = 0; i < parts->size(); ++i) {
    ASSIGN_OR_RETURN(const JsonObject part,
                     JsonObject::from((*parts)[i], object.where(key) + '[' + std::to_string(i) + ']'));
    RETURN_IF_ERROR(read_part(part));
  }
  return ok_status();
}

Status read_normalizer_at(const JsonObject& object, int depth, std::vector<NormalizerStep>* steps) {
  if (steps->size() >= kMaxSteps) return data_loss(object.where() + ": too many steps");
  ASSIGN_OR_RETURN(const std::string type, object.string("type"));
  if (type == "Sequence") {
    return read_sequence(object, "normalizers", depth,
                         [&](const JsonObject& part) { return read_normalizer_at(part, depth + 1, steps); });
  }
  NormalizerStep step;
  if (type == "NFC") {
    step.kind = NormalizerStep::Kind::kNfc;
  } else if (type == "NFD") {
    step.kind = NormalizerStep::Kind::kNfd;
  } else if (type == "NFKC") {
    step.kind = NormalizerStep::Kind::kNfkc;
  } else if (type == "NFKD") {
    step.kind = NormalizerStep::Kind::kNfkd;
  } else if (type == "Lowercase") {
    step.kind = NormalizerStep::Kind::kLowercase;
  } else if (type == "Strip") {
    step.kind = NormalizerStep::Kind::kStrip;
    ASSIGN_OR_RETURN(step.strip_left, object.boolean_or("strip_left", true));
    ASSIGN_OR_RETURN(step.strip_right, object.boolean_or("strip_right", true));
  } else if (type == "Prepend") {
    step.kind = NormalizerStep::Kind::kPrepend;
    ASSIGN_OR_RETURN(step.content, object.string("prepend"));
  } else if (type == "Replace") {
    step.kind = NormalizerStep::Kind::kReplace;
    RETURN_IF_ERROR(read_pattern(object, &step.pattern, &step.syntax));
    ASSIGN_OR_RETURN(step.content, object.string("content"));
  } else {
    return unsupported(object.where("type") + " '" + type.substr(0, 40) + "' is not supported");
  }
  if (step.content.size() > kMaxContentBytes) {
    return data_loss(object.where() + ": a replacement of " + std::to_string(step.content.size()) + " bytes; at most " +
                     std::to_string(kMaxContentBytes) + " are supported");
  }
  steps->push_back(std::move(step));
  return ok_status();
}

PreTokenizerStep split(std::string_view pattern, Behavior behavior, bool invert = false) {
  return {.kind = StepKind::kSplit, .pattern = std::string(pattern), .behavior = behavior, .invert = invert};
}

Status read_byte_level(const JsonObject& object, std::vector<PreTokenizerStep>* steps) {
  ASSIGN_OR_RETURN(const bool add_prefix_space, object.boolean_or("add_prefix_space", true));
  ASSIGN_OR_RETURN(const bool use_regex, object.boolean_or("use_regex", true));
  if (add_prefix_space) steps->push_back({.kind = StepKind::kAddPrefixSpace});
  if (use_regex) steps->push_back(split(kGpt2Pattern, Behavior::kIsolated));
  steps->push_back({.kind = StepKind::kByteAlphabet});
  return ok_status();
}

Status read_pre_tokenizer_at(const JsonObject& object, int depth, std::vector<PreTokenizerStep>* steps) {
  if (steps->size() >= kMaxSteps) return data_loss(object.where() + ": too many steps");
  ASSIGN_OR_RETURN(const std::string type, object.string("type"));
  if (type == "Sequence") {
    return read_sequence(object, "pretokenizers", depth,
                         [&](const JsonObject& part) { return read_pre_tokenizer_at(part, depth + 1, steps); });
  }
  if (type == "ByteLevel") return read_byte_level(object, steps);
  if (type == "Split") {
    PreTokenizerStep step;
    RETURN_IF_ERROR(read_pattern(object, &step.pattern, &step.syntax));
    ASSIGN_OR_RETURN(step.behavior, read_behavior(object, Behavior::kIsolated));
    ASSIGN_OR_RETURN(step.invert, object.boolean_or("invert", false));
    steps->push_back(std::move(step));
  } else if (type == "Digits") {
    ASSIGN_OR_RETURN(const bool individual, object.boolean_or("individual_digits", false));
    steps->push_back(split(R"(\p{N})", individual ? Behavior::kIsolated : Behavior::kContiguous));
  } else if (type == "Punctuation") {
    ASSIGN_OR_RETURN(const Behavior behavior, read_behavior(object, Behavior::kIsolated));
    steps->push_back(split(R"([\p{P}!-/:-@\[-`{-~])", behavior));
  } else if (type == "Whitespace") {
    steps->push_back(
        split(R"([\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}]+|[^\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\s]+)", Behavior::kRemoved, true));
  } else if (type == "WhitespaceSplit") {
    steps->push_back(split(R"(\s)", Behavior::kRemoved));
  } else {
    return unsupported(object.where("type") + " '" + type.substr(0, 40) + "' is not supported");
  }
  return ok_status();
}

}  // namespace

Status read_normalizer(const JsonObject& normalizer, std::vector<NormalizerStep>* steps) {
  return read_normalizer_at(normalizer, 0, steps);
}

Status read_pre_tokenizer(const JsonObject& pre_tokenizer, std::vector<PreTokenizerStep>* steps) {
  RETURN_IF_ERROR(read_pre_tokenizer_at(pre_tokenizer, 0, steps));
  int num_byte_levels = 0;
  for (const PreTokenizerStep& step : *steps) num_byte_levels += step.kind == StepKind::kByteAlphabet;
  if (num_byte_levels != 1) {
    return unsupported(pre_tokenizer.where() + " has " + std::to_string(num_byte_levels) +
                       " ByteLevel steps; only byte-level BPE, with one, is supported");
  }
  return ok_status();
}

}  // namespace sextant
