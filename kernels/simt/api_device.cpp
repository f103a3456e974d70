// The CUDA API: devices and errors.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "kernels/simt/runtime_state.h"

using sextant::simt::Runtime;
using sextant::simt::t_device;

namespace {

constexpr int kVersion = CUDART_VERSION;
constexpr size_t kReservedShared = 1 << 10;

bool exists(const Runtime& runtime, int device) {
  return device >= 0 && static_cast<size_t>(device) < runtime.num_devices();
}

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  Runtime& runtime = Runtime::instance();
  if (count == nullptr) return runtime.remember(cudaErrorInvalidValue);
  const int driver = runtime.machine().driver_version;
  *count = 0;
  if (driver != 0 && driver < kVersion) {
    return runtime.remember(driver < 0 ? cudaErrorNoDevice : cudaErrorInsufficientDriver);
  }
  *count = static_cast<int>(runtime.num_devices());
  return runtime.remember(*count == 0 ? cudaErrorNoDevice : cudaSuccess);
}

cudaError_t cudaSetDevice(int device) {
  Runtime& runtime = Runtime::instance();
  if (!exists(runtime, device)) return runtime.remember(cudaErrorInvalidDevice);
  t_device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  Runtime& runtime = Runtime::instance();
  if (runtime.num_devices() == 0) return runtime.remember(cudaErrorNoDevice);
  if (device == nullptr) return runtime.remember(cudaErrorInvalidValue);
  *device = t_device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  Runtime& runtime = Runtime::instance();
  if (properties == nullptr) return runtime.remember(cudaErrorInvalidValue);
  if (!exists(runtime, device)) return runtime.remember(cudaErrorInvalidDevice);
  const sextant::simt::DeviceProfile& profile = runtime.machine().profile;
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "%s", profile.name);
  properties->totalGlobalMem = runtime.machine().memory_bytes;
  properties->sharedMemPerBlock = 48 << 10;
  properties->regsPerBlock = 65536;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsDim[0] = 1024;
  properties->maxThreadsDim[1] = 1024;
  properties->maxThreadsDim[2] = 64;
  properties->maxGridSize[0] = 0x7fffffff;
  properties->maxGridSize[1] = 65535;
  properties->maxGridSize[2] = 65535;
  properties->major = profile.major;
  properties->minor = profile.minor;
  properties->multiProcessorCount = profile.num_multiprocessors;
  properties->canMapHostMemory = 1;
  properties->concurrentKernels = 1;
  properties->ECCEnabled = 1;
  properties->pciBusID = device + 1;
  properties->asyncEngineCount = 3;
  properties->unifiedAddressing = 1;
  properties->memoryBusWidth = profile.memory_bus_bits;
  properties->l2CacheSize = profile.l2_bytes;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->streamPrioritiesSupported = 1;
  properties->sharedMemPerMultiprocessor = profile.shared_per_multiprocessor_bytes;
  properties->regsPerMultiprocessor = 65536;
  properties->sharedMemPerBlockOptin = profile.shared_per_block_opt_in_bytes;
  properties->maxBlocksPerMultiProcessor = 32;
  properties->reservedSharedMemPerBlock = kReservedShared;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  Runtime& runtime = Runtime::instance();
  cudaDeviceProp p;
  if (value == nullptr) return runtime.remember(cudaErrorInvalidValue);
  if (const cudaError_t error = cudaGetDeviceProperties(&p, device); error != cudaSuccess) return error;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMaxBlockDimX: *value = p.maxThreadsDim[0]; break;
    case cudaDevAttrMaxBlockDimY: *value = p.maxThreadsDim[1]; break;
    case cudaDevAttrMaxBlockDimZ: *value = p.maxThreadsDim[2]; break;
    case cudaDevAttrMaxGridDimX: *value = p.maxGridSize[0]; break;
    case cudaDevAttrMaxGridDimY: *value = p.maxGridSize[1]; break;
    case cudaDevAttrMaxGridDimZ: *value = p.maxGridSize[2]; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = static_cast<int>(p.sharedMemPerBlock); break;
    case cudaDevAttrWarpSize: *value = p.warpSize; break;
    case cudaDevAttrMaxRegistersPerBlock: *value = p.regsPerBlock; break;
    case cudaDevAttrClockRate: *value = runtime.machine().profile.clock_khz; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrConcurrentKernels: *value = p.concurrentKernels; break;
    case cudaDevAttrPciBusId: *value = p.pciBusID; break;
    case cudaDevAttrMemoryClockRate: *value = runtime.machine().profile.memory_clock_khz; break;
    case cudaDevAttrGlobalMemoryBusWidth: *value = p.memoryBusWidth; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrUnifiedAddressing: *value = p.unifiedAddressing; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = static_cast<int>(p.sharedMemPerMultiprocessor); break;
    case cudaDevAttrMaxRegistersPerMultiprocessor: *value = p.regsPerMultiprocessor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(p.sharedMemPerBlockOptin); break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *value = p.maxBlocksPerMultiProcessor; break;
    case cudaDevAttrReservedSharedMemoryPerBlock: *value = static_cast<int>(p.reservedSharedMemPerBlock); break;
    default: return runtime.remember(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  Runtime& runtime = Runtime::instance();
  if (text == nullptr || length < 13) return runtime.remember(cudaErrorInvalidValue);
  if (!exists(runtime, device)) return runtime.remember(cudaErrorInvalidDevice);
  std::snprintf(text, static_cast<size_t>(length), "0000:%02X:00.0", static_cast<unsigned>(device + 1) & 0xffu);
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  const int driver = Runtime::instance().machine().driver_version;
  *version = driver == 0 ? kVersion : std::max(driver, 0);  // 0 says that there is none
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

cudaError_t cudaDeviceReset() {
  Runtime& runtime = Runtime::instance();
  if (runtime.num_devices() == 0) return runtime.remember(cudaErrorNoDevice);
  auto lock = runtime.executor().lock();
  runtime.reset_device(lock, runtime.current_device());
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  Runtime& runtime = Runtime::instance();
  if (!exists(runtime, device) || !exists(runtime, peer)) return runtime.remember(cudaErrorInvalidDevice);
  *can = device != peer ? 1 : 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  if (!exists(runtime, peer) || peer == t_device) return runtime.remember(cudaErrorInvalidDevice);
  if (flags != 0) return runtime.remember(cudaErrorInvalidValue);
  const auto lock = runtime.executor().lock();
  uint64_t& peers = runtime.current_device().peers;
  if ((peers >> peer & 1u) != 0) return runtime.remember(cudaErrorPeerAccessAlreadyEnabled);
  peers |= uint64_t{1} << peer;
  return cudaSuccess;
}

cudaError_t cudaDeviceDisablePeerAccess(int peer) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  if (!exists(runtime, peer)) return runtime.remember(cudaErrorInvalidDevice);
  const auto lock = runtime.executor().lock();
  uint64_t& peers = runtime.current_device().peers;
  if ((peers >> peer & 1u) == 0) return runtime.remember(cudaErrorPeerAccessNotEnabled);
  peers &= ~(uint64_t{1} << peer);
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return Runtime::instance().last_error(true); }
cudaError_t cudaPeekAtLastError() { return Runtime::instance().last_error(false); }

namespace {

struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
};
#define SIMT_ERROR(name, text) \
  ErrorText { name, #name, text }
constexpr ErrorText kErrors[] = {
    SIMT_ERROR(cudaSuccess, "no error"),
    SIMT_ERROR(cudaErrorInvalidValue, "invalid argument"),
    SIMT_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    SIMT_ERROR(cudaErrorInitializationError, "initialization error"),
    SIMT_ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    SIMT_ERROR(cudaErrorInvalidDevicePointer, "invalid device pointer"),
    SIMT_ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    SIMT_ERROR(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    SIMT_ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    SIMT_ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    SIMT_ERROR(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device"),
    SIMT_ERROR(cudaErrorPeerAccessUnsupported, "peer access is not supported between these two devices"),
    SIMT_ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    SIMT_ERROR(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    SIMT_ERROR(cudaErrorNotReady, "device not ready"),
    SIMT_ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    SIMT_ERROR(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    SIMT_ERROR(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
    SIMT_ERROR(cudaErrorPeerAccessAlreadyEnabled, "peer access is already enabled"),
    SIMT_ERROR(cudaErrorPeerAccessNotEnabled, "peer access has not been enabled"),
    SIMT_ERROR(cudaErrorAssert, "device-side assert triggered"),
    SIMT_ERROR(cudaErrorHostMemoryAlreadyRegistered, "part or all of the requested memory range is already mapped"),
    SIMT_ERROR(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory region"),
    SIMT_ERROR(cudaErrorMisalignedAddress, "misaligned address"),
    SIMT_ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    SIMT_ERROR(cudaErrorNotPermitted, "operation not permitted"),
    SIMT_ERROR(cudaErrorNotSupported, "operation not supported"),
    SIMT_ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    SIMT_ERROR(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    SIMT_ERROR(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences"),
    SIMT_ERROR(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    SIMT_ERROR(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    SIMT_ERROR(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    SIMT_ERROR(cudaErrorStreamCaptureImplicit,
               "operation would make the legacy stream depend on a capturing blocking stream"),
    SIMT_ERROR(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream"),
    SIMT_ERROR(cudaErrorStreamCaptureWrongThread,
               "attempt to terminate a thread-local capture sequence from another thread"),
    SIMT_ERROR(cudaErrorUnknown, "unknown error"),
};
#undef SIMT_ERROR

const ErrorText* find_error(cudaError_t error) {
  const auto* found = std::ranges::find(kErrors, error, &ErrorText::error);
  return found == std::end(kErrors) ? nullptr : found;
}

}  // namespace

const char* cudaGetErrorString(cudaError_t error) {
  const ErrorText* found = find_error(error);
  return found == nullptr ? "unrecognized error code" : found->text;
}
const char* cudaGetErrorName(cudaError_t error) {
  const ErrorText* found = find_error(error);
  return found == nullptr ? "unrecognized error code" : found->name;
}
