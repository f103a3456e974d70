#include "engine/device/cuda_memory.h"

#include <algorithm>
#include <string>

#include "engine/device/cuda_status.h"

namespace sextant {

Status cuda_status(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return ok_status();
  return {StatusCode::kDeviceError, std::string(what) + ": " + cudaGetErrorString(error) + " (CUDA error " +
                                        std::to_string(static_cast<int>(error)) + ")"};
}

Result<std::unique_ptr<CudaBuffer>> CudaBuffer::create(size_t size_bytes) {
  void* data = nullptr;
  if (const cudaError_t error = cudaMalloc(&data, std::max<size_t>(size_bytes, 1)); error != cudaSuccess) {
    cudaGetLastError();  // not sticky
    return cuda_status(error, "allocating " + std::to_string(size_bytes) + " bytes of device memory");
  }
  return std::unique_ptr<CudaBuffer>(new CudaBuffer(data, size_bytes));
}

Status clear_device_memory(void* data, size_t size_bytes, std::string_view what) {
  RETURN_IF_CUDA_ERROR(cudaMemset(data, 0, size_bytes), what);
  return cuda_status(cudaDeviceSynchronize(), what);
}

Result<std::unique_ptr<PinnedBuffer>> PinnedBuffer::create(size_t size_bytes) {
  void* data = nullptr;
  if (const cudaError_t error = cudaMallocHost(&data, std::max<size_t>(size_bytes, 1)); error != cudaSuccess) {
    cudaGetLastError();
    return cuda_status(error, "allocating " + std::to_string(size_bytes) + " bytes of page-locked memory");
  }
  return std::unique_ptr<PinnedBuffer>(new PinnedBuffer(data, size_bytes));
}

Result<std::unique_ptr<CudaStream>> CudaStream::create() {
  cudaStream_t stream = nullptr;
  RETURN_IF_CUDA_ERROR(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
  return std::unique_ptr<CudaStream>(new CudaStream(stream));
}

Result<std::unique_ptr<CudaEvent>> CudaEvent::create(bool with_timing) {
  cudaEvent_t event = nullptr;
  RETURN_IF_CUDA_ERROR(cudaEventCreateWithFlags(&event, with_timing ? cudaEventDefault : cudaEventDisableTiming),
                       "creating an event");
  return std::unique_ptr<CudaEvent>(new CudaEvent(event));
}

Status CudaEvent::record(cudaStream_t stream) {
  return cuda_status(cudaEventRecord(event_, stream), "recording an event");
}
Result<double> CudaEvent::seconds_since(const CudaEvent& begin) const {
  float ms = 0;
  RETURN_IF_CUDA_ERROR(cudaEventElapsedTime(&ms, begin.event_, event_), "reading the device's clock");
  return static_cast<double>(ms) * 1e-3;
}
Status CudaEvent::wait() { return cuda_status(cudaEventSynchronize(event_), "waiting for the device"); }

}  // namespace sextant
