// Checks an object against a table.
#include "server/openai/field_table.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/nearest.h"

namespace sextant::openai {
namespace {

bool has_type(const Json& value, FieldType type) {
  switch (type) {
    case FieldType::kAny: return true;
    case FieldType::kBoolean: return value.is_boolean();
    case FieldType::kInteger: return value.is_number_integer();
    case FieldType::kString: return value.is_string();
    case FieldType::kObject: return value.is_object();
    case FieldType::kArray: return value.is_array();
  }
  return false;
}

std::string_view type_name(FieldType type) {
  switch (type) {
    case FieldType::kAny: return "anything";
    case FieldType::kBoolean: return "a boolean";
    case FieldType::kInteger: return "an integer";
    case FieldType::kString: return "a string";
    case FieldType::kObject: return "an object";
    case FieldType::kArray: return "an array";
  }
  return "";
}

}  // namespace

std::string_view json_type_name(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return "null";
    case Json::value_t::boolean: return "a boolean";
    case Json::value_t::string: return "a string";
    case Json::value_t::array: return "an array";
    case Json::value_t::object: return "an object";
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned: return "an integer";
    case Json::value_t::number_float: return "a number";
    default: return "not JSON";
  }
}

FieldTable::FieldTable(std::initializer_list<std::vector<Field>> groups) {
  for (const std::vector<Field>& group : groups) fields_.insert(fields_.end(), group.begin(), group.end());
  for (size_t i = 0; i < fields_.size(); ++i) {
    const bool is_first = index_.emplace(fields_[i].name, i).second;
    CHECK(is_first) << "field " << fields_[i].name << " is in its table twice";
    names_.emplace_back(fields_[i].name);
    neutral_.push_back(Json::parse(fields_[i].neutral));
  }
}

Status FieldTable::check(const Json& object, std::string_view path) const {
  const std::string prefix = path.empty() ? std::string() : std::string(path) + ".";
  for (const auto& [name, value] : object.items()) {
    const auto found = index_.find(name);
    if (found == index_.end()) {
      std::string message = "Unknown field " + in_quotes(prefix + name) + ".";
      const std::string_view comparable = std::string_view(name).substr(0, 100);
      if (const std::optional<std::string> nearest = nearest_name(comparable, names_)) {
        message += " Did you mean \"" + prefix + *nearest + "\"?";
      }
      return invalid_argument(std::move(message), prefix + name.substr(0, 100), "unknown_field");
    }
    const Field& field = fields_[found->second];
    if (value.is_null()) continue;
    if (field.kind == FieldKind::kIgnored && !has_type(value, field.type)) {
      return invalid_argument("'" + prefix + name + "' must be " + std::string(type_name(field.type)) + ", not " +
                                  std::string(json_type_name(value)) + ".",
                              prefix + name, "invalid_type");
    }
    if (field.kind == FieldKind::kUnsupported) {
      const Json& neutral = neutral_[found->second];
      if (std::find(neutral.begin(), neutral.end(), value) == neutral.end()) {
        std::string message = "'" + prefix + name + "' is not supported: " + std::string(field.reason) + ".";
        if (!neutral.empty()) {
          message += " Leave it out, or give one of " + neutral.dump() + ".";
        } else {
          message += " Leave it out.";
        }
        return invalid_argument(std::move(message), prefix + name, "unsupported_parameter");
      }
    }
  }
  return ok_status();
}

}  // namespace sextant::openai
