// Nothing here throws: types are asked for before values are.
#include "engine/text/json_fields.h"

namespace sextant {

using nlohmann::json;

Result<JsonObject> JsonObject::from(const json& value, std::string where) {
  if (!value.is_object()) return data_loss(where + " must be an object, is " + value.type_name());
  return JsonObject(value, std::move(where));
}

std::string JsonObject::where(std::string_view key) const {
  return where_ + (where_.ends_with(':') ? " " : ".") + std::string(key);
}

Status JsonObject::error(std::string_view key, std::string_view what) const {
  return data_loss(where(key) + " " + std::string(what));
}

const json* JsonObject::find(std::string_view key) const {
  const auto it = value_->find(key);
  return it == value_->end() || it->is_null() ? nullptr : &*it;
}

Result<JsonObject> JsonObject::object(std::string_view key) const {
  const json* value = find(key);
  if (value == nullptr) return error(key, "is missing");
  return from(*value, where(key));
}

Result<const json*> JsonObject::array(std::string_view key) const {
  const json* value = find(key);
  if (value == nullptr) return error(key, "is missing");
  if (!value->is_array()) return error(key, std::string("must be an array, is ") + value->type_name());
  return value;
}

Result<std::string> JsonObject::string(std::string_view key) const {
  ASSIGN_OR_RETURN(std::optional<std::string> value, optional_string(key));
  if (!value) return error(key, "is missing");
  return std::move(*value);
}

Result<std::optional<std::string>> JsonObject::optional_string(std::string_view key) const {
  const json* value = find(key);
  if (value == nullptr) return std::optional<std::string>();
  if (!value->is_string()) return error(key, std::string("must be a string, is ") + value->type_name());
  return std::optional<std::string>(value->get_ref<const std::string&>());
}

Result<bool> JsonObject::boolean_or(std::string_view key, bool fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return error(key, std::string("must be true or false, is ") + value->type_name());
  return value->get<bool>();
}

Result<int32_t> json_token_id(const json& value, const std::string& where) {
  constexpr uint64_t kMaxId = 1 << 24;
  if (!value.is_number_integer()) return data_loss(where + " must be an integer, is " + value.type_name());
  const bool negative = !value.is_number_unsigned() && value.get<int64_t>() < 0;
  if (negative || value.get<uint64_t>() > kMaxId) {
    return data_loss(where + " is " + value.dump() + "; token ids lie between 0 and " + std::to_string(kMaxId));
  }
  return static_cast<int32_t>(value.get<uint64_t>());
}

}  // namespace sextant
