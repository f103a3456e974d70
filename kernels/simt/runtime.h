// The emulated CUDA runtime: devices, memory, streams. What the host-side API of the shadow headers stands on.
// First form: everything runs at once, on the calling thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "kernels/simt/block_run.h"

namespace sextant::simt {

// How launches pick the next thread of a block: 0 in the order of indices, else drawn from this seed. Default: the
// environment variable SEXTANT_SIMT_SEED, else 0.
void set_seed(uint64_t seed);
// The last violation that a kernel was ended for, with kernel, block and thread; empty when there was none.
std::string last_report();

// One kernel launch: `body` is the kernel with its arguments bound.
int enqueue_launch(const void* kernel, Dim3 grid, Dim3 block, size_t dynamic_shared_bytes, void* stream,
                   std::function<void()> body);
int set_max_dynamic_shared(const void* kernel, int bytes);

// Work of a library shadow (cuBLASLt, NCCL) as one node of the stream: ordered after what the stream holds, captured into a
// graph when the stream captures, and allowed to touch memory of the stream's device while it runs. `work` may run many times
// (a graph's replay), so it owns copies of its arguments. Returns a cudaError_t.
int enqueue_host_work(void* stream, const char* name, std::function<void()> work);

}  // namespace sextant::simt
