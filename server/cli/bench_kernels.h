// `sextant bench kernels`: the CPU's ops, each alone (bench/kernels/kernel_run.h), as text, JSON lines or benchmark records.
#pragma once

#include <memory>

#include "server/cli/command_line.h"

namespace sextant::cli {

std::unique_ptr<Verb> make_bench_kernels_verb();

}  // namespace sextant::cli
