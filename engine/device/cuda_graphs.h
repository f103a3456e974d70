// Steps recorded as CUDA graphs and replayed: one launch instead of hundreds. Whoever records promises that every call of
// the recorded ops has the same arguments for each step of the same key; only the contents of device memory change.
// Thread: the backend's.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <map>

#include "engine/base/status.h"

namespace sextant {

class CudaGraphs {
 public:
  CudaGraphs() = default;
  ~CudaGraphs();
  CudaGraphs(const CudaGraphs&) = delete;
  CudaGraphs& operator=(const CudaGraphs&) = delete;

  // Records what `ops` enqueues on `stream`, without running it; nothing when `key` is known.
  Status record(int64_t key, cudaStream_t stream, const std::function<void()>& ops);
  // Replays the graph of `key` on `stream`, recording it first out of what `ops` enqueues there.
  Status run(int64_t key, cudaStream_t stream, const std::function<void()>& ops);
  size_t num_recorded() const { return graphs_.size(); }

 private:
  std::map<int64_t, cudaGraphExec_t> graphs_;
};

}  // namespace sextant
