// Memory of a CUDA device and pinned memory of the host, streams and events, each owned by one object.
// Included by cuda_* sources only.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>

#include "engine/base/result.h"
#include "engine/device/backend.h"

namespace sextant {

class CudaBuffer final : public DeviceBuffer {
 public:
  // Aligned to 256 bytes; what it holds at first is not defined.
  static Result<std::unique_ptr<CudaBuffer>> create(size_t size_bytes);
  ~CudaBuffer() override { cudaFree(data_); }
  CudaBuffer(const CudaBuffer&) = delete;
  CudaBuffer& operator=(const CudaBuffer&) = delete;

  void* data() override { return data_; }
  size_t size_bytes() const override { return size_bytes_; }

 private:
  CudaBuffer(void* data, size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}

  void* data_;
  size_t size_bytes_;
};

// Zeros, once it returns, at load: cudaMemset alone may come after what a stream of our own does next.
Status clear_device_memory(void* data, size_t size_bytes, std::string_view what);

// Page-locked host memory: copies from and to it run beside the host. Whoever writes it waits for the copy before.
class PinnedBuffer {
 public:
  static Result<std::unique_ptr<PinnedBuffer>> create(size_t size_bytes);
  ~PinnedBuffer() { cudaFreeHost(data_); }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  std::byte* data() { return static_cast<std::byte*>(data_); }
  size_t size_bytes() const { return size_bytes_; }

 private:
  PinnedBuffer(void* data, size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}

  void* data_;
  size_t size_bytes_;
};

class CudaStream {
 public:
  static Result<std::unique_ptr<CudaStream>> create();
  ~CudaStream() { cudaStreamDestroy(stream_); }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  explicit CudaStream(cudaStream_t stream) : stream_(stream) {}
  cudaStream_t stream_;
};

// Without timing: the cheap kind; with it, the device's clock when the work before it was done.
class CudaEvent {
 public:
  static Result<std::unique_ptr<CudaEvent>> create(bool with_timing = false);
  ~CudaEvent() { cudaEventDestroy(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  Status record(cudaStream_t stream);
  Status wait();  // at once when it was never recorded
  // From `begin` to this one; both with timing, recorded and passed.
  Result<double> seconds_since(const CudaEvent& begin) const;

 private:
  explicit CudaEvent(cudaEvent_t event) : event_(event) {}
  cudaEvent_t event_;
};

}  // namespace sextant
