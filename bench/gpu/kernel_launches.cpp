// Prints as JSON what each case of kernel_cases.h launches: kernels by their mangled names, grid, block and shared memory.
// Needs no device: this program stands in for the few entries of the CUDA runtime that launchers call, takes the names
// from the registration that nvcc's host code does at start, and writes down what would have been launched. The static
// gates and the table of roofs join it with what the cubins say.
//   kernel_launches          the standard shape
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "bench/gpu/kernel_cases.h"

namespace {

struct RecordedLaunch {
  const void* kernel;
  dim3 grid;
  dim3 block;
  size_t dynamic_shared_bytes;
};

std::map<const void*, const char*>& kernel_names() {  // filled before main
  static std::map<const void*, const char*> names;
  return names;
}
std::vector<RecordedLaunch> recorded;
std::map<const void*, int> opted_in_bytes;

// Addresses that are aligned as cudaMalloc's and never read.
class NoMemory : public sextant::bench::CaseMemory {
 public:
  void* allocate(int64_t bytes, sextant::bench::Content) override {
    next_ += static_cast<uintptr_t>((bytes + 255) / 256 * 256 + 256);
    return reinterpret_cast<void*>(next_);
  }
  void* upload(const void*, int64_t bytes) override { return allocate(bytes, sextant::bench::Content::kZeros); }

 private:
  uintptr_t next_ = uintptr_t{1} << 40;
};

}  // namespace

// The entries of libcudart that kernels/cuda reaches; the executable's definitions come before the library's.
extern "C" {
void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host_function, char*, const char* name, int, void*, void*, void*, void*,
                            int*) {
  kernel_names()[host_function] = name;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void**) {
  recorded.push_back({kernel, config->gridDim, config->blockDim, config->dynamicSmemBytes});
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) opted_in_bytes[kernel] = value;
  return cudaSuccess;
}
}

int main() {
  const sextant::bench::ModelShape shape = sextant::bench::llama_8b_shape();
  nlohmann::json out = {{"shape", shape.name}, {"cases", nlohmann::json::array()}};
  for (const auto& kernel_case : sextant::bench::kernel_cases(shape)) {
    NoMemory memory;
    recorded.clear();
    const int error = kernel_case.prepare(memory)(nullptr);
    if (error != 0 || recorded.empty()) {
      std::fprintf(stderr, "%s: error %d, %zu launches\n", kernel_case.name().c_str(), error, recorded.size());
      return 1;
    }
    nlohmann::json launches = nlohmann::json::array();
    for (const RecordedLaunch& launch : recorded) {
      const auto name = kernel_names().find(launch.kernel);
      if (name == kernel_names().end()) {
        std::fprintf(stderr, "%s launches a kernel that was never registered\n", kernel_case.name().c_str());
        return 1;
      }
      launches.push_back({{"kernel", name->second},
                          {"grid", {launch.grid.x, launch.grid.y, launch.grid.z}},
                          {"threads", launch.block.x * launch.block.y * launch.block.z},
                          {"dynamic_shared_bytes", launch.dynamic_shared_bytes},
                          {"opted_in_bytes", opted_in_bytes[launch.kernel]}});
    }
    out["cases"].push_back({{"op", kernel_case.op},
                            {"shape", kernel_case.shape},
                            {"bytes", kernel_case.bytes},
                            {"flops", kernel_case.flops},
                            {"is_measured", kernel_case.is_measured},
                            {"launches", launches}});
  }
  std::printf("%s\n", out.dump(1).c_str());
  return 0;
}
