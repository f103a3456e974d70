// The CUDA API: stream capture and graphs.
#include <algorithm>
#include <memory>

#include "kernels/simt/runtime_state.h"

using sextant::simt::Capture;
using sextant::simt::GraphNode;
using sextant::simt::Runtime;
using sextant::simt::Work;
using sextant::simt::WorkPtr;

namespace sextant::simt {

// `stream` goes on after what the event stands for; a stream that does not capture joins the event's capture.
cudaError_t Runtime::join_capture(CUstream_st& stream, const CUevent_st& event) {
  const bool active = std::ranges::find(captures, event.capture) != captures.end();
  if (!active) return cudaErrorCapturedEvent;
  if (event.capture->invalid) return cudaErrorStreamCaptureInvalidated;
  if (stream.legacy) {
    event.capture->invalid = true;
    return cudaErrorStreamCaptureImplicit;
  }
  if (stream.capture != nullptr && stream.capture != event.capture) {
    stream.capture->invalid = true;
    event.capture->invalid = true;
    return cudaErrorStreamCaptureMerge;
  }
  if (stream.capture == nullptr) {
    stream.capture = event.capture;
    stream.capture->streams.push_back(&stream);
  }
  for (const size_t tip : event.tips) {
    if (std::ranges::find(stream.tips, tip) == stream.tips.end()) stream.tips.push_back(tip);
  }
  return cudaSuccess;
}

}  // namespace sextant::simt

namespace {

// Whether all nodes come before (or are) one of `tips`: what streams that joined did must have joined back.
bool all_lead_to(const std::vector<GraphNode>& nodes, const std::vector<size_t>& tips) {
  std::vector<bool> reached(nodes.size());
  for (const size_t tip : tips) reached[tip] = true;
  for (size_t i = nodes.size(); i-- > 0;) {
    if (!reached[i]) return false;
    for (const size_t before : nodes[i].after) reached[before] = true;
  }
  return true;
}

}  // namespace

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  const auto lock = runtime.executor().lock();
  CUstream_st* stream = runtime.find(handle);
  if (stream == nullptr) return runtime.remember(cudaErrorInvalidResourceHandle);
  if (stream->legacy) return runtime.remember(cudaErrorStreamCaptureUnsupported);
  if (stream->capture != nullptr) return runtime.remember(cudaErrorIllegalState);
  auto capture = std::make_shared<Capture>();
  capture->origin = stream;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->streams = {stream};
  stream->capture = capture;
  stream->tips.clear();
  runtime.captures.push_back(std::move(capture));
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  Runtime& runtime = Runtime::instance();
  if (graph == nullptr) return runtime.remember(cudaErrorInvalidValue);
  *graph = nullptr;
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  const auto lock = runtime.executor().lock();
  CUstream_st* stream = runtime.find(handle);
  if (stream == nullptr) return runtime.remember(cudaErrorInvalidResourceHandle);
  if (stream->capture == nullptr) return runtime.remember(cudaErrorIllegalState);
  const std::shared_ptr<Capture> capture = stream->capture;
  if (capture->origin != stream) {
    capture->invalid = true;
    return runtime.remember(cudaErrorStreamCaptureUnmatched);
  }
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id()) {
    return runtime.remember(cudaErrorStreamCaptureWrongThread);
  }
  const bool joined = all_lead_to(capture->nodes, stream->tips);
  runtime.end_capture(capture);
  if (capture->invalid) return runtime.remember(cudaErrorStreamCaptureInvalidated);
  if (!joined) return runtime.remember(cudaErrorStreamCaptureUnjoined);
  auto made = std::make_unique<CUgraph_st>();
  made->nodes = std::move(capture->nodes);
  for (size_t i = 0; i < made->nodes.size(); ++i) made->handles.push_back({i});
  *graph = made.get();
  runtime.graphs.insert(made.release());
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  const auto lock = runtime.executor().lock();
  const CUstream_st* stream = runtime.find(handle);
  if (stream == nullptr) return runtime.remember(cudaErrorInvalidResourceHandle);
  *status = stream->capture == nullptr ? cudaStreamCaptureStatusNone
            : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                       : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, sextant::simt::t_capture_mode);
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  Runtime& runtime = Runtime::instance();
  const auto lock = runtime.executor().lock();
  if (!runtime.graphs.contains(graph) || count == nullptr) return runtime.remember(cudaErrorInvalidValue);
  if (nodes != nullptr) {
    *count = std::min(*count, graph->handles.size());
    for (size_t i = 0; i < *count; ++i) nodes[i] = &graph->handles[i];
  } else {
    *count = graph->handles.size();
  }
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  const auto lock = runtime.executor().lock();
  if (exec == nullptr || !runtime.graphs.contains(graph) || flags != 0) return runtime.remember(cudaErrorInvalidValue);
  auto made = std::make_unique<CUgraphExec_st>();
  made->nodes = graph->nodes;
  *exec = made.get();
  runtime.execs.insert(made.release());
  return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t handle) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  const auto lock = runtime.executor().lock();
  if (!runtime.execs.contains(exec)) return runtime.remember(cudaErrorInvalidValue);
  return runtime.remember(runtime.find(handle) == nullptr ? cudaErrorInvalidResourceHandle : cudaSuccess);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  auto lock = runtime.executor().lock();
  if (!runtime.execs.contains(exec)) return runtime.remember(cudaErrorInvalidValue);
  CUstream_st* stream = runtime.find(handle);
  if (stream == nullptr) return runtime.remember(cudaErrorInvalidResourceHandle);
  if (stream->capture != nullptr) {  // becomes part of the other graph
    Capture& capture = *stream->capture;
    if (capture.invalid) return runtime.remember(cudaErrorStreamCaptureInvalidated);
    const size_t first = capture.nodes.size();
    for (const GraphNode& node : exec->nodes) {
      GraphNode copy{node.work, {}};
      for (const size_t before : node.after) copy.after.push_back(first + before);
      if (node.after.empty()) copy.after = stream->tips;
      capture.nodes.push_back(std::move(copy));
    }
    std::vector<size_t> tips;
    for (size_t i = first; i < capture.nodes.size(); ++i) tips.push_back(i);
    if (!tips.empty()) stream->tips = std::move(tips);
    return cudaSuccess;
  }
  WorkPtr begun;
  const cudaError_t error =
      runtime.enqueue(lock, *stream, {.name = "graph", .device = stream->device, .devices = 0}, &begun);
  if (error != cudaSuccess) return runtime.remember(error);
  // Every node on a lane of its own, so that only the graph's edges order them.
  std::vector<WorkPtr> items;
  items.reserve(exec->nodes.size());
  std::vector<WorkPtr> after;
  for (const GraphNode& node : exec->nodes) {
    after.clear();
    for (const size_t before : node.after) after.push_back(items[before]);
    if (after.empty()) after = {begun, exec->last};
    items.push_back(runtime.executor().add(node.work, &node, after));
  }
  Work end{.name = "end of a graph", .device = stream->device, .devices = 0};
  exec->last = runtime.append(*stream, std::make_shared<Work>(std::move(end)), std::move(items));
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  Runtime& runtime = Runtime::instance();
  const auto lock = runtime.executor().lock();
  if (!runtime.execs.contains(exec)) return runtime.remember(cudaErrorInvalidValue);
  runtime.execs.erase(exec);
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  Runtime& runtime = Runtime::instance();
  const auto lock = runtime.executor().lock();
  if (!runtime.graphs.contains(graph)) return runtime.remember(cudaErrorInvalidValue);
  runtime.graphs.erase(graph);
  delete graph;
  return cudaSuccess;
}
