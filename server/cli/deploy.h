// The verbs `deploy ...`: from a plan to files, and a look at files for what no schema sees.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_deploy_render_verb();
std::unique_ptr<Verb> make_deploy_validate_verb();

// Bundles of a plan's first option with default choices: in the folder, or, of several models or regions, in folders in it.
// Nothing is written when one cannot be rendered. Notes go to stderr.
std::vector<Status> emit_bundles(const nlohmann::ordered_json& plan, const std::string& folder);

}  // namespace sextant::cli
