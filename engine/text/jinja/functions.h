// The functions that every template can call by name, and the attributes of what they make.
#pragma once

#include <span>
#include <string>

#include "engine/text/jinja/runtime.h"

namespace sextant::jinja {

std::span<const Builtin> global_functions();

// kMissing when there is no such attribute.
Value macro_attribute(Runtime& runtime, const Value& macro, const std::string& name);
Value cycler_attribute(Runtime& runtime, const Value& cycler, const std::string& name);

}  // namespace sextant::jinja
