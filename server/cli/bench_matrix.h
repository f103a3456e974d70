// `sextant bench matrix`: a whole set of measurements from one file, with the servers started and stopped in between.
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_bench_matrix_verb();

}  // namespace sextant::cli
