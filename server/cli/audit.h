// `sextant admin audit verify|export|erase`: the files of an audit log, on the machine where they are.
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_admin_audit_verb();

}  // namespace sextant::cli
