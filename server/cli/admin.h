// `sextant admin keys|tenants|usage`: the state of a server, in its store or through its /admin/v1.
#pragma once

#include <memory>
#include <vector>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::vector<std::unique_ptr<Verb>> make_admin_verbs();

}  // namespace sextant::cli
