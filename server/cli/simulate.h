// `sextant simulate`: the real server and scheduler over a simulated device.
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_simulate_verb();

}  // namespace sextant::cli
