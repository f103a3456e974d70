// Python's two ways of formatting text, `"%s" % x` and `"{}".format(x)`, JSON as json.dumps writes it, and
// time.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/text/jinja/runtime.h"

namespace sextant::jinja {

// `arguments`: a tuple, a dict (for %(name)s) or one value.
Value format_percent(Runtime& runtime, const Value& format, const Value& arguments);
// positional[0] is the format.
Value format_braces(Runtime& runtime, const CallArguments& arguments);
// A value by Python's format specification, "[[fill]align][sign][#][0][width][,][.precision][type]".
std::string format_by_spec(Runtime& runtime, const Value& value, std::string_view spec);
// '%.{precision}{type}' of a number; type is one of eEfFgG. `alternate` keeps the decimal point.
std::string format_real_as(double value, char type, int precision, bool alternate);

struct JsonStyle {
  bool ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // of one level; one line when absent
  std::string item_separator;
  std::string key_separator;
};
std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style);

// strftime in the C locale, in UTC.
std::string format_time(Runtime& runtime, std::string_view format, int64_t unix_s);

}  // namespace sextant::jinja
