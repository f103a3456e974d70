#include "kernels/simt/runtime.h"

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

namespace sextant::simt {
namespace {

uint64_t initial_seed() {
  const char* text = std::getenv("SEXTANT_SIMT_SEED");
  return text == nullptr ? 0 : std::strtoull(text, nullptr, 10);
}

uint64_t g_seed = initial_seed();
std::string g_report;
cudaError_t g_error = cudaSuccess;
std::map<const void*, int> g_max_dynamic_shared;

}  // namespace

void set_seed(uint64_t seed) { g_seed = seed; }
std::string last_report() { return g_report; }
int set_max_dynamic_shared(const void* kernel, int bytes) {
  if (bytes > (163 << 10)) return cudaErrorInvalidValue;
  g_max_dynamic_shared[kernel] = bytes;
  return cudaSuccess;
}

int enqueue_launch(const void* kernel, Dim3 grid, Dim3 block, size_t dynamic_shared_bytes, void*,
                   std::function<void()> body) {
  static BlockRun run;
  if (grid.count() == 0 || block.count() == 0 || block.count() > 1024) return cudaErrorInvalidConfiguration;
  const auto opted = g_max_dynamic_shared.find(kernel);
  const size_t limit = opted == g_max_dynamic_shared.end() ? 48 << 10 : static_cast<size_t>(opted->second);
  if (dynamic_shared_bytes > limit) return cudaErrorInvalidValue;
  BlockRun::Launch launch{"kernel", std::move(body),      grid,
                          block,    dynamic_shared_bytes, std::max(limit, size_t{48} << 10)};
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        g_report = run.run(launch, {x, y, z}, g_seed == 0 ? 0 : g_seed + 0x9E3779B97F4A7C15u * (x + 1));
        if (!g_report.empty()) {
          std::fprintf(stderr, "simt: %s\n", g_report.c_str());
          g_error = cudaErrorLaunchFailure;
          return cudaSuccess;  // seen at the next synchronisation
        }
      }
    }
  }
  return cudaSuccess;
}

int enqueue_host_work(void*, const char*, std::function<void()> work) {
  work();
  return cudaSuccess;
}

}  // namespace sextant::simt

using sextant::simt::g_error;

cudaError_t cudaMalloc(void** p, size_t bytes) {
  *p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return *p == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  std::memcpy(to, from, bytes);
  return g_error;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return g_error;
}
cudaError_t cudaMemset(void* p, int value, size_t bytes) {
  std::memset(p, value, bytes);
  return g_error;
}
cudaError_t cudaDeviceSynchronize() { return g_error; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return g_error; }
cudaError_t cudaGetLastError() { return g_error; }
const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : "error"; }
