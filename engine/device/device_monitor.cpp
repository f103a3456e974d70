#include "engine/device/device_monitor.h"

#include <chrono>
#include <utility>

#include "engine/base/clock.h"
#include "engine/device/nvml.h"

namespace sextant {
namespace {

constexpr int64_t kFreshNs = 1'000'000'000;
constexpr int64_t kStaleNs = 10 * kFreshNs;
constexpr int64_t kPatienceNs = 100'000'000;

int64_t now_ns() { return SteadyClock::instance().now_ns(); }

}  // namespace

DeviceMonitor::DeviceMonitor(DeviceReadings read) : state_(std::make_shared<State>()) {
  thread_ = std::thread([state = state_, read = std::move(read)] { run(state, read); });
}

DeviceMonitor::~DeviceMonitor() {
  bool reads = false;
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    reads = state_->asked_ns != 0;
  }
  state_->changed.notify_all();
  if (reads) {
    thread_.detach();
  } else {
    thread_.join();
  }
}

std::vector<DeviceReading> DeviceMonitor::readings() {
  std::unique_lock lock(state_->mutex);
  const int64_t asked_ns = now_ns();
  const bool is_fresh = state_->last_ns != 0 && asked_ns - state_->last_ns < kFreshNs;
  if (!is_fresh) {
    if (state_->asked_ns == 0) {
      state_->asked_ns = asked_ns;
      state_->changed.notify_all();
    }
    // Whoever comes while a reading hangs does not wait again for what others have waited for.
    const int64_t patience_ns = state_->asked_ns + kPatienceNs - asked_ns;
    if (patience_ns > 0) {
      state_->changed.wait_for(lock, std::chrono::nanoseconds(patience_ns), [&] { return state_->asked_ns == 0; });
    }
  }
  const bool is_stale = state_->last_ns == 0 || now_ns() - state_->last_ns > kStaleNs;
  return is_stale ? std::vector<DeviceReading>() : state_->last;
}

void DeviceMonitor::run(const std::shared_ptr<State>& state, const DeviceReadings& read) {
  std::unique_lock lock(state->mutex);
  while (true) {
    state->changed.wait(lock, [&] { return state->stopping || state->asked_ns != 0; });
    if (state->stopping) return;
    lock.unlock();
    std::vector<DeviceReading> readings = read();
    lock.lock();
    state->last = std::move(readings);
    state->last_ns = now_ns();
    state->asked_ns = 0;
    state->changed.notify_all();
  }
}

DeviceReadings monitor_gpu(const std::string& uuid) {
  struct Reader {
    std::string uuid;
    bool was_opened = false;
    std::unique_ptr<Nvml> nvml;
  };
  const auto reader = std::make_shared<Reader>(Reader{uuid, false, nullptr});
  const auto monitor = std::make_shared<DeviceMonitor>([reader] {
    if (!std::exchange(reader->was_opened, true)) reader->nvml = Nvml::open();
    const bool can_read = reader->nvml != nullptr && !reader->uuid.empty();
    return can_read ? reader->nvml->read(reader->uuid) : std::vector<DeviceReading>();
  });
  return [monitor] { return monitor->readings(); };
}

}  // namespace sextant
