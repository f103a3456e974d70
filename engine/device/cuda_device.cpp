#include "engine/device/cuda_device.h"

#include <cuda_runtime.h>
#include <cstdio>

#include "engine/device/cuda_status.h"

namespace sextant {
namespace {

constexpr int kLeastComputeCapability = 80;
constexpr const char* kCpuInstead = "; --device cpu serves without one";

std::string version_text(int version) {  // 12030 is 12.3
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

Result<int> attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  RETURN_IF_CUDA_ERROR(cudaDeviceGetAttribute(&value, which, device), "asking for a device's properties");
  return value;
}

}  // namespace

bool cuda_is_emulated() {
#if defined(SEXTANT_SIMT)
  return true;
#else
  return false;
#endif
}

bool cuda_available() {
  int driver = 0;
  int count = 0;
  const bool available = cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0 &&
                         cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  cudaGetLastError();
  return available;
}

std::string gpu_uuid_text(std::span<const char, 16> bytes) {
  std::string text = "GPU";
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned>(static_cast<unsigned char>(bytes[i])));
    text += digits;
  }
  return text;
}

Result<CudaDevice> open_cuda_device(int index) {
  int driver = 0;
  int runtime = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    cudaGetLastError();
    return unavailable(std::string("CUDA was asked for, but this machine has no NVIDIA driver") + kCpuInstead);
  }
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) cudaGetLastError();
  if (error == cudaErrorInsufficientDriver) {
    static_cast<void>(cudaRuntimeGetVersion(&runtime));
    return unavailable("CUDA was asked for, but the NVIDIA driver is too old: it knows CUDA " + version_text(driver) +
                       ", this program needs " + version_text(runtime) + kCpuInstead);
  }
  if (error != cudaSuccess && error != cudaErrorNoDevice) return cuda_status(error, "looking for CUDA devices");
  if (count == 0) {
    return unavailable(std::string("CUDA was asked for, but no CUDA device can be seen (CUDA_VISIBLE_DEVICES?)") +
                       kCpuInstead);
  }
  if (index >= count) {
    return unavailable("CUDA device " + std::to_string(index) + " is asked for, but this machine shows " +
                       std::to_string(count) +
                       (cuda_is_emulated() ? " (SEXTANT_SIMT_DEVICES)" : " (CUDA_VISIBLE_DEVICES?)"));
  }
  CudaDevice device;
  device.index = index;
  cudaDeviceProp properties = {};
  RETURN_IF_CUDA_ERROR(cudaGetDeviceProperties(&properties, device.index), "asking for a device's properties");
  device.name = properties.name;
  if (!cuda_is_emulated()) device.uuid = gpu_uuid_text(properties.uuid.bytes);
  device.memory_bytes = properties.totalGlobalMem;
  ASSIGN_OR_RETURN(device.compute_major, attribute(cudaDevAttrComputeCapabilityMajor, device.index));
  ASSIGN_OR_RETURN(device.compute_minor, attribute(cudaDevAttrComputeCapabilityMinor, device.index));
  ASSIGN_OR_RETURN(device.num_multiprocessors, attribute(cudaDevAttrMultiProcessorCount, device.index));
  ASSIGN_OR_RETURN(const int shared, attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device.index));
  device.shared_memory_per_block_bytes = shared;
  if (device.compute_capability() < kLeastComputeCapability) {
    return unavailable(device.name + " has compute capability " + std::to_string(device.compute_major) + "." +
                       std::to_string(device.compute_minor) + ", the CUDA backend needs 8.0 (Ampere)" + kCpuInstead);
  }
  RETURN_IF_CUDA_ERROR(cudaSetDevice(device.index), "choosing " + device.name);
  return device;
}

}  // namespace sextant
