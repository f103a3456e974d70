#include "engine/device/cuda_graphs.h"

#include "engine/base/result.h"
#include "engine/device/cuda_status.h"

namespace sextant {

CudaGraphs::~CudaGraphs() {
  for (const auto& [key, graph] : graphs_) cudaGraphExecDestroy(graph);
}

Status CudaGraphs::record(int64_t key, cudaStream_t stream, const std::function<void()>& ops) {
  if (graphs_.contains(key)) return ok_status();
  RETURN_IF_CUDA_ERROR(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording a step");
  ops();
  cudaGraph_t graph = nullptr;
  RETURN_IF_CUDA_ERROR(cudaStreamEndCapture(stream, &graph), "recording a step");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  RETURN_IF_CUDA_ERROR(made, "making a graph of a recorded step");
  graphs_.emplace(key, executable);
  return ok_status();
}

Status CudaGraphs::run(int64_t key, cudaStream_t stream, const std::function<void()>& ops) {
  RETURN_IF_ERROR(record(key, stream, ops));
  return cuda_status(cudaGraphLaunch(graphs_.at(key), stream), "replaying a recorded step");
}

}  // namespace sextant
