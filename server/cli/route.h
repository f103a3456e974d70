// `sextant route`: one address in front of several servers.
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_route_verb();

}  // namespace sextant::cli
