// `sextant admin backup` and `sextant admin restore`.
#pragma once

#include <memory>
#include <vector>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::vector<std::unique_ptr<Verb>> make_admin_backup_verbs();

}  // namespace sextant::cli
