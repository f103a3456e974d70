#include "server/http/io_threads.h"

#include <exception>

#include "engine/base/log.h"

namespace sextant::http {
namespace {

void run_until_stopped(boost::asio::io_context& io) {
  while (true) {
    try {
      io.run();
      return;
    } catch (const std::exception& e) {
      // A completion handler of ours threw; the others go on.
      LOG_ERROR << "an I/O thread caught an exception: " << e.what();
    }
  }
}

}  // namespace

IoThreads::IoThreads(int num_threads) : io_(num_threads), work_(io_.get_executor()) {
  threads_.reserve(static_cast<size_t>(num_threads));
  for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { run_until_stopped(io_); });
}

IoThreads::~IoThreads() { stop(); }

void IoThreads::stop() {
  work_.reset();
  io_.stop();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

}  // namespace sextant::http
