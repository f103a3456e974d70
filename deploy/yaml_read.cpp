// The reader: libyaml's events made into JSON, by YAML 1.2's core schema.
#include <yaml.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <set>

#include "deploy/yaml.h"

namespace sextant::deploy {
namespace {

using nlohmann::ordered_json;

constexpr int kMaxDepth = 64;

bool all_of(std::string_view text, const char* set) {
  return !text.empty() && text.find_first_not_of(set) == text.npos;
}

// A plain scalar's value.
Result<ordered_json> resolved(const std::string& text) {
  static const std::set<std::string> nulls = {"", "~", "null", "Null", "NULL"};
  static const std::set<std::string> trues = {"true", "True", "TRUE"};
  static const std::set<std::string> falses = {"false", "False", "FALSE"};
  static const std::set<std::string> torn = {"yes", "Yes", "YES", "no",  "No",  "NO",
                                             "on",  "On",  "ON",  "off", "Off", "OFF"};
  if (nulls.count(text) > 0) return ordered_json(nullptr);
  if (trues.count(text) > 0) return ordered_json(true);
  if (falses.count(text) > 0) return ordered_json(false);
  if (torn.count(text) > 0)
    return invalid_argument("'" + text + "' is a boolean to some readers and a text to others: quote it");
  std::string_view digits = text;
  if (digits[0] == '-' || digits[0] == '+') digits.remove_prefix(1);
  if (all_of(digits, "0123456789") && digits.size() <= 18) return ordered_json(std::strtoll(text.c_str(), nullptr, 10));
  const size_t exponent = digits.find_first_of("eE");
  const std::string_view mantissa = digits.substr(0, exponent);
  bool number = all_of(mantissa, "0123456789.") && mantissa != "." && mantissa.find('.') == mantissa.rfind('.');
  if (number && exponent != digits.npos) {
    std::string_view power = digits.substr(exponent + 1);
    if (!power.empty() && (power[0] == '-' || power[0] == '+')) power.remove_prefix(1);
    number = all_of(power, "0123456789");
  }
  if (!number) return ordered_json(text);
  const double value = std::strtod(text.c_str(), nullptr);
  if (!std::isfinite(value)) return invalid_argument("'" + text.substr(0, 40) + "' is beyond every number: quote it");
  return ordered_json(value);
}

class Reader {
 public:
  explicit Reader(std::string_view text) {
    yaml_parser_initialize(&parser_);
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  }
  ~Reader() {
    drop();
    yaml_parser_delete(&parser_);
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  Result<std::vector<ordered_json>> documents() {
    std::vector<ordered_json> out;
    for (;;) {
      if (Status status = next(); !status.ok()) return status;
      if (event_.type == YAML_STREAM_END_EVENT) return out;
      if (event_.type == YAML_STREAM_START_EVENT || event_.type == YAML_DOCUMENT_START_EVENT ||
          event_.type == YAML_DOCUMENT_END_EVENT)
        continue;
      Result<ordered_json> value = node(0);
      if (!value.ok()) return value.status();
      if (!value->is_null()) out.push_back(*std::move(value));
    }
  }

 private:
  void drop() {
    if (held_) yaml_event_delete(&event_);
    held_ = false;
  }
  Status next() {
    drop();
    if (yaml_parser_parse(&parser_, &event_) == 0)
      return invalid_argument("line " + std::to_string(parser_.problem_mark.line + 1) + ": " +
                              (parser_.problem != nullptr ? parser_.problem : "not YAML"));
    held_ = true;
    return ok_status();
  }
  Status at(const std::string& what) const {
    return invalid_argument("line " + std::to_string(event_.start_mark.line + 1) + ": " + what);
  }

  // Of the event that is held.
  Result<ordered_json> node(int depth) {
    if (depth > kMaxDepth) return at("nested too deep");
    switch (event_.type) {
      case YAML_SCALAR_EVENT: {
        const auto& scalar = event_.data.scalar;
        if (scalar.anchor != nullptr) return at("anchors are not read");
        if (scalar.tag != nullptr) return at("tags are not read");
        const std::string text(reinterpret_cast<const char*>(scalar.value), scalar.length);
        if (scalar.style != YAML_PLAIN_SCALAR_STYLE) return ordered_json(text);
        Result<ordered_json> value = resolved(text);
        return value.ok() ? value : Result<ordered_json>(at(value.status().message()));
      }
      case YAML_SEQUENCE_START_EVENT: {
        if (event_.data.sequence_start.anchor != nullptr) return at("anchors are not read");
        ordered_json out = ordered_json::array();
        for (;;) {
          if (Status status = next(); !status.ok()) return status;
          if (event_.type == YAML_SEQUENCE_END_EVENT) return out;
          Result<ordered_json> item = node(depth + 1);
          if (!item.ok()) return item;
          out.push_back(*std::move(item));
        }
      }
      case YAML_MAPPING_START_EVENT: return mapping(depth);
      default: return at("aliases are not read");
    }
  }

  Result<ordered_json> mapping(int depth) {
    if (event_.data.mapping_start.anchor != nullptr) return at("anchors are not read");
    ordered_json out = ordered_json::object();
    std::set<std::string> seen;  // an ordered object looks its keys up one by one
    for (;;) {
      if (Status status = next(); !status.ok()) return status;
      if (event_.type == YAML_MAPPING_END_EVENT) return out;
      if (event_.type != YAML_SCALAR_EVENT) return at("a key must be a text");
      const std::string key(reinterpret_cast<const char*>(event_.data.scalar.value), event_.data.scalar.length);
      if (event_.data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
        Result<ordered_json> as = resolved(key);
        if (!as.ok() || !as->is_string()) return at("the key " + key.substr(0, 80) + " is no text: quote it");
        if (key == "<<") return at("merge keys are not read");
      }
      if (!seen.insert(key).second) return at("the key " + key.substr(0, 80) + " stands here twice");
      if (Status status = next(); !status.ok()) return status;
      Result<ordered_json> item = node(depth + 1);
      if (!item.ok()) return item;
      out.get_ref<ordered_json::object_t&>().emplace_back(key, *std::move(item));
    }
  }

  yaml_parser_t parser_{};
  yaml_event_t event_{};
  bool held_ = false;
};

}  // namespace

Result<std::vector<ordered_json>> parse_yaml_stream(std::string_view text) {
  if (text.size() > kMaxYamlBytes)
    return invalid_argument("larger than " + std::to_string(kMaxYamlBytes >> 20) + " MiB");
  return Reader(text).documents();
}

}  // namespace sextant::deploy
