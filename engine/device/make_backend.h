// Which backend `--device` means on this machine and in this build.
#pragma once

#include <memory>

#include "engine/base/result.h"
#include "engine/config.h"
#include "engine/device/backend.h"

namespace sextant {

// auto: CUDA where this build has it and a device can be seen, else the CPU. cuda: an error of one line says why not.
// cuda-emulated: the CUDA backend on kernels/simt, in builds that hold the emulator.
Result<std::unique_ptr<Backend>> make_backend(const DeviceConfig& config);

}  // namespace sextant
