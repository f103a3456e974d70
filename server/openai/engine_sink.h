// EngineSink: where the engine's events enter the I/O side: at most one message per step and sink, whose receivers
// then run one after another in that same turn of an I/O thread. Steps that end before their turn comes join it, so
// that a client that fell behind gets their tokens in one write. As many sinks per io_context as threads run it
// (SinkRegistry deals them out). Threads: deliver() on the engine thread; submit() and forget() on any; the
// receivers live on the sink's own strand. Must not know text.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/strand.hpp>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "engine/base/result.h"
#include "engine/engine.h"

namespace sextant::openai {

// Gets the events of its requests, in order, each call on executor(): at once from the sink's turn when nothing else
// runs there, after what does otherwise.
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
  struct Receiver {
    std::shared_ptr<EventReceiver> receiver;
    std::vector<OutputEvent> share;  // of the turn under way
  };
  void submit_here(std::vector<Request> requests, std::shared_ptr<EventReceiver> receiver);
  void fan_out();

  Engine& engine_;
  boost::asio::strand<boost::asio::any_io_executor> strand_;
  std::unordered_map<RequestId, std::shared_ptr<Receiver>> receivers_;
  std::mutex mutex_;                // of what follows
  std::vector<OutputEvent> inbox_;  // delivered, and not fanned out
  bool has_turn_ = false;           // fan_out() is posted and has not begun
};

class SinkRegistry {
 public:
  // `sinks_per_context`: the threads that run an io_context.
  SinkRegistry(Engine& engine, size_t sinks_per_context);
  // One of the sinks of the io_context behind `executor`, which may be a strand on it: each in turn.
  std::shared_ptr<EngineSink> of(const boost::asio::any_io_executor& executor);

 private:
  struct Sinks {
    std::vector<std::shared_ptr<EngineSink>> all;
    size_t next = 0;
  };
  Engine& engine_;
  const size_t sinks_per_context_;
  std::mutex mutex_;
  std::map<const boost::asio::execution_context*, Sinks> sinks_;
};

}  // namespace sextant::openai
