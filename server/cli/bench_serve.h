// `sextant bench serve`: measures a server under load. Parses, runs, prints; the measuring is bench/run's.
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_bench_serve_verb();

}  // namespace sextant::cli
