// StopSignals: the first SIGTERM or SIGINT asks for an end in order, the second ends the process at once. Runs on the I/O threads.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>

namespace sextant::cli {

class StopSignals {
 public:
  explicit StopSignals(boost::asio::io_context& io);

  // While the main thread is inside the engine's loading it cannot drain, and there is nothing to drain.
  void set_nothing_to_drain(bool value);

  // True once a signal came; false at the time-out.
  bool wait_for(std::chrono::milliseconds timeout);

 private:
  void listen();
  void on_signal();

  boost::asio::signal_set signals_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  int num_signals_ = 0;
  bool nothing_to_drain_ = true;
};

}  // namespace sextant::cli
