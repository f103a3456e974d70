// The emulated CUDA runtime, as its shadow headers, the library shadows and tests see it: the machine that is emulated, the
// order in which work runs, and doors into streams. Work runs late: when somebody synchronises, queries, or thousands of
// pieces wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "kernels/simt/block_run.h"
#include "kernels/simt/device_memory.h"

namespace sextant::simt {

// What a device refuses. Sources: CUDA C++ Programming Guide, "Compute Capabilities"; data sheets.
struct DeviceProfile {
  const char* name;
  int major;
  int minor;
  int num_multiprocessors;
  size_t shared_per_block_opt_in_bytes;
  size_t shared_per_multiprocessor_bytes;
  int l2_bytes;
  int memory_bus_bits;
  int clock_khz;
  int memory_clock_khz;
};
const DeviceProfile& profile_sm_80();  // A100
const DeviceProfile& profile_sm_89();  // L40S
const DeviceProfile& profile_sm_90();  // H100

struct Machine {
  DeviceProfile profile = profile_sm_80();
  int num_devices = 1;
  size_t memory_bytes = size_t{2} << 30;  // of each device
  Protection protection = Protection::kCheap;
  int driver_version =
      0;  // 0: the one that this runtime was made for; -1: no driver; else as cudaDriverGetVersion says it
};
// The environment: SEXTANT_SIMT_PROFILE (sm_80, sm_89, sm_90), SEXTANT_SIMT_DEVICES, SEXTANT_SIMT_MEMORY_BYTES,
// SEXTANT_SIMT_PROTECTION (off, cheap, always). A value that is none of these ends the process.
Machine machine_from_environment();
// Another machine, with nothing allocated, queued or failed. Every handle and device pointer of before is invalid. For tests.
void set_machine(const Machine& machine);

// How launches pick the next thread of a block, the order of blocks and of streams: 0 as enqueued, else drawn from this
// seed. Default: the environment variable SEXTANT_SIMT_SEED, else 0.
void set_seed(uint64_t seed);
// Stand-ins for the kernels before and after one that was launched with programmatic dependent launch, which here run one after
// the other. `at_wait` takes place when all threads of a block have come to grid_dependency_wait(): what they read before is
// what the kernel before had not written yet. `at_launch` likewise at grid_dependency_launch(), from where on the kernel after may
// run beside this one. Each once per block. For tests of kernels, which set them while nothing runs, and set them back.
struct DependencyEffects {
  std::function<void()> at_wait;
  std::function<void()> at_launch;
};
void set_dependency_effects(DependencyEffects effects);

// The last violation that work was ended for, with kernel, block and thread; empty when there was none since set_machine or
// cudaDeviceReset.
std::string last_report();

// One kernel launch: `body` is the kernel with its arguments bound.
int enqueue_launch(const void* kernel, Dim3 grid, Dim3 block, size_t dynamic_shared_bytes, void* stream,
                   std::function<void()> body);
int set_function_attribute(const void* kernel, int attribute, int value);

// Device code's side of them.
void wait_for_previous_grid();
void launch_next_grid();

// Work of a library shadow (cuBLASLt, NCCL) as one node of the stream: ordered after what the stream holds, captured into a
// graph when the stream captures, and allowed to touch memory of the stream's device while it runs. `work` may run many times
// (a graph's replay), so it owns copies of its arguments. Returns a cudaError_t.
int enqueue_host_work(void* stream, const char* name, std::function<void()> work);

}  // namespace sextant::simt
