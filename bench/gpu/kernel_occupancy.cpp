// Blocks per multiprocessor, by the toolkit's own arithmetic (cuda_occupancy.h), without a device.
// Reads lines "architecture registers static_shared dynamic_shared threads" (80 64 4096 0 512), answers each with the number
// of resident blocks and what limits it. What an architecture has: CUDA C++ Programming Guide, "Technical Specifications per
// Compute Capability"; A100 and H100.
#include <cuda_occupancy.h>

#include <cstdio>

namespace {

bool device_of(int architecture, cudaOccDeviceProp& device) {
  if (architecture != 80 && architecture != 90) return false;
  device.computeMajor = architecture / 10;
  device.computeMinor = architecture % 10;
  device.maxThreadsPerBlock = 1024;
  device.maxThreadsPerMultiprocessor = 2048;
  device.regsPerBlock = 65536;
  device.regsPerMultiprocessor = 65536;
  device.warpSize = 32;
  device.sharedMemPerBlock = 48 << 10;
  device.sharedMemPerMultiprocessor = (architecture == 80 ? 164 : 228) << 10;
  device.sharedMemPerBlockOptin = (architecture == 80 ? 163 : 227) << 10;
  device.reservedSharedMemPerBlock = 1 << 10;
  device.numSms = architecture == 80 ? 108 : 132;
  return true;
}

const char* limit_name(unsigned limits) {
  if ((limits & OCC_LIMIT_SHARED_MEMORY) != 0) return "shared memory";
  if ((limits & OCC_LIMIT_REGISTERS) != 0) return "registers";
  if ((limits & OCC_LIMIT_WARPS) != 0) return "threads";
  return "blocks";
}

}  // namespace

int main() {
  int architecture = 0, registers = 0, threads = 0;
  size_t static_bytes = 0, dynamic_bytes = 0;
  int fields = 0;
  while ((fields = std::scanf("%d %d %zu %zu %d", &architecture, &registers, &static_bytes, &dynamic_bytes,
                              &threads)) == 5) {
    cudaOccDeviceProp device;
    if (!device_of(architecture, device)) {
      std::fprintf(stderr, "architecture %d is not known here\n", architecture);
      return 2;
    }
    cudaOccFuncAttributes function;
    function.maxThreadsPerBlock = 1024;
    function.numRegs = registers;
    function.sharedSizeBytes = static_bytes;
    function.partitionedGCConfig = PARTITIONED_GC_OFF;
    function.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    function.maxDynamicSharedSizeBytes = device.sharedMemPerBlockOptin - static_bytes;
    cudaOccDeviceState state;
    state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
    cudaOccResult result;
    const cudaOccError error =
        cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &function, &state, threads, dynamic_bytes);
    if (error != CUDA_OCC_SUCCESS) {
      std::fprintf(stderr, "cuda_occupancy.h refuses: error %d\n", static_cast<int>(error));
      return 1;
    }
    std::printf("%d %s\n", result.activeBlocksPerMultiprocessor, limit_name(result.limitingFactors));
  }
  return fields == EOF ? 0 : 2;
}
