// `sextant serve`: the flags, and the order in which the server's parts come to life and go.
#pragma once

#include <memory>

#include "server/cli/command_line.h"
#include "server/cli/serve_options.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_serve_verb();

// Serves until a signal; gives the process's exit code. `options` are valid.
int serve(const ServeOptions& options);

}  // namespace sextant::cli
