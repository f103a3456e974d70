// What stands after `is`: tests over one value and perhaps an argument.
#pragma once

#include <span>

#include "engine/text/jinja/runtime.h"

namespace sextant::jinja {

std::span<const Builtin> test_functions();

}  // namespace sextant::jinja
