// `sextant version`: what this program is and was built with.
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_version_verb();

}  // namespace sextant::cli
