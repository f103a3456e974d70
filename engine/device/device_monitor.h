// DeviceMonitor: readings of a GPU for whoever asks, from a thread of its own: asking a driver in trouble may block for
// ever, and those who ask have connections to serve. Idle while nobody asks.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/device/device_reading.h"

namespace sextant {

using DeviceReadings = std::function<std::vector<DeviceReading>()>;

class DeviceMonitor {
 public:
  explicit DeviceMonitor(DeviceReadings read);
  ~DeviceMonitor();  // does not wait for a reading that is under way
  DeviceMonitor(const DeviceMonitor&) = delete;
  DeviceMonitor& operator=(const DeviceMonitor&) = delete;

  // Any thread. Reads anew when the last reading is older than a second, and waits at most 100 ms for it: else gives the
  // last one, or nothing when that is older than 10 seconds.
  std::vector<DeviceReading> readings();

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<DeviceReading> last;
    int64_t last_ns = 0;   // 0: none yet
    int64_t asked_ns = 0;  // since when a reading is wanted or under way; 0: none is
    bool stopping = false;
  };
  static void run(const std::shared_ptr<State>& state, const DeviceReadings& read);

  std::shared_ptr<State> state_;  // also the thread's, which may outlive this
  std::thread thread_;
};

// Of the GPU with this UUID, by NVML, which is opened at the first call. Never anything where there is none.
DeviceReadings monitor_gpu(const std::string& uuid);

}  // namespace sextant
