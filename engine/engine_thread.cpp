#include "engine/engine_thread.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <future>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/log.h"

namespace sextant {

EngineThread::EngineThread(Parts parts)
    : parts_(std::move(parts)), watchdog_(parts_.step_timeout_s, [this] { take_over(); }) {
  stats_.healthy = true;
  thread_ = std::thread([this] { run(); });
  parts_.worker->set_failure_handler([this](const std::string& message) {
    push([this, message] {
      if (healthy_.load()) fail(message);
    });
  });
}

EngineThread::~EngineThread() {
  parts_.worker->set_failure_handler({});
  draining_.store(true);
  push([this] { parts_.scheduler->finish_all(FinishReason::kAbort); });
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

Status EngineThread::validate(const Request& request) const {
  const EngineInfo& info = parts_.info;
  if (request.prompt_token_ids.empty()) return invalid_argument("prompt must hold at least one token", "prompt");
  for (const int32_t id : request.prompt_token_ids) {
    if (id < 0 || id >= info.vocab_size) {
      return invalid_argument("prompt holds the token id " + std::to_string(id) + ", but the vocabulary ends at " +
                                  std::to_string(info.vocab_size - 1),
                              "prompt");
    }
  }
  RETURN_IF_ERROR(request.sampling.validate(info.vocab_size));
  const auto prompt_tokens = static_cast<int64_t>(request.prompt_token_ids.size());
  const int64_t total = prompt_tokens + request.sampling.max_tokens;
  if (total > info.max_model_len) {
    return invalid_argument("This model's maximum context length is " + std::to_string(info.max_model_len) +
                                " tokens, but " + std::to_string(total) + " were asked for (" +
                                std::to_string(prompt_tokens) + " in the prompt, " +
                                std::to_string(request.sampling.max_tokens) + " to generate)",
                            "prompt", "context_length_exceeded");
  }
  if (const int64_t room = int64_t{info.num_blocks} * info.block_size; total > room) {
    return invalid_argument("the KV cache holds " + std::to_string(room) + " tokens, but " + std::to_string(total) +
                                " were asked for; a larger --kv-cache-memory-bytes would fit them",
                            "prompt", "context_length_exceeded");
  }
  if (!parts_.config.enable_chunked_prefill && prompt_tokens > parts_.config.max_num_batched_tokens) {
    return invalid_argument("without chunked prefill a prompt may hold at most " +
                                std::to_string(parts_.config.max_num_batched_tokens) + " tokens, not " +
                                std::to_string(prompt_tokens),
                            "prompt", "context_length_exceeded");
  }
  return ok_status();
}

Result<RequestId> EngineThread::reserve_place() {
  std::lock_guard lock(mutex_);
  const int64_t free_places = std::max<int64_t>(0, parts_.config.max_num_seqs - stats_.num_requests_running);
  if (num_unscheduled_requests_ >= parts_.config.max_num_queued_reqs + free_places) {
    ++stats_.queue_rejections;
    return unavailable("the queue is full: " + std::to_string(num_unscheduled_requests_) + " requests are waiting");
  }
  ++num_unscheduled_requests_;
  ++num_active_requests_;
  return next_request_id_.fetch_add(1);
}

Result<RequestId> EngineThread::submit(Request request, std::shared_ptr<OutputSink> sink) {
  CHECK_EQ(request.request_id, 0u);
  CHECK(sink != nullptr);
  if (draining_.load()) return unavailable("the server is shutting down");
  if (!healthy_.load()) return unavailable("the device failed; the server must be restarted");
  RETURN_IF_ERROR(validate(request));
  ASSIGN_OR_RETURN(request.request_id, reserve_place());
  request.arrival_ns = clock().now_ns();
  const RequestId request_id = request.request_id;
  auto shared = std::make_shared<const Request>(std::move(request));
  push([this, shared = std::move(shared), sink = std::move(sink)] { start_request(shared, sink); });
  return request_id;
}

void EngineThread::abort(RequestId request_id) {
  push([this, request_id] { parts_.scheduler->abort(request_id); });
}
void EngineThread::finish(RequestId request_id, int32_t choice_idx, FinishReason reason) {
  push([=, this] { parts_.scheduler->finish(request_id, choice_idx, reason); });
}
void EngineThread::pause(RequestId request_id, int32_t choice_idx) {
  push([=, this] { parts_.scheduler->pause(request_id, choice_idx); });
}
void EngineThread::resume(RequestId request_id, int32_t choice_idx) {
  push([=, this] { parts_.scheduler->resume(request_id, choice_idx); });
}

EngineStats EngineThread::stats() const {
  std::unique_lock lock(mutex_);
  EngineStats stats = stats_;
  lock.unlock();
  // Of this moment: a rank may still be counting a step whose result another has given.
  stats.collectives = parts_.worker->collective_counters();
  return stats;
}

bool EngineThread::wait_drained(double timeout_s) {
  std::unique_lock lock(mutex_);
  return drained_.wait_for(lock, std::chrono::duration<double>(timeout_s), [&] { return num_active_requests_ == 0; });
}

std::vector<DeviceReading> EngineThread::device_readings() const {
  return parts_.device_readings ? parts_.device_readings() : std::vector<DeviceReading>();
}

Status EngineThread::check_integrity() {
  Status status;
  call([&] { status = parts_.scheduler->check_integrity(); });
  return status;
}

bool EngineThread::reset_prefix_cache() {
  bool done = false;
  call([&] { done = parts_.scheduler->reset_prefix_cache(); });
  return done;
}

void EngineThread::push(Command command) {
  {
    std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
  }
  wake_.notify_one();
}

void EngineThread::call(const Command& command) {
  std::promise<void> done;
  push([&] {
    command();
    done.set_value();
  });
  done.get_future().wait();
}

void EngineThread::run() {
  std::vector<Command> commands;
  bool idle = true;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      if (idle) wake_.wait(lock, [&] { return stopping_ || !commands_.empty(); });
      commands.swap(commands_);
      if (stopping_ && commands.empty() && idle) break;
    }
    for (const Command& command : commands) command();
    commands.clear();
    const Turn turn = step();
    if (turn == Turn::kReplaced) return;
    idle = turn == Turn::kIdle;
  }
}

// Submits while another step may be in flight, then takes in the oldest: with two in flight the device works on one while
// the host prepares the next.
EngineThread::Turn EngineThread::step() {
  Turn submitted = Turn::kIdle;
  const bool has_room = static_cast<int64_t>(steps_.size()) < parts_.config.max_steps_in_flight;
  if (has_room && healthy_.load()) submitted = submit_step();
  if (submitted == Turn::kReplaced) return Turn::kReplaced;
  const bool is_full = static_cast<int64_t>(steps_.size()) == parts_.config.max_steps_in_flight;
  const bool collects = !steps_.empty() && (is_full || submitted == Turn::kIdle);
  if (collects && collect_step() == Turn::kReplaced) return Turn::kReplaced;
  deliver_events(collects ? last_collected_ns_ : clock().now_ns());
  publish_stats();
  return submitted == Turn::kWorked || collects ? Turn::kWorked : Turn::kIdle;
}

// kIdle when the scheduler had nothing to compute.
EngineThread::Turn EngineThread::submit_step() {
  const int64_t begin_ns = clock().now_ns();
  const std::shared_ptr<const SchedulerOutput> output = parts_.scheduler->schedule();
  const int64_t scheduled_ns = clock().now_ns();
  note_first_scheduled(*output, scheduled_ns);
  if (!output->empty()) {
    steps_.push_back({output, scheduled_ns, static_cast<double>(scheduled_ns - begin_ns) * 1e-9});
  }
  Status submitted;
  watchdog_.enter(busy_since_ns());
  try {
    submitted = parts_.worker->submit(output);
  } catch (const std::exception& error) {
    submitted = Status(StatusCode::kDeviceError, error.what());
  }
  if (!watchdog_.leave()) return Turn::kReplaced;
  if (!submitted.ok()) {
    fail(submitted.message());
    return Turn::kIdle;
  }
  return output->empty() ? Turn::kIdle : Turn::kWorked;
}

EngineThread::Turn EngineThread::collect_step() {
  Result<ModelOutput> result = internal_error("not executed");
  watchdog_.enter(busy_since_ns());
  try {
    result = parts_.worker->collect();
  } catch (const std::exception& error) {
    result = Status(StatusCode::kDeviceError, error.what());
  }
  if (!watchdog_.leave()) return Turn::kReplaced;
  const int64_t collected_ns = clock().now_ns();
  const int64_t began_ns = busy_since_ns();
  last_collected_ns_ = collected_ns;
  if (!result.ok()) {
    fail(result.status().message());
    return Turn::kIdle;
  }
  const StepInFlight step = std::move(steps_.front());
  steps_.pop_front();
  parts_.scheduler->update(*step.output, std::move(result).value());
  const double schedule_s = step.schedule_s + static_cast<double>(clock().now_ns() - collected_ns) * 1e-9;
  const double execute_s = static_cast<double>(collected_ns - began_ns) * 1e-9;
  totals_.schedule_s += schedule_s;
  totals_.step_busy_s += execute_s;
  ++totals_.num_steps;
  totals_.device_busy_s = parts_.worker->device_busy_s();
  if (parts_.on_step) {
    const SchedulerOutput& output = *step.output;
    parts_.on_step({output.num_tokens(), static_cast<int32_t>(output.sequences.size()), schedule_s, execute_s});
  }
  return Turn::kWorked;
}

void EngineThread::start_request(std::shared_ptr<const Request> request, std::shared_ptr<OutputSink> sink) {
  const RequestId request_id = request->request_id;
  ActiveRequest& active = active_[request_id];
  active.request = request;
  active.sink = std::move(sink);
  active.num_unfinished_choices = request->sampling.n;
  active.first_scheduled_ns.resize(static_cast<size_t>(request->sampling.n));
  const Status added = healthy_.load() ? parts_.scheduler->add(std::move(request)) : unavailable(failure_);
  if (added.ok()) return;
  std::vector<OutputEvent> refused(active.first_scheduled_ns.size());
  for (size_t i = 0; i < refused.size(); ++i) {
    refused[i].request_id = request_id;
    refused[i].choice_idx = static_cast<int32_t>(i);
    refused[i].finish_reason = FinishReason::kError;
    refused[i].error = added.message();
    refused[i].queued_ns = active.request->arrival_ns;
    refused[i].step_end_ns = clock().now_ns();
  }
  active.sink->deliver(std::move(refused));
  active_.erase(request_id);
  ++num_left_queue_;
  ++num_ended_;
}

void EngineThread::note_first_scheduled(const SchedulerOutput& output, int64_t now_ns) {
  for (const NewSequence& added : output.new_sequences) {
    const auto found = active_.find(added.request->request_id);
    if (found == active_.end()) continue;
    ActiveRequest& active = found->second;
    if (std::all_of(active.first_scheduled_ns.begin(), active.first_scheduled_ns.end(),
                    [](int64_t ns) { return ns == 0; })) {
      ++num_left_queue_;
      totals_.prompt_tokens += added.request->prompt_token_ids.size();
    }
    active.first_scheduled_ns[static_cast<size_t>(added.choice_idx)] = now_ns;
  }
}

OutputEvent EngineThread::make_event(SequenceEvent& event, const ActiveRequest& active, int64_t step_end_ns) const {
  OutputEvent made;
  made.request_id = event.request_id;
  made.sequence_id = event.sequence_id;
  made.choice_idx = event.choice_idx;
  made.token_ids = std::move(event.new_token_ids);
  made.logprobs = std::move(event.logprobs);
  made.prompt_logprobs = std::move(event.prompt_logprobs);
  made.finish_reason = event.finish_reason;
  made.stop_token_id = event.stop_token_id;
  if (event.finish_reason == FinishReason::kError) made.error = failure_;
  made.num_cached_tokens = event.num_cached_tokens;
  made.queued_ns = active.request->arrival_ns;
  made.first_scheduled_ns = active.first_scheduled_ns[static_cast<size_t>(event.choice_idx)];
  made.step_end_ns = step_end_ns;
  made.num_preemptions = event.num_preemptions;
  return made;
}

void EngineThread::deliver_events(int64_t step_end_ns) {
  parts_.scheduler->take_events(events_);
  // Few sinks, many events: one list per sink, in the order of the events.
  std::vector<std::pair<std::shared_ptr<OutputSink>, std::vector<OutputEvent>>> deliveries;
  for (SequenceEvent& event : events_) {
    const auto found = active_.find(event.request_id);
    CHECK(found != active_.end()) << "an event of the ended request " << event.request_id;
    ActiveRequest& active = found->second;
    totals_.generation_tokens += event.new_token_ids.size();
    auto delivery =
        std::find_if(deliveries.begin(), deliveries.end(), [&](const auto& d) { return d.first == active.sink; });
    if (delivery == deliveries.end()) delivery = deliveries.insert(deliveries.end(), {active.sink, {}});
    delivery->second.push_back(make_event(event, active, step_end_ns));
    if (!event.finish_reason || --active.num_unfinished_choices > 0) continue;
    const bool was_scheduled = std::any_of(active.first_scheduled_ns.begin(), active.first_scheduled_ns.end(),
                                           [](int64_t ns) { return ns != 0; });
    if (!was_scheduled) ++num_left_queue_;
    ++num_ended_;
    active_.erase(found);
  }
  events_.clear();
  for (auto& [sink, sink_events] : deliveries) sink->deliver(std::move(sink_events));
}

void EngineThread::publish_stats() {
  const SchedulerStats core = parts_.scheduler->stats();
  EngineStats published = totals_;
  published.num_requests_running = core.num_running;
  published.num_requests_waiting = core.num_waiting;
  published.num_blocks_used = core.num_blocks_used;
  published.kv_cache_usage =
      core.num_blocks_total > 0 ? static_cast<double>(core.num_blocks_used) / static_cast<double>(core.num_blocks_total)
                                : 0;
  published.prefix_cache_queries = core.prefix_cache_queries;
  published.prefix_cache_hits = core.prefix_cache_hits;
  published.num_preemptions = core.num_preemptions;
  published.healthy = healthy_.load();
  bool drained = false;
  {
    std::lock_guard lock(mutex_);
    published.queue_rejections = stats_.queue_rejections;
    stats_ = published;
    num_unscheduled_requests_ -= num_left_queue_;
    num_active_requests_ -= num_ended_;
    drained = num_active_requests_ == 0;
  }
  num_left_queue_ = 0;
  num_ended_ = 0;
  if (drained) drained_.notify_all();
}

}  // namespace sextant
