// `sextant pull`: fetches a model into the cache and prints where it is.
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_pull_verb();

}  // namespace sextant::cli
