#include "kernels/simt/runtime_state.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/simt/fault_handler.h"
#include "kernels/simt/kernel_name.h"

namespace sextant::simt {

thread_local int t_device = 0;
thread_local cudaStreamCaptureMode t_capture_mode = cudaStreamCaptureModeGlobal;

namespace {

thread_local cudaError_t t_last_error = cudaSuccess;

constexpr size_t kMostPending = 16384;  // then enqueueing runs some: memory

uint64_t initial_seed() {
  const char* text = std::getenv("SEXTANT_SIMT_SEED");
  return text == nullptr ? 0 : std::strtoull(text, nullptr, 10);
}

}  // namespace

Runtime& Runtime::instance() {
  static Runtime* const runtime = new Runtime();  // never destroyed: static objects may free device memory at exit
  return *runtime;
}

Runtime::Runtime()
    : executor_({
          .open =
              [this](uint64_t ids) {
                for (auto& device : devices_) {
                  if ((ids >> device->id & 1u) == 0) device->memory.close();
                }
                for (auto& device : devices_) {
                  if ((ids >> device->id & 1u) != 0) device->memory.open();
                }
              },
          .has_failed = [this](int id) { return device(id).sticky != 0; },
          .failed = [this](int id, const Outcome& outcome) { report_violation(id, outcome); },
          .check =
              [this](const Work& work) {
                Outcome outcome;
                for (auto& device : devices_) {
                  if ((work.devices >> device->id & 1u) == 0) continue;
                  const std::string damage = device->memory.find_damage(false);
                  if (!damage.empty()) {
                    outcome.error = cudaErrorIllegalAddress;
                    outcome.report = (work.kernel == nullptr ? work.name : kernel_name(work.kernel)) + ": " + damage;
                  }
                }
                return outcome;
              },
      }) {
  install_fault_handler();
  reset(machine_from_environment());
  set_seed(initial_seed());
}

void Runtime::reset(const Machine& machine) {
  const auto lock = executor_.lock();
  executor_.forget_all();
  machine_ = machine;
  devices_.clear();
  for (int id = 0; id < machine.num_devices; ++id) devices_.push_back(std::make_unique<Device>(id, machine));
  for (cudaStream_t stream : streams) delete stream;
  for (cudaEvent_t event : events) delete event;
  for (cudaGraph_t graph : graphs) delete graph;
  for (cudaGraphExec_t exec : execs) delete exec;
  streams.clear();
  events.clear();
  graphs.clear();
  execs.clear();
  captures.clear();
  opted_shared_bytes.clear();
  t_device = 0;
  t_last_error = cudaSuccess;
  const std::lock_guard report_lock(report_mutex_);
  report_.clear();
}

Device& Runtime::current_device() { return device(t_device); }

Device* Runtime::device_of(const void* p) {
  for (auto& device : devices_) {
    if (device->memory.owns(p)) return device.get();
  }
  return nullptr;
}

cudaError_t Runtime::remember(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) t_last_error = error;
  return error;
}

cudaError_t Runtime::last_error(bool clear) {
  if (!devices_.empty() && current_device().sticky != 0) {
    return static_cast<cudaError_t>(current_device().sticky.load());
  }
  const cudaError_t error = t_last_error;
  if (clear) t_last_error = cudaSuccess;
  return error;
}

cudaError_t Runtime::entry() {
  if (devices_.empty()) return cudaErrorNoDevice;
  if (t_in_host_function) return cudaErrorNotPermitted;
  return static_cast<cudaError_t>(current_device().sticky.load());
}

void Runtime::set_seed(uint64_t seed) {
  const auto lock = executor_.lock();
  seed_ = seed;
  num_launches_ = 0;
  executor_.set_seed(seed);
}

uint64_t Runtime::seed_of_launch() {
  const uint64_t seed = seed_;
  return seed == 0 ? 0 : (seed + ++num_launches_ * 0x9E3779B97F4A7C15u) | 1;
}

std::string Runtime::report() {
  const std::lock_guard lock(report_mutex_);
  return report_;
}

void Runtime::report_violation(int id, const Outcome& outcome) {
  int none = 0;
  device(id).sticky.compare_exchange_strong(none, outcome.error);
  const std::lock_guard lock(report_mutex_);
  report_ = outcome.report;
  std::fprintf(stderr, "simt: %s (device %d, seed %llu)\n", outcome.report.c_str(), id,
               static_cast<unsigned long long>(seed_.load()));
}

CUstream_st* Runtime::find(cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy) return &current_device().legacy;
  return streams.contains(stream) ? stream : nullptr;
}

std::vector<WorkPtr> Runtime::before_next(CUstream_st& stream) {
  std::vector<WorkPtr> before{stream.last};
  // The legacy stream comes after all that other streams hold, and they after it.
  if (stream.legacy) {
    for (cudaStream_t other : streams) {
      if (other->device == stream.device && (other->flags & cudaStreamNonBlocking) == 0) before.push_back(other->last);
    }
  } else if ((stream.flags & cudaStreamNonBlocking) == 0) {
    before.push_back(device(stream.device).legacy.last);
  }
  return before;
}

WorkPtr Runtime::append(CUstream_st& stream, std::shared_ptr<const Work> work, std::vector<WorkPtr> after) {
  for (WorkPtr& before : before_next(stream)) after.push_back(std::move(before));
  stream.last = executor_.add(std::move(work), &stream, after);
  return stream.last;
}

// What must be done before the stream counts as idle.
WorkPtr Runtime::tail(CUstream_st& stream) {
  if (!stream.legacy) return stream.last;
  return append(stream, std::make_shared<Work>(Work{.name = "synchronisation", .device = stream.device, .devices = 0}),
                {});
}

cudaError_t Runtime::enqueue(Executor::Lock& lock, CUstream_st& stream, Work work, WorkPtr* item) {
  if (stream.capture != nullptr) {
    Capture& capture = *stream.capture;
    if (capture.invalid) return cudaErrorStreamCaptureInvalidated;
    capture.nodes.push_back({std::make_shared<Work>(std::move(work)), stream.tips});
    stream.tips = {capture.nodes.size() - 1};
    return cudaSuccess;
  }
  if (stream.legacy) {
    for (const auto& capture : captures) {
      const CUstream_st& origin = *capture->origin;
      if (origin.device != stream.device || (origin.flags & cudaStreamNonBlocking) != 0) continue;
      capture->invalid = true;
      return cudaErrorStreamCaptureImplicit;
    }
  }
  const WorkPtr added = append(stream, std::make_shared<Work>(std::move(work)), {});
  if (item != nullptr) *item = added;
  if (executor_.num_pending() > kMostPending) return wait(lock, added, stream.device);
  return cudaSuccess;
}

cudaError_t Runtime::enqueue_together(CUstream_st& stream, std::vector<Work> works, WorkPtr after, WorkPtr* last) {
  if (stream.capture != nullptr) {
    Capture& capture = *stream.capture;
    if (capture.invalid) return cudaErrorStreamCaptureInvalidated;
    std::vector<size_t> tips;
    for (Work& work : works) {
      capture.nodes.push_back({std::make_shared<Work>(std::move(work)), stream.tips});
      tips.push_back(capture.nodes.size() - 1);
    }
    stream.tips = std::move(tips);
    return cudaSuccess;
  }
  std::vector<WorkPtr> before = before_next(stream);
  before.push_back(std::move(after));
  std::vector<WorkPtr> items;
  for (Work& work : works) items.push_back(executor_.add(std::make_shared<Work>(std::move(work)), &stream, before));
  Work end{.name = "end of a group", .device = stream.device, .devices = 0};
  *last = append(stream, std::make_shared<Work>(std::move(end)), std::move(items));
  return cudaSuccess;
}

cudaError_t Runtime::report_stuck(int id) {
  Outcome outcome;
  outcome.error = cudaErrorLaunchTimeout;
  outcome.report = "nothing can run: work waits for what nobody enqueues" + (explain_stuck ? explain_stuck() : "");
  report_violation(id, outcome);
  return cudaErrorLaunchTimeout;
}

cudaError_t Runtime::wait(Executor::Lock& lock, const WorkPtr& item, int id) {
  if (!executor_.drive_until_done(lock, item)) return report_stuck(id);
  return static_cast<cudaError_t>(device(id).sticky.load());
}

cudaError_t Runtime::refuse_in_capture(CUstream_st* stream) {
  if (stream != nullptr) {
    if (stream->capture == nullptr) return cudaSuccess;
    stream->capture->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  if (t_capture_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  cudaError_t error = cudaSuccess;
  for (const auto& capture : captures) {
    const bool mine = capture->thread == std::this_thread::get_id();
    const bool forbids =
        (capture->mode == cudaStreamCaptureModeGlobal && t_capture_mode == cudaStreamCaptureModeGlobal) ||
        (capture->mode != cudaStreamCaptureModeRelaxed && mine);
    if (!forbids) continue;
    capture->invalid = true;
    error = cudaErrorStreamCaptureUnsupported;
  }
  return error;
}

void Runtime::end_capture(const std::shared_ptr<Capture>& capture) {
  for (cudaStream_t stream : capture->streams) {
    if (!streams.contains(stream)) continue;
    stream->capture = nullptr;
    stream->tips.clear();
  }
  std::erase(captures, capture);
}

void Runtime::reset_device(Executor::Lock& lock, Device& old) {
  executor_.drive_device(lock, old.id);
  for (auto it = streams.begin(); it != streams.end();) {
    if ((*it)->device == old.id) {
      delete *it;
      it = streams.erase(it);
    } else {
      ++it;
    }
  }
  devices_[static_cast<size_t>(old.id)] = std::make_unique<Device>(old.id, machine_);
  t_last_error = cudaSuccess;
  const std::lock_guard report_lock(report_mutex_);
  report_.clear();
}

std::string describe_device_address(const void* p) {
  Device* device = Runtime::instance().device_of(p);
  if (device == nullptr) return "";
  return "device " + std::to_string(device->id) + ", " + device->memory.describe(p);
}

int device_of_address(const void* p) {
  Device* device = Runtime::instance().device_of(p);
  return device == nullptr ? -1 : device->id;
}

void set_seed(uint64_t seed) { Runtime::instance().set_seed(seed); }
std::string last_report() { return Runtime::instance().report(); }
void set_machine(const Machine& machine) { Runtime::instance().reset(machine); }

}  // namespace sextant::simt
