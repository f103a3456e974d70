// EngineSink: where the engine's events enter the I/O side: one message per step and io_context, fanned out
// to the receivers by request id. One sink per io_context (SinkRegistry finds it). Threads: deliver() on the
// engine thread; submit() and forget() on any; the map lives on the sink's own strand. Must not know text.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/strand.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "engine/base/result.h"
#include "engine/engine.h"

namespace sextant::openai {

// Gets the events of its requests, in order, each call posted to executor().
class EventReceiver {
 public:
  virtual ~EventReceiver() = default;
  virtual boost::asio::any_io_executor executor() const = 0;  // any thread
  // Once, before any event: the ids in the order of the requests, or why none was taken.
  virtual void on_submitted(Result<std::vector<RequestId>> ids) = 0;
  virtual void on_events(std::vector<OutputEvent> events) = 0;
};

class EngineSink final : public OutputSink, public std::enable_shared_from_this<EngineSink> {
 public:
  // `engine` outlives every job of the executor.
  EngineSink(Engine& engine, boost::asio::any_io_executor executor);

  void deliver(std::vector<OutputEvent> events) override;

  // All requests or none: when the engine refuses one, those before it are aborted.
  void submit(std::vector<Request> requests, std::shared_ptr<EventReceiver> receiver);
  // No more events of these; the sink lets go of their receiver. Unknown ids are ignored.
  void forget(std::vector<RequestId> ids);

 private:
  void submit_here(std::vector<Request> requests, std::shared_ptr<EventReceiver> receiver);
  void fan_out(std::vector<OutputEvent> events);

  Engine& engine_;
  boost::asio::strand<boost::asio::any_io_executor> strand_;
  std::unordered_map<RequestId, std::shared_ptr<EventReceiver>> receivers_;
};

class SinkRegistry {
 public:
  explicit SinkRegistry(Engine& engine) : engine_(engine) {}
  // The sink of the io_context behind `executor`, which may be a strand on it.
  std::shared_ptr<EngineSink> of(const boost::asio::any_io_executor& executor);

 private:
  Engine& engine_;
  std::mutex mutex_;
  std::map<const boost::asio::execution_context*, std::shared_ptr<EngineSink>> sinks_;
};

}  // namespace sextant::openai
