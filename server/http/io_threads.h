// IoThreads: an io_context and the threads that run it, until stopped. For the server's I/O; handlers do not
// block here.
#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <optional>
#include <thread>
#include <vector>

namespace sextant::http {

class IoThreads {
 public:
  explicit IoThreads(int num_threads);
  ~IoThreads();  // stop(), then the io_context goes
  IoThreads(const IoThreads&) = delete;
  IoThreads& operator=(const IoThreads&) = delete;

  boost::asio::io_context& context() { return io_; }
  void stop();  // at once: what is pending is dropped; joins. Idempotent; not from one of the threads.

 private:
  boost::asio::io_context io_;
  std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> work_;
  std::vector<std::thread> threads_;
};

}  // namespace sextant::http
