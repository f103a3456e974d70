// The escapes of a quoted string in a template: those of Python.
#pragma once

#include <string>
#include <string_view>

namespace sextant::jinja {

// Appends the literal's value; returns what is wrong with it, or nullptr.
const char* decode_string_literal(std::string_view literal, std::string& value);

}  // namespace sextant::jinja
