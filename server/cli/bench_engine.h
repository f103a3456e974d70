// `sextant bench engine`: the engine measured without HTTP (bench/engine/engine_run.h), and `--replay`: the steps at which a
// device failed, run again (bench/engine/replay_run.h).
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_bench_engine_verb();

}  // namespace sextant::cli
