// `sextant bench compare`: two kept results side by side, with significance.
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_bench_compare_verb();

}  // namespace sextant::cli
