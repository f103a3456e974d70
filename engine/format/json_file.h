// JSON from files and servers that are not trusted: size, depth and duplicate keys are bounded or refused, NaN and
// Infinity are not numbers. Errors read "<name>: line <l>, column <c> (byte <n>): <what is wrong>";
// lines and columns count from 1, bytes from 0.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "engine/base/result.h"

namespace sextant {

struct JsonLimits {
  size_t max_bytes = size_t{256} << 20;
  int max_depth = 64;
  // Values of any kind. A parsed value takes up to some hundred bytes of memory however short its text is.
  size_t max_values = 4'000'000;
};

// The whole file as bytes; kTooLarge above max_bytes, before anything is allocated.
Result<std::string> read_text_file(const std::string& path, size_t max_bytes);

// `name` stands for the text in messages: a path or a URL. A file must hold one value and nothing after it.
Result<nlohmann::json> parse_json(std::string_view text, std::string_view name, const JsonLimits& limits = {});
Result<nlohmann::json> read_json_file(const std::string& path, const JsonLimits& limits = {});

}  // namespace sextant
