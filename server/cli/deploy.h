// The verbs `deploy ...`: from a plan to files, and a look at files for what no schema sees.
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_deploy_render_verb();
std::unique_ptr<Verb> make_deploy_validate_verb();

}  // namespace sextant::cli
