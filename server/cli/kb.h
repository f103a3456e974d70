// The verbs `kb ...`: what the capacity advisor knows, looked at and added to from the command line.
#pragma once

#include <memory>
#include <vector>

#include "server/cli/command_line.h"

namespace sextant::cli {

// import, export, list, add-gpu, add-model, set-price, health.
std::vector<std::unique_ptr<Verb>> make_kb_verbs();

}  // namespace sextant::cli
