// The CUDA API: device memory, page-locked memory, copies.
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/simt/runtime_state.h"

using sextant::simt::Device;
using sextant::simt::Outcome;
using sextant::simt::Runtime;
using sextant::simt::t_device;
using sextant::simt::Work;
using sextant::simt::WorkPtr;

namespace {

struct Copy {
  std::byte* to;
  size_t to_pitch;
  const std::byte* from;
  size_t from_pitch;
  size_t width;
  size_t height;
  size_t to_span() const { return height == 0 ? 0 : (height - 1) * to_pitch + width; }
  size_t from_span() const { return height == 0 ? 0 : (height - 1) * from_pitch + width; }
  void run() const {
    for (size_t y = 0; y < height; ++y) std::memmove(to + y * to_pitch, from + y * from_pitch, width);
  }
};

enum class Side : uint8_t { kDevice, kPinned, kPageable };
struct Place {
  Side side = Side::kPageable;
  Device* device = nullptr;
  bool inside = true;  // of one allocation
};
Place place_of(Runtime& runtime, const void* p, size_t bytes) {
  if (Device* device = runtime.device_of(p)) return {Side::kDevice, device, device->memory.holds(p, bytes)};
  if (runtime.pinned().touches(p)) return {Side::kPinned, nullptr, runtime.pinned().holds(p, bytes)};
  return {};
}

bool direction_fits(cudaMemcpyKind kind, const Place& to, const Place& from) {
  const bool to_device = to.side == Side::kDevice;
  const bool from_device = from.side == Side::kDevice;
  switch (kind) {
    case cudaMemcpyHostToHost: return !to_device && !from_device;
    case cudaMemcpyHostToDevice: return to_device && !from_device;
    case cudaMemcpyDeviceToHost: return !to_device && from_device;
    case cudaMemcpyDeviceToDevice: return to_device && from_device;
    case cudaMemcpyDefault: return true;
  }
  return false;
}

uint64_t bit_of(const Place& place) { return place.device == nullptr ? 0 : uint64_t{1} << place.device->id; }

cudaError_t copy(Copy what, cudaMemcpyKind kind, cudaStream_t handle, bool synchronous) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return error;
  auto lock = runtime.executor().lock();
  if (synchronous) {
    if (const cudaError_t error = runtime.refuse_in_capture(nullptr); error != cudaSuccess) return error;
  }
  CUstream_st* stream = runtime.find(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (what.width == 0 || what.height == 0) return cudaSuccess;
  if (what.to == nullptr || what.from == nullptr || what.to_pitch < what.width || what.from_pitch < what.width) {
    return cudaErrorInvalidValue;
  }
  const Place to = place_of(runtime, what.to, what.to_span());
  const Place from = place_of(runtime, what.from, what.from_span());
  if (!direction_fits(kind, to, from)) return cudaErrorInvalidMemcpyDirection;
  if (!to.inside || !from.inside) return cudaErrorInvalidValue;
  const bool pageable = to.side == Side::kPageable || from.side == Side::kPageable;
  if (stream->capture != nullptr && pageable) return runtime.refuse_in_capture(stream);
  Work work{.name = "copy", .device = stream->device, .devices = bit_of(to) | bit_of(from)};
  if (from.side == Side::kPageable && to.side == Side::kDevice && !synchronous) {
    // Taken at the call: the caller may reuse its buffer at once.
    auto staged = std::make_shared<std::vector<std::byte>>(what.from, what.from + what.from_span());
    work.run = [what, staged]() mutable {
      what.from = staged->data();
      what.run();
      return Outcome{};
    };
  } else {
    work.run = [what] {
      what.run();
      return Outcome{};
    };
  }
  WorkPtr item;
  const cudaError_t error = runtime.enqueue(lock, *stream, std::move(work), &item);
  // Into pageable memory the call returns after the copy.
  if (error != cudaSuccess || item == nullptr || !(synchronous || to.side == Side::kPageable)) return error;
  return runtime.wait(lock, item, stream->device);
}

cudaError_t set_bytes(void* p, int value, size_t bytes, cudaStream_t handle, bool synchronous) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return error;
  auto lock = runtime.executor().lock();
  if (synchronous) {
    if (const cudaError_t error = runtime.refuse_in_capture(nullptr); error != cudaSuccess) return error;
  }
  CUstream_st* stream = runtime.find(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (bytes == 0) return cudaSuccess;
  const Place place = place_of(runtime, p, bytes);
  if (place.side == Side::kPageable || !place.inside) return cudaErrorInvalidValue;
  // cudaMemset of device memory does not wait for it: a later call on the same or a blocking stream comes after.
  return runtime.enqueue(
      lock, *stream, {.name = "memset", .device = stream->device, .devices = bit_of(place), .run = [p, value, bytes] {
                        std::memset(p, value, bytes);
                        return Outcome{};
                      }});
}

}  // namespace

cudaError_t cudaMalloc(void** p, size_t bytes) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  if (p == nullptr) return runtime.remember(cudaErrorInvalidValue);
  *p = nullptr;
  {
    const auto lock = runtime.executor().lock();
    if (const cudaError_t error = runtime.refuse_in_capture(nullptr); error != cudaSuccess) {
      return runtime.remember(error);
    }
  }
  if (bytes == 0) return cudaSuccess;
  *p = runtime.current_device().memory.allocate(bytes);
  return runtime.remember(*p == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}

cudaError_t cudaFree(void* p) {
  Runtime& runtime = Runtime::instance();
  if (p == nullptr) return cudaSuccess;
  if (runtime.num_devices() == 0) return runtime.remember(cudaErrorNoDevice);
  Device* device = runtime.device_of(p);
  if (device == nullptr) return runtime.remember(cudaErrorInvalidValue);
  auto lock = runtime.executor().lock();
  if (const cudaError_t error = runtime.refuse_in_capture(nullptr); error != cudaSuccess)
    return runtime.remember(error);
  runtime.executor().drive_device(lock, device->id);  // freeing waits for the device
  lock.unlock();
  std::string damage;
  switch (device->memory.free(p, damage)) {
    case sextant::simt::DeviceMemory::Freed::kYes: break;
    case sextant::simt::DeviceMemory::Freed::kUnknownPointer: return runtime.remember(cudaErrorInvalidValue);
    case sextant::simt::DeviceMemory::Freed::kDamaged:
      runtime.report_violation(device->id, {cudaErrorIllegalAddress, "cudaFree: " + damage});
      break;
  }
  return runtime.remember(static_cast<cudaError_t>(device->sticky.load()));
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  const sextant::simt::DeviceMemory& memory = runtime.current_device().memory;
  *total = memory.capacity_bytes();
  *free = memory.capacity_bytes() - memory.used_bytes();
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  if (p == nullptr) return runtime.remember(cudaErrorInvalidValue);
  const auto lock = runtime.executor().lock();
  if (const cudaError_t error = runtime.refuse_in_capture(nullptr); error != cudaSuccess)
    return runtime.remember(error);
  return runtime.remember(runtime.pinned().allocate(p, bytes));
}
cudaError_t cudaMallocHost(void** p, size_t bytes, unsigned flags) { return cudaHostAlloc(p, bytes, flags); }

cudaError_t cudaFreeHost(void* p) {
  Runtime& runtime = Runtime::instance();
  if (p == nullptr) return cudaSuccess;
  auto lock = runtime.executor().lock();
  for (size_t id = 0; id < runtime.num_devices(); ++id) runtime.executor().drive_device(lock, static_cast<int>(id));
  return runtime.remember(runtime.pinned().free(p));
}

cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  return runtime.remember(runtime.pinned().add(p, bytes));
}

cudaError_t cudaHostUnregister(void* p) {
  Runtime& runtime = Runtime::instance();
  return runtime.remember(runtime.pinned().remove(p));
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  Runtime& runtime = Runtime::instance();
  if (!runtime.pinned().touches(host)) return runtime.remember(cudaErrorInvalidValue);
  *device = host;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p) {
  Runtime& runtime = Runtime::instance();
  if (attributes == nullptr) return runtime.remember(cudaErrorInvalidValue);
  *attributes = {};
  void* at = const_cast<void*>(p);
  const Device* device = runtime.device_of(p);
  if (device != nullptr && device->memory.holds(p, 1)) {
    *attributes = {cudaMemoryTypeDevice, device->id, at, nullptr};
  } else if (runtime.pinned().touches(p)) {
    *attributes = {cudaMemoryTypeHost, t_device, at, at};
  } else {
    *attributes = {cudaMemoryTypeUnregistered, -1, nullptr, at};
  }
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return Runtime::instance().remember(copy(
      {static_cast<std::byte*>(to), bytes, static_cast<const std::byte*>(from), bytes, bytes, 1}, kind, nullptr, true));
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return Runtime::instance().remember(copy(
      {static_cast<std::byte*>(to), bytes, static_cast<const std::byte*>(from), bytes, bytes, 1}, kind, stream, false));
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return Runtime::instance().remember(
      copy({static_cast<std::byte*>(to), to_pitch, static_cast<const std::byte*>(from), from_pitch, width, height},
           kind, stream, false));
}
cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes,
                                cudaStream_t stream) {
  Runtime& runtime = Runtime::instance();
  const Device* at_to = runtime.device_of(to);
  const Device* at_from = runtime.device_of(from);
  if (at_to == nullptr || at_from == nullptr || at_to->id != to_device || at_from->id != from_device) {
    return runtime.remember(cudaErrorInvalidValue);
  }
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}
cudaError_t cudaMemset(void* p, int value, size_t bytes) {
  return Runtime::instance().remember(set_bytes(p, value, bytes, nullptr, true));
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  return Runtime::instance().remember(set_bytes(p, value, bytes, stream, false));
}
