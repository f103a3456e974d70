// Kernel launches: what the device profile refuses, and the work that a launch becomes.
#include <cuda_runtime.h>

#include <utility>

#include "kernels/simt/block_run.h"
#include "kernels/simt/kernel_name.h"
#include "kernels/simt/runtime_state.h"
#include "kernels/simt/worker_pool.h"

namespace sextant::simt {
namespace {

constexpr size_t kSharedWithoutOptIn = size_t{48} << 10;

int error_of(BlockRun::Violation violation) {
  switch (violation) {
    case BlockRun::Violation::kNone: return cudaSuccess;
    case BlockRun::Violation::kRule: return cudaErrorLaunchFailure;
    case BlockRun::Violation::kAddress: return cudaErrorIllegalAddress;
    case BlockRun::Violation::kAlignment: return cudaErrorMisalignedAddress;
    case BlockRun::Violation::kResources: return cudaErrorLaunchOutOfResources;
  }
  return cudaErrorLaunchFailure;
}

cudaError_t check_shape(const Dim3& grid, const Dim3& block) {
  if (grid.count() == 0 || block.count() == 0 || block.count() > 1024 || block.x > 1024 || block.y > 1024 ||
      block.z > 64 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    return cudaErrorInvalidConfiguration;
  }
  return cudaSuccess;
}

cudaError_t launch(const void* kernel, Dim3 grid, Dim3 block, size_t dynamic_bytes, cudaStream_t handle,
                   std::function<void()> body) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return error;
  if (const cudaError_t error = check_shape(grid, block); error != cudaSuccess) return error;
  auto lock = runtime.executor().lock();
  CUstream_st* stream = runtime.find(handle);
  // A launch goes to the current device.
  if (stream == nullptr || stream->device != t_device) return cudaErrorInvalidResourceHandle;
  const auto opted = runtime.opted_shared_bytes.find(kernel);
  const bool opts_in = opted != runtime.opted_shared_bytes.end();
  if (dynamic_bytes > (opts_in ? static_cast<size_t>(opted->second) : kSharedWithoutOptIn))
    return cudaErrorInvalidValue;
  const size_t most_bytes = opts_in ? runtime.machine().profile.shared_per_block_opt_in_bytes : kSharedWithoutOptIn;
  auto shape = std::make_shared<BlockRun::Launch>(
      BlockRun::Launch{kernel, std::move(body), grid, block, dynamic_bytes, most_bytes});
  const Device& device = runtime.current_device();
  return runtime.enqueue(lock, *stream,
                         {.name = "kernel",
                          .device = device.id,
                          .devices = device.peers | uint64_t{1} << device.id,
                          .kernel = kernel,
                          .run = [&runtime, shape = std::move(shape)] {
                            GridResult result = WorkerPool::instance().run(*shape, runtime.seed_of_launch());
                            return Outcome{error_of(result.violation), std::move(result.report)};
                          }});
}

DependencyEffects g_effects;

void at_once(const std::function<void()>& effect, const char* where) {
  if (!effect) return;
  BlockRun& block = current_block();
  block.sync_threads(where, 0);
  if (current_thread().linear == 0) effect();
  block.sync_threads(where, 0);
}

}  // namespace

void set_dependency_effects(DependencyEffects effects) { g_effects = std::move(effects); }
void wait_for_previous_grid() { at_once(g_effects.at_wait, "grid_dependency_wait"); }
void launch_next_grid() { at_once(g_effects.at_launch, "grid_dependency_launch"); }

int enqueue_launch(const void* kernel, Dim3 grid, Dim3 block, size_t dynamic_shared_bytes, void* stream,
                   std::function<void()> body) {
  return Runtime::instance().remember(
      launch(kernel, grid, block, dynamic_shared_bytes, static_cast<cudaStream_t>(stream), std::move(body)));
}

int set_function_attribute(const void* kernel, int attribute, int value) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) {
    return value < -1 || value > 100 ? runtime.remember(cudaErrorInvalidValue) : cudaSuccess;
  }
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      static_cast<size_t>(value) > runtime.machine().profile.shared_per_block_opt_in_bytes) {
    return runtime.remember(cudaErrorInvalidValue);
  }
  const auto lock = runtime.executor().lock();
  runtime.opted_shared_bytes[kernel] = value;
  return cudaSuccess;
}

int enqueue_host_work(void* handle, const char* name, std::function<void()> work) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  auto lock = runtime.executor().lock();
  CUstream_st* stream = runtime.find(static_cast<cudaStream_t>(handle));
  if (stream == nullptr) return runtime.remember(cudaErrorInvalidResourceHandle);
  const Device& device = runtime.device(stream->device);
  return runtime.remember(runtime.enqueue(lock, *stream,
                                          {.name = name,
                                           .device = device.id,
                                           .devices = device.peers | uint64_t{1} << device.id,
                                           .run = [work = std::move(work)] {
                                             work();
                                             return Outcome{};
                                           }}));
}

}  // namespace sextant::simt
