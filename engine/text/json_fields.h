// JsonObject: typed reading of objects in tokenizer files. Errors name the file and the field's path.
// A view: the JSON value outlives it. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"

namespace sextant {

class JsonObject {
 public:
  // `where` is how messages name the value: "path/tokenizer.json: model".
  static Result<JsonObject> from(const nlohmann::json& value, std::string where);

  const std::string& where() const { return where_; }
  std::string where(std::string_view key) const;
  Status error(std::string_view key, std::string_view what) const;

  // Null when absent or JSON null.
  const nlohmann::json* find(std::string_view key) const;
  Result<JsonObject> object(std::string_view key) const;
  Result<const nlohmann::json*> array(std::string_view key) const;
  Result<std::string> string(std::string_view key) const;
  Result<std::optional<std::string>> optional_string(std::string_view key) const;
  Result<bool> boolean_or(std::string_view key, bool fallback) const;

 private:
  JsonObject(const nlohmann::json& value, std::string where) : value_(&value), where_(std::move(where)) {}
  const nlohmann::json* value_;
  std::string where_;
};

// A token id: an integer from 0 to 2^24.
Result<int32_t> json_token_id(const nlohmann::json& value, const std::string& where);

}  // namespace sextant
