// From what --model says to a path on disk, and the name the API gives it.
#pragma once

#include <string>

#include "engine/base/result.h"

namespace sextant::cli {

// A path that exists, or a Hub id "owner/name" that was pulled. kNotFound says what to do: `sextant pull owner/name`.
Result<std::string> locate_model(const std::string& model);

// The last part of a path without ".gguf"; a Hub id as it is.
std::string default_model_name(const std::string& model);

}  // namespace sextant::cli
