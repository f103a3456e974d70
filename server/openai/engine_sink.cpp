// Submission runs on the sink's strand, and so do deliveries: an event cannot overtake the registration of
// its id.
#include "server/openai/engine_sink.h"

#include <boost/asio/execution/context.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <utility>

namespace sextant::openai {

namespace asio = boost::asio;

EngineSink::EngineSink(Engine& engine, asio::any_io_executor executor)
    : engine_(engine), strand_(asio::make_strand(executor)) {}

void EngineSink::deliver(std::vector<OutputEvent> events) {
  asio::post(strand_,
             [self = shared_from_this(), events = std::move(events)]() mutable { self->fan_out(std::move(events)); });
}

void EngineSink::submit(std::vector<Request> requests, std::shared_ptr<EventReceiver> receiver) {
  asio::post(strand_,
             [self = shared_from_this(), requests = std::move(requests), receiver = std::move(receiver)]() mutable {
               self->submit_here(std::move(requests), std::move(receiver));
             });
}

void EngineSink::submit_here(std::vector<Request> requests, std::shared_ptr<EventReceiver> receiver) {
  std::vector<RequestId> ids;
  Status refusal;
  for (Request& request : requests) {
    Result<RequestId> id = engine_.submit(std::move(request), shared_from_this());
    if (!id.ok()) {
      refusal = id.status();
      break;
    }
    ids.push_back(*id);
  }
  if (!refusal.ok()) {
    for (const RequestId id : ids) engine_.abort(id);
  } else {
    for (const RequestId id : ids) receivers_.emplace(id, receiver);
  }
  const asio::any_io_executor executor = receiver->executor();
  asio::post(executor, [receiver = std::move(receiver), ids = std::move(ids), refusal = std::move(refusal)]() mutable {
    if (refusal.ok()) {
      receiver->on_submitted(std::move(ids));
    } else {
      receiver->on_submitted(std::move(refusal));
    }
  });
}

void EngineSink::forget(std::vector<RequestId> ids) {
  asio::post(strand_, [self = shared_from_this(), ids = std::move(ids)] {
    for (const RequestId id : ids) self->receivers_.erase(id);
  });
}

void EngineSink::fan_out(std::vector<OutputEvent> events) {
  size_t begin = 0;
  while (begin < events.size()) {
    const auto found = receivers_.find(events[begin].request_id);
    size_t end = begin + 1;
    if (found == receivers_.end()) {  // ended on this side already
      begin = end;
      continue;
    }
    while (end < events.size() && events[end].request_id == events[begin].request_id) ++end;
    std::vector<OutputEvent> share(std::make_move_iterator(events.begin() + static_cast<std::ptrdiff_t>(begin)),
                                   std::make_move_iterator(events.begin() + static_cast<std::ptrdiff_t>(end)));
    asio::post(found->second->executor(), [receiver = found->second, share = std::move(share)]() mutable {
      receiver->on_events(std::move(share));
    });
    begin = end;
  }
}

std::shared_ptr<EngineSink> SinkRegistry::of(const asio::any_io_executor& executor) {
  const asio::execution_context* context = &asio::query(executor, asio::execution::context);
  const std::lock_guard lock(mutex_);
  std::shared_ptr<EngineSink>& sink = sinks_[context];
  if (!sink) {
    // Beneath a session's strand, so that the sink does not wait for that session's turn.
    asio::any_io_executor inner = executor;
    if (const auto* strand = executor.target<asio::strand<asio::io_context::executor_type>>()) {
      inner = strand->get_inner_executor();
    } else if (const auto* any_strand = executor.target<asio::strand<asio::any_io_executor>>()) {
      inner = any_strand->get_inner_executor();
    }
    sink = std::make_shared<EngineSink>(engine_, std::move(inner));
  }
  return sink;
}

}  // namespace sextant::openai
