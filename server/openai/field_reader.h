// Typed reads of one field of a JSON object: absent and null leave `out` as it is; a wrong type or a value
// out of range is kInvalidArgument naming the field, what it was and what it may be. Numbers are not read
// from strings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "server/openai/json_reader.h"

namespace sextant::openai {

// Null when absent or JSON null.
const Json* find_field(const Json& object, std::string_view name);

Status type_error(std::string_view param, std::string_view wanted, const Json& got);
Status range_error(std::string_view param, std::string_view range, const std::string& got);

Status read_boolean(const Json& object, std::string_view name, bool* out);
// Both ends included. 16.0 is an integer, 16.5 is not.
Status read_integer(const Json& object, std::string_view name, int64_t min, int64_t max, std::optional<int64_t>* out);
// Any finite number, as a float; beyond a float's range it is infinite, which no range includes.
Status read_float(const Json& object, std::string_view name, float* out);
Status read_string(const Json& object, std::string_view name, size_t max_bytes, std::optional<std::string>* out);
// A list of ids in [0, vocab_size).
Status read_token_ids(const Json& value, const std::string& param, int32_t vocab_size, std::vector<int32_t>* out);

// A value as an integer in [min, max]; `param` names it in the error.
Status to_integer(const Json& value, const std::string& param, int64_t min, int64_t max, int64_t* out);
float to_float(double value);

}  // namespace sextant::openai
