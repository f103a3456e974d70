// `sextant models`: the models in the cache, or those that a server serves.
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_models_verb();

}  // namespace sextant::cli
