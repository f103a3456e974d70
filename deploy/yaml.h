// YAML from JSON structures, and JSON structures from YAML. What is written reads back as the same value under YAML 1.1 and
// 1.2: a text that any reader could take for something else is quoted. Pure; any thread. Must not know what it writes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"

namespace sextant::deploy {

// One document, block style, ends with a newline. Texts must be UTF-8: other bytes become U+FFFD. NaN and infinities are null.
std::string to_yaml(const nlohmann::ordered_json& value);
// Documents separated by "---".
std::string to_yaml_stream(const std::vector<nlohmann::ordered_json>& documents);

inline constexpr size_t kMaxYamlBytes = 8u << 20;
// Scalars by YAML 1.2's core schema, and as Kubernetes does: plain yes, no, on and off are refused, because 1.1 says they are
// booleans. Aliases, merge keys, tags, repeated and non-text keys are refused, and so is what is nested deeper than 64.
// Errors say the line. Empty documents are left out.
Result<std::vector<nlohmann::ordered_json>> parse_yaml_stream(std::string_view text);

}  // namespace sextant::deploy
