#include "server/cli/stop_signals.h"

#include <csignal>
#include <cstdlib>

#include "engine/base/log.h"
#include "server/cli/command_line.h"

namespace sextant::cli {

StopSignals::StopSignals(boost::asio::io_context& io) : signals_(io, SIGINT, SIGTERM) { listen(); }

void StopSignals::set_nothing_to_drain(bool value) {
  const std::lock_guard lock(mutex_);
  nothing_to_drain_ = value;
}

bool StopSignals::wait_for(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return arrived_.wait_for(lock, timeout, [&] { return num_signals_ > 0; });
}

void StopSignals::listen() {
  signals_.async_wait([this](const boost::system::error_code& error, int) {
    if (error) return;
    on_signal();
    listen();
  });
}

void StopSignals::on_signal() {
  const std::lock_guard lock(mutex_);
  if (++num_signals_ == 2) {
    LOG_WARNING << "a second signal: ending at once";
    std::_Exit(kExitInterrupted);
  }
  if (nothing_to_drain_) {
    LOG_INFO << "stopped while loading";
    std::_Exit(kExitDone);
  }
  arrived_.notify_all();
}

}  // namespace sextant::cli
