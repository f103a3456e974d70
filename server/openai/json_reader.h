// json_reader: a request body as JSON, with limits on what a hostile body can cost; errors say where. And
// JSON as text. Any thread. Must not know which fields exist.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "engine/base/result.h"

namespace sextant::openai {

// Keeps the order of keys: chat templates show objects as the client wrote them.
using Json = nlohmann::ordered_json;

struct JsonLimits {
  size_t max_depth = 64;          // nested arrays and objects
  size_t max_values = 4'000'000;  // each may cost some 50 bytes
};

// Exactly one JSON value. Refused with line, column and byte: syntax errors, invalid UTF-8, numbers beyond a
// double, NaN and infinities, keys that occur twice in one object, anything over the limits, text after the
// value.
Result<Json> parse_json(std::string_view text, const JsonLimits& limits = {});

// Compact text; bytes that are not UTF-8 become U+FFFD.
std::string dump_json(const Json& json);

// A client's text in a message of ours: in quotes, bounded, without control characters.
std::string in_quotes(std::string_view text);

}  // namespace sextant::openai
