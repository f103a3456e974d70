// Submission runs on the sink's strand, and so do deliveries: an event cannot overtake the registration of
// its id.
#include "server/openai/engine_sink.h"

#include <boost/asio/dispatch.hpp>
#include <boost/asio/execution/context.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <iterator>
#include <utility>

#include "engine/base/check.h"

namespace sextant::openai {

namespace asio = boost::asio;

EngineSink::EngineSink(Engine& engine, asio::any_io_executor executor)
    : engine_(engine), strand_(asio::make_strand(executor)) {}

void EngineSink::deliver(std::vector<OutputEvent> events) {
  {
    const std::lock_guard lock(mutex_);
    inbox_.insert(inbox_.end(), std::make_move_iterator(events.begin()), std::make_move_iterator(events.end()));
    if (std::exchange(has_turn_, true)) return;
  }
  asio::post(strand_, [self = shared_from_this()] { self->fan_out(); });
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
    const auto shared = std::make_shared<Receiver>(Receiver{receiver, {}});
    for (const RequestId id : ids) receivers_.emplace(id, shared);
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

void EngineSink::fan_out() {
  std::vector<OutputEvent> events;
  {
    const std::lock_guard lock(mutex_);
    events.swap(inbox_);
    has_turn_ = false;
  }
  std::vector<std::shared_ptr<Receiver>> in_turn;
  for (OutputEvent& event : events) {
    const auto found = receivers_.find(event.request_id);
    if (found == receivers_.end()) continue;  // ended on this side already
    if (found->second->share.empty()) in_turn.push_back(found->second);
    found->second->share.push_back(std::move(event));
  }
  for (const std::shared_ptr<Receiver>& each : in_turn) {
    // A strand keeps the order whether this runs now or waits there.
    asio::dispatch(each->receiver->executor(),
                   [receiver = each->receiver, share = std::exchange(each->share, {})]() mutable {
                     receiver->on_events(std::move(share));
                   });
  }
}

SinkRegistry::SinkRegistry(Engine& engine, size_t sinks_per_context)
    : engine_(engine), sinks_per_context_(sinks_per_context) {
  CHECK_GE(sinks_per_context, 1u);
}

std::shared_ptr<EngineSink> SinkRegistry::of(const asio::any_io_executor& executor) {
  const asio::execution_context* context = &asio::query(executor, asio::execution::context);
  const std::lock_guard lock(mutex_);
  Sinks& sinks = sinks_[context];
  if (sinks.all.empty()) {
    // Beneath a session's strand, so that the sink does not wait for that session's turn.
    asio::any_io_executor inner = executor;
    if (const auto* strand = executor.target<asio::strand<asio::io_context::executor_type>>()) {
      inner = strand->get_inner_executor();
    } else if (const auto* any_strand = executor.target<asio::strand<asio::any_io_executor>>()) {
      inner = any_strand->get_inner_executor();
    }
    for (size_t i = 0; i < sinks_per_context_; ++i) sinks.all.push_back(std::make_shared<EngineSink>(engine_, inner));
  }
  return sinks.all[sinks.next++ % sinks.all.size()];
}

}  // namespace sextant::openai
