// Runtime: the emulated machine's devices, streams, events and captures, behind the executor's mutex.
// The API's functions (api_*.cpp) are thin over it. Threads: any.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "kernels/simt/device_memory.h"
#include "kernels/simt/executor.h"
#include "kernels/simt/runtime.h"

namespace sextant::simt {

struct GraphNode {
  std::shared_ptr<const Work> work;
  std::vector<size_t> after;  // earlier nodes
};

// A capture in progress: one origin stream and those that joined it over events.
struct Capture {
  cudaStream_t origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  bool invalid = false;
  std::vector<GraphNode> nodes;
  std::vector<cudaStream_t> streams;
};

}  // namespace sextant::simt

struct CUstream_st {
  int device = 0;
  unsigned flags = 0;
  int priority = 0;
  bool legacy = false;
  sextant::simt::WorkPtr last;
  std::shared_ptr<sextant::simt::Capture> capture;
  std::vector<size_t> tips;  // the nodes that the next one comes after
};
struct CUevent_st {
  int device = 0;
  unsigned flags = 0;
  sextant::simt::WorkPtr record;
  std::shared_ptr<sextant::simt::Capture> capture;  // recorded while its stream captured
  std::vector<size_t> tips;
};
struct CUgraphNode_st {
  size_t index;
};
struct CUgraph_st {
  std::vector<sextant::simt::GraphNode> nodes;
  std::vector<CUgraphNode_st> handles;
};
struct CUgraphExec_st {
  std::vector<sextant::simt::GraphNode> nodes;
  sextant::simt::WorkPtr last;  // launches of one executable graph follow one another
};

namespace sextant::simt {

struct Device {
  Device(int id_, const Machine& machine) : id(id_), memory(machine.memory_bytes, machine.protection) {
    legacy.device = id_;
    legacy.legacy = true;
  }
  int id;
  DeviceMemory memory;
  std::atomic<int> sticky = 0;  // a violation: every later call fails with it
  uint64_t peers = 0;           // whose memory its kernels may touch, too
  CUstream_st legacy;
};

// Page-locked host memory: ranges by their first byte.
class PinnedMemory {
 public:
  cudaError_t allocate(void** p, size_t bytes);
  cudaError_t free(void* p);
  cudaError_t add(void* p, size_t bytes);
  cudaError_t remove(void* p);
  bool touches(const void* p) const;              // p lies in a range
  bool holds(const void* p, size_t bytes) const;  // all of it lies in one range

 private:
  struct Range {
    size_t bytes;
    bool allocated;
  };
  const std::pair<const std::byte* const, Range>* range_of(const void* p) const;
  mutable std::mutex mutex_;
  std::map<const std::byte*, Range> ranges_;
};

class Runtime {
 public:
  static Runtime& instance();

  Executor& executor() { return executor_; }
  const Machine& machine() const { return machine_; }
  void reset(const Machine& machine);
  void reset_device(Executor::Lock& lock, Device& device);
  PinnedMemory& pinned() { return pinned_; }
  size_t num_devices() const { return devices_.size(); }
  Device& device(int id) { return *devices_[static_cast<size_t>(id)]; }
  Device& current_device();
  Device* device_of(const void* p);  // nullptr: no device's memory
  // The error of the calling thread, as cudaGetLastError returns it.
  cudaError_t remember(cudaError_t error);
  cudaError_t last_error(bool clear);
  // Refuses what no call may do now: no device, a host function, a device that failed.
  cudaError_t entry();

  void set_seed(uint64_t seed);
  uint64_t seed_of_launch();
  std::string report();
  void report_violation(int device, const Outcome& outcome);

  // With the executor's mutex held:
  // The stream itself, the legacy stream for the null handle; nullptr for what is no stream.
  CUstream_st* find(cudaStream_t stream);
  bool is_event(cudaEvent_t event) const { return events.contains(event); }
  cudaError_t enqueue(Executor::Lock& lock, CUstream_st& stream, Work work, WorkPtr* item = nullptr);
  // The same for work that is shared, after more than the stream's last: no capture.
  WorkPtr append(CUstream_st& stream, std::shared_ptr<const Work> work, std::vector<WorkPtr> after);
  // Works that run beside one another, after what the stream holds and `after`; the stream goes on after all of them.
  cudaError_t enqueue_together(CUstream_st& stream, std::vector<Work> works, WorkPtr after, WorkPtr* last);
  WorkPtr tail(CUstream_st& stream);
  std::vector<WorkPtr> before_next(CUstream_st& stream);
  cudaError_t wait(Executor::Lock& lock, const WorkPtr& item, int device);
  cudaError_t report_stuck(int device);
  // A call that may not be made while a capture is under way: invalidates it. `stream`: the call is about this stream only.
  cudaError_t refuse_in_capture(CUstream_st* stream);
  cudaError_t join_capture(CUstream_st& stream, const CUevent_st& event);
  void end_capture(const std::shared_ptr<Capture>& capture);

  std::set<cudaStream_t> streams;
  std::set<cudaEvent_t> events;
  std::set<cudaGraph_t> graphs;
  std::set<cudaGraphExec_t> execs;
  std::vector<std::shared_ptr<Capture>> captures;
  std::function<std::string()> explain_stuck;     // what waits for other ranks
  std::map<const void*, int> opted_shared_bytes;  // by kernel

 private:
  Runtime();

  Machine machine_;
  Executor executor_;
  std::vector<std::unique_ptr<Device>> devices_;
  PinnedMemory pinned_;
  std::atomic<uint64_t> seed_ = 0;
  std::atomic<uint64_t> num_launches_ = 0;
  std::mutex report_mutex_;
  std::string report_;
};

extern thread_local int t_device;
extern thread_local cudaStreamCaptureMode t_capture_mode;

// For reports of bad addresses: "device 0, 4 bytes past the end of an allocation of 1024 bytes"; empty: no device's.
std::string describe_device_address(const void* p);
// Takes no lock: for the fault handler. -1: no device's.
int device_of_address(const void* p);

}  // namespace sextant::simt
