// The CUDA API: streams, events, host functions, synchronisation.
#include <memory>

#include "kernels/simt/progress.h"
#include "kernels/simt/runtime_state.h"

using sextant::simt::Outcome;
using sextant::simt::Runtime;
using sextant::simt::t_device;
using sextant::simt::Work;
using sextant::simt::WorkPtr;

namespace {

constexpr int kGreatestPriority = -5;

// What ends a query: nothing is left before `item`. A query lets one piece of work run, so that polling ends.
cudaError_t query(Runtime& runtime, sextant::simt::Executor::Lock& lock, const WorkPtr& item) {
  if (item != nullptr && !item->done) runtime.executor().drive_one(lock);
  if (item != nullptr && !item->done) return cudaErrorNotReady;
  return static_cast<cudaError_t>(runtime.current_device().sticky.load());
}

Work marker(const char* name, int device) { return {.name = name, .device = device, .devices = 0}; }

}  // namespace

cudaError_t cudaDeviceSynchronize() {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  auto lock = runtime.executor().lock();
  if (const cudaError_t error = runtime.refuse_in_capture(nullptr); error != cudaSuccess)
    return runtime.remember(error);
  sextant::simt::Device& device = runtime.current_device();
  if (!runtime.executor().drive_device(lock, device.id)) return runtime.remember(runtime.report_stuck(device.id));
  return runtime.remember(static_cast<cudaError_t>(device.sticky.load()));
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  if (stream == nullptr || flags > cudaStreamNonBlocking) return runtime.remember(cudaErrorInvalidValue);
  auto made = std::make_unique<CUstream_st>();
  made->device = t_device;
  made->flags = flags;
  made->priority = priority < kGreatestPriority ? kGreatestPriority : priority > 0 ? 0 : priority;
  const auto lock = runtime.executor().lock();
  *stream = made.get();
  runtime.streams.insert(made.release());
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = kGreatestPriority;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Runtime& runtime = Runtime::instance();
  const auto lock = runtime.executor().lock();
  if (!runtime.streams.contains(stream)) return runtime.remember(cudaErrorInvalidResourceHandle);
  if (stream->capture != nullptr) stream->capture->invalid = true;
  if (stream->capture != nullptr && stream->capture->origin == stream) runtime.end_capture(stream->capture);
  // What it holds runs all the same; a blocking stream's rest is kept before the legacy stream's next work.
  if ((stream->flags & cudaStreamNonBlocking) == 0 && stream->last != nullptr && !stream->last->done) {
    CUstream_st& legacy = runtime.device(stream->device).legacy;
    legacy.last = runtime.executor().add(std::make_shared<Work>(marker("end of a stream", stream->device)), &legacy,
                                         {legacy.last, stream->last});
  }
  runtime.streams.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  auto lock = runtime.executor().lock();
  CUstream_st* stream = runtime.find(handle);
  if (stream == nullptr) return runtime.remember(cudaErrorInvalidResourceHandle);
  if (const cudaError_t error = runtime.refuse_in_capture(stream); error != cudaSuccess) return runtime.remember(error);
  if (stream->legacy) {
    if (const cudaError_t error = runtime.refuse_in_capture(nullptr); error != cudaSuccess)
      return runtime.remember(error);
  }
  return runtime.remember(runtime.wait(lock, runtime.tail(*stream), stream->device));
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  auto lock = runtime.executor().lock();
  CUstream_st* stream = runtime.find(handle);
  if (stream == nullptr) return runtime.remember(cudaErrorInvalidResourceHandle);
  if (const cudaError_t error = runtime.refuse_in_capture(stream); error != cudaSuccess) return runtime.remember(error);
  return runtime.remember(query(runtime, lock, runtime.tail(*stream)));
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  if (function == nullptr) return runtime.remember(cudaErrorInvalidValue);
  auto lock = runtime.executor().lock();
  CUstream_st* stream = runtime.find(handle);
  if (stream == nullptr) return runtime.remember(cudaErrorInvalidResourceHandle);
  Work work{.name = "host function", .device = stream->device, .devices = 0, .is_host_function = true};
  work.run = [function, data] {
    function(data);
    return Outcome{};
  };
  const cudaError_t error = runtime.enqueue(lock, *stream, std::move(work));
  lock.unlock();
  sextant::simt::ensure_progress();
  return runtime.remember(error);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  if (event == nullptr || (flags & ~(cudaEventBlockingSync | cudaEventDisableTiming)) != 0) {
    return runtime.remember(cudaErrorInvalidValue);
  }
  auto made = std::make_unique<CUevent_st>();
  made->device = t_device;
  made->flags = flags;
  const auto lock = runtime.executor().lock();
  *event = made.get();
  runtime.events.insert(made.release());
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  Runtime& runtime = Runtime::instance();
  const auto lock = runtime.executor().lock();
  if (!runtime.is_event(event)) return runtime.remember(cudaErrorInvalidResourceHandle);
  runtime.events.erase(event);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  auto lock = runtime.executor().lock();
  CUstream_st* stream = runtime.find(handle);
  if (stream == nullptr || !runtime.is_event(event) || event->device != stream->device) {
    return runtime.remember(cudaErrorInvalidResourceHandle);
  }
  if (stream->capture != nullptr) {
    if (stream->capture->invalid) return runtime.remember(cudaErrorStreamCaptureInvalidated);
    event->capture = stream->capture;
    event->tips = stream->tips;
    return cudaSuccess;
  }
  WorkPtr item;
  const cudaError_t error = runtime.enqueue(lock, *stream, marker("event", stream->device), &item);
  if (error != cudaSuccess) return runtime.remember(error);
  event->capture = nullptr;
  event->record = item;
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned flags) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  auto lock = runtime.executor().lock();
  CUstream_st* stream = runtime.find(handle);
  if (stream == nullptr || !runtime.is_event(event)) return runtime.remember(cudaErrorInvalidResourceHandle);
  if (flags != 0) return runtime.remember(cudaErrorInvalidValue);
  if (event->capture != nullptr) return runtime.remember(runtime.join_capture(*stream, *event));
  if (stream->capture != nullptr) {  // what happened before the capture cannot be waited for in each replay
    stream->capture->invalid = true;
    return runtime.remember(cudaErrorStreamCaptureIsolation);
  }
  if (event->record == nullptr || event->record->done) return cudaSuccess;
  runtime.append(*stream, std::make_shared<Work>(marker("wait for an event", stream->device)), {event->record});
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  auto lock = runtime.executor().lock();
  if (!runtime.is_event(event)) return runtime.remember(cudaErrorInvalidResourceHandle);
  if (event->capture != nullptr) {
    event->capture->invalid = true;
    return runtime.remember(cudaErrorCapturedEvent);
  }
  return runtime.remember(runtime.wait(lock, event->record, event->device));
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  auto lock = runtime.executor().lock();
  if (!runtime.is_event(event)) return runtime.remember(cudaErrorInvalidResourceHandle);
  if (event->capture != nullptr) {
    event->capture->invalid = true;
    return runtime.remember(cudaErrorCapturedEvent);
  }
  if (const cudaError_t error = runtime.refuse_in_capture(nullptr); error != cudaSuccess)
    return runtime.remember(error);
  return runtime.remember(query(runtime, lock, event->record));
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  Runtime& runtime = Runtime::instance();
  if (const cudaError_t error = runtime.entry(); error != cudaSuccess) return runtime.remember(error);
  const auto lock = runtime.executor().lock();
  if (milliseconds == nullptr) return runtime.remember(cudaErrorInvalidValue);
  if (!runtime.is_event(begin) || !runtime.is_event(end) || begin->record == nullptr || end->record == nullptr ||
      ((begin->flags | end->flags) & cudaEventDisableTiming) != 0) {
    return runtime.remember(cudaErrorInvalidResourceHandle);
  }
  if (!begin->record->done || !end->record->done) return cudaErrorNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(end->record->finished - begin->record->finished).count();
  return cudaSuccess;
}
