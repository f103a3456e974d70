// The CPU backend: kernels/cpu over a pool of threads that sleep when idle.
#pragma once

#include <memory>

#include "engine/base/result.h"
#include "engine/config.h"
#include "engine/device/backend.h"

namespace sextant {

// The instruction set is the best that this CPU has, or the one that the environment variable SEXTANT_CPU_ISA names
// (generic, avx2, avx512): an error when the CPU lacks it. Threads: config.num_threads, or the cores in the affinity mask
// limited by the cgroup's CPU quota.
Result<std::unique_ptr<Backend>> make_cpu_backend(const DeviceConfig& config);

}  // namespace sextant
