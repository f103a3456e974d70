// FieldTable: the one list per endpoint of the fields that requests may have, and what each one gets.
// Immutable; any thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/base/status.h"
#include "server/openai/json_reader.h"

namespace sextant::openai {

enum class FieldKind : uint8_t {
  kUsed,         // read by the request's parser, which checks its type and range
  kIgnored,      // changes nothing here; only its type is checked
  kUnsupported,  // would change the answer: refused unless it has a neutral value (or is null)
};

enum class FieldType : uint8_t { kAny, kBoolean, kInteger, kString, kObject, kArray };

struct Field {
  std::string_view name;
  FieldKind kind = FieldKind::kUsed;
  FieldType type = FieldType::kAny;  // of kIgnored
  std::string_view neutral = "[]";   // of kUnsupported: JSON array of the values that change nothing; null always is
  std::string_view reason = {};      // of kUnsupported: ends the sentence "'x' is not supported: "
};

constexpr Field used(std::string_view name) { return {name, FieldKind::kUsed}; }
constexpr Field ignored(std::string_view name, FieldType type) { return {name, FieldKind::kIgnored, type}; }
constexpr Field unsupported_unless(std::string_view name, std::string_view neutral, std::string_view reason) {
  return {name, FieldKind::kUnsupported, FieldType::kAny, neutral, reason};
}

class FieldTable {
 public:
  FieldTable(std::initializer_list<std::vector<Field>> groups);

  // kInvalidArgument naming the first field that is unknown (with the nearest known one), ignored but wrongly
  // typed, or unsupported. `path` precedes names in `param`: "messages[0]" gives "messages[0].role".
  Status check(const Json& object, std::string_view path = {}) const;

  const std::vector<Field>& fields() const { return fields_; }

 private:
  std::vector<Field> fields_;
  std::vector<std::string> names_;
  std::vector<Json> neutral_;  // parsed; parallel to fields_
  std::unordered_map<std::string_view, size_t> index_;
};

// What a JSON value is, for messages: "a string", "null", "an array".
std::string_view json_type_name(const Json& value);

const FieldTable& completion_fields();
const FieldTable& chat_fields();
const FieldTable& chat_message_fields();
const FieldTable& stream_options_fields();
const FieldTable& tokenize_completion_fields();
const FieldTable& tokenize_chat_fields();
const FieldTable& detokenize_fields();

}  // namespace sextant::openai
