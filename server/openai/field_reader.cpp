// Typed reads; see the header.
#include "server/openai/field_reader.h"

#include <cmath>
#include <limits>
#include <utility>

#include "server/openai/field_table.h"

namespace sextant::openai {
namespace {

std::string range_text(int64_t min, int64_t max) {
  return "in [" + std::to_string(min) + ", " + std::to_string(max) + "]";
}

// A number as the client wrote it, bounded.
std::string shown(const Json& value) {
  std::string text = dump_json(value);
  if (text.size() > 40) text = text.substr(0, 40) + "...";
  return text;
}

}  // namespace

const Json* find_field(const Json& object, std::string_view name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

Status type_error(std::string_view param, std::string_view wanted, const Json& got) {
  return invalid_argument(
      "'" + std::string(param) + "' must be " + std::string(wanted) + ", not " + std::string(json_type_name(got)) + ".",
      std::string(param), "invalid_type");
}

Status range_error(std::string_view param, std::string_view range, const std::string& got) {
  return invalid_argument("'" + std::string(param) + "' must be " + std::string(range) + "; it is " + got + ".",
                          std::string(param), "invalid_value");
}

Status read_boolean(const Json& object, std::string_view name, bool* out) {
  const Json* value = find_field(object, name);
  if (value == nullptr) return ok_status();
  if (!value->is_boolean()) return type_error(name, "a boolean", *value);
  *out = value->get<bool>();
  return ok_status();
}

Status to_integer(const Json& value, const std::string& param, int64_t min, int64_t max, int64_t* out) {
  int64_t number = 0;
  if (value.is_number_unsigned()) {
    const uint64_t magnitude = value.get<uint64_t>();
    if (magnitude > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return range_error(param, range_text(min, max), shown(value));
    }
    number = static_cast<int64_t>(magnitude);
  } else if (value.is_number_integer()) {
    number = value.get<int64_t>();
  } else if (value.is_number_float()) {
    const double real = value.get<double>();
    if (real != std::floor(real)) return type_error(param, "an integer", value);
    // Doubles in [-2^63, 2^63) convert exactly.
    if (!(real >= -0x1p63 && real < 0x1p63)) return range_error(param, range_text(min, max), shown(value));
    number = static_cast<int64_t>(real);
  } else {
    return type_error(param, "an integer", value);
  }
  if (number < min || number > max) return range_error(param, range_text(min, max), shown(value));
  *out = number;
  return ok_status();
}

Status read_integer(const Json& object, std::string_view name, int64_t min, int64_t max, std::optional<int64_t>* out) {
  const Json* value = find_field(object, name);
  if (value == nullptr) return ok_status();
  int64_t number = 0;
  RETURN_IF_ERROR(to_integer(*value, std::string(name), min, max, &number));
  *out = number;
  return ok_status();
}

float to_float(double value) {
  constexpr double kMax = std::numeric_limits<float>::max();
  if (value > kMax) return std::numeric_limits<float>::infinity();
  if (value < -kMax) return -std::numeric_limits<float>::infinity();
  return static_cast<float>(value);
}

Status read_float(const Json& object, std::string_view name, float* out) {
  const Json* value = find_field(object, name);
  if (value == nullptr) return ok_status();
  if (!value->is_number()) return type_error(name, "a number", *value);
  *out = to_float(value->get<double>());
  return ok_status();
}

Status read_string(const Json& object, std::string_view name, size_t max_bytes, std::optional<std::string>* out) {
  const Json* value = find_field(object, name);
  if (value == nullptr) return ok_status();
  if (!value->is_string()) return type_error(name, "a string", *value);
  const std::string& text = value->get_ref<const std::string&>();
  if (text.size() > max_bytes) {
    return range_error(name, "at most " + std::to_string(max_bytes) + " bytes",
                       std::to_string(text.size()) + " bytes long");
  }
  *out = text;
  return ok_status();
}

Status read_token_ids(const Json& value, const std::string& param, int32_t vocab_size, std::vector<int32_t>* out) {
  if (!value.is_array()) return type_error(param, "an array of token ids", value);
  out->reserve(value.size());
  for (size_t i = 0; i < value.size(); ++i) {
    const Json& element = value[i];
    int64_t id = 0;
    // The common case without making the name that only an error needs.
    if (element.is_number_unsigned() && element.get<uint64_t>() < static_cast<uint64_t>(vocab_size)) {
      id = static_cast<int64_t>(element.get<uint64_t>());
    } else {
      RETURN_IF_ERROR(to_integer(element, param + "[" + std::to_string(i) + "]", 0, vocab_size - 1, &id));
    }
    out->push_back(static_cast<int32_t>(id));
  }
  return ok_status();
}

}  // namespace sextant::openai
