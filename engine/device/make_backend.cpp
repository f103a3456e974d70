#include "engine/device/make_backend.h"

#include "engine/device/cpu_backend.h"
#include "engine/device/cuda_backend.h"
#include "engine/device/cuda_device.h"

namespace sextant {

Result<std::unique_ptr<Backend>> make_backend(const DeviceConfig& config) {
  if (config.device == "cpu") return make_cpu_backend(config);
  if (config.device == "cuda-emulated") {
    if (cuda_is_emulated()) return make_cuda_backend(config);
    return unsupported("this build holds the real CUDA backend, not the emulator", "device");
  }
  if (config.device == "cuda") {
    if (!cuda_is_emulated()) return make_cuda_backend(config);
    return unsupported(
        "this build has no CUDA: configure with the preset `cuda` (it needs the CUDA toolkit), or use --device cpu",
        "device");
  }
  return !cuda_is_emulated() && cuda_available() ? make_cuda_backend(config) : make_cpu_backend(config);
}

}  // namespace sextant
