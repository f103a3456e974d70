// The life of one request on its strand.
#include "server/openai/generation.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <iterator>
#include <utility>

#include "engine/base/log.h"
#include "server/gateway/identity.h"
#include "server/http/error_body.h"
#include "server/http/sse_writer.h"
#include "server/metrics.h"

namespace sextant::openai {
namespace {

constexpr std::string_view kLinesContentType = "application/x-ndjson";

template <typename T>
void append_to(std::vector<T> from, std::vector<T>* to) {
  to->insert(to->end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

std::shared_ptr<Generation> Generation::create(std::shared_ptr<http::Exchange> exchange, GenerationServices& services,
                                               std::shared_ptr<EngineSink> sink) {
  auto generation = std::make_shared<Generation>(std::move(exchange), services, std::move(sink));
  generation->watch_client();
  return generation;
}

Generation::Generation(std::shared_ptr<http::Exchange> exchange, GenerationServices& services,
                       std::shared_ptr<EngineSink> sink)
    : exchange_(std::move(exchange)),
      executor_(exchange_->executor()),
      services_(services),
      sink_(std::move(sink)),
      arrival_ns_(services.engine.clock().now_ns()) {}

// The exchange keeps these callbacks, and this object keeps the exchange: weak, or neither would go.
void Generation::watch_client() {
  exchange_->on_disconnect([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->on_disconnect();
  });
  exchange_->on_drained([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->on_drained();
  });
  exchange_->on_cancel([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->on_cancel();
  });
}

void Generation::run(Result<GenerationSpec> spec) {
  if (!exchange_) return;
  if (!spec.ok()) {
    if (services_.metrics != nullptr) services_.metrics->on_request_rejected();
    fail(spec.status());
    return;
  }
  spec_ = *std::move(spec);
  note_request();
  if (!check_model()) return;
  if (identity_) tenant_ = identity_->tenant;
  if (answer_from_cache()) return;
  reserve();
}

void Generation::start() {
  if (spec_->stream && services_.sse_heartbeat_s > 0 && spec_->endpoint != Endpoint::kLines) {
    last_sent_ns_ = services_.engine.clock().now_ns();
    schedule_heartbeat();
  }
  sink_->submit(make_requests(), shared_from_this());
}

bool Generation::check_model() {
  identity_ = exchange_->identity();
  if (identity_ == nullptr || identity_->may_use(spec_->model)) return true;
  if (services_.metrics != nullptr) services_.metrics->on_request_rejected();
  fail(Status(StatusCode::kNotFound, "The model '" + spec_->model + "' is not one that this key may use.", "model",
              "model_not_found"));
  return false;
}

void Generation::note_request() {
  http::RequestNotes* notes = exchange_->notes();
  if (notes == nullptr) return;
  notes->model = spec_->model;
  if (!services_.note_prompts) return;
  for (const PromptSpec& prompt : spec_->prompts) {
    if (!notes->prompt.empty()) notes->prompt += '\n';
    notes->prompt += services_.tokenizer.decode(prompt.token_ids, false);
  }
}

// From the engine's clock to the world's: both are read once.
http::EnginePhases Generation::phases() const {
  const int64_t unix_now_ns =
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  const int64_t offset_ns = unix_now_ns - services_.engine.clock().now_ns();
  http::EnginePhases noted;
  const auto take_first = [&](int64_t& first, int64_t time) {
    if (time != 0 && (first == 0 || time + offset_ns < first)) first = time + offset_ns;
  };
  for (const GenerationTimings& timings : timings_) {
    const GenerationTimings::Phases phases = timings.phases();
    take_first(noted.queued_unix_ns, phases.queued_ns);
    take_first(noted.first_scheduled_unix_ns, phases.first_scheduled_ns);
    take_first(noted.first_token_unix_ns, phases.first_token_ns);
    if (phases.last_token_ns != 0)
      noted.last_token_unix_ns = std::max(noted.last_token_unix_ns, phases.last_token_ns + offset_ns);
  }
  return noted;
}

std::vector<Request> Generation::make_requests() {
  std::vector<Request> requests;
  for (const PromptSpec& prompt : spec_->prompts) {
    Request request;
    request.prompt_token_ids = prompt.token_ids;
    request.sampling = spec_->sampling;
    request.sampling.max_tokens = prompt.max_tokens;
    request.sampling.seed = spec_->seed ? *spec_->seed : services_.seeds.next();
    request.priority = spec_->priority;
    request.cache_salt = spec_->cache_salt;
    request.arrival_ns = arrival_ns_;
    if (identity_ != nullptr) request.tenant = identity_->tenant;
    if (!spec_->seed) LOG_DEBUG << spec_->id << ": seed " << request.sampling.seed << " chosen";
    requests.push_back(std::move(request));
  }
  return requests;
}

void Generation::on_submitted(Result<std::vector<RequestId>> ids) {
  if (!ids.ok()) {
    if (!exchange_) return;
    if (services_.metrics != nullptr) services_.metrics->on_request_rejected();
    fail(ids.status());
    return;
  }
  ids_ = *std::move(ids);
  const size_t num_prompts = ids_.size();
  for (size_t i = 0; i < num_prompts; ++i) {
    prompt_by_id_.emplace(ids_[i], i);
    timings_.emplace_back(services_.metrics, arrival_ns_, static_cast<int32_t>(spec_->prompts[i].token_ids.size()),
                          spec_->sampling.n, spec_->asked_max_tokens, tenant_);
  }
  prompt_outputs_.resize(num_prompts);
  has_prompt_output_.resize(num_prompts);
  held_back_.resize(num_prompts);
  if (!exchange_) {  // the client went while the requests were on their way
    close();
    return;
  }
  choices_.reserve(static_cast<size_t>(spec_->num_choices()));
  for (int32_t i = 0; i < spec_->num_choices(); ++i) {
    choices_.push_back({ChoiceText(services_.tokenizer, *spec_, services_.engine.info().eos_token_ids), {}, false});
  }
  const RenderContext context{*spec_, prompt_outputs_, services_.tokenizer, services_.system_fingerprint};
  renderer_ = make_renderer(context);
  if (is_cancelled_) cancel_now();
}

void Generation::on_events(std::vector<OutputEvent> events) {
  std::string out;
  for (OutputEvent& event : events) {
    if (!exchange_) return;
    on_event(std::move(event), &out);
  }
  if (!exchange_) return;
  if (num_done_ == choices_.size()) {
    complete(&out);
  } else if (!out.empty()) {
    send(std::move(out));
  }
}

void Generation::on_event(OutputEvent event, std::string* out) {
  const auto found = prompt_by_id_.find(event.request_id);
  CHECK(found != prompt_by_id_.end()) << "an event of request " << event.request_id << " came to another's receiver";
  CHECK(event.choice_idx >= 0 && event.choice_idx < spec_->sampling.n) << event.choice_idx;
  const size_t prompt_idx = found->second;
  const Choice& choice =
      choices_[prompt_idx * static_cast<size_t>(spec_->sampling.n) + static_cast<size_t>(event.choice_idx)];
  if (choice.is_done) return;  // what the engine made, or failed to, before it heard of a stop string
  if (event.finish_reason == FinishReason::kError) {
    timings_[prompt_idx].on_ended(FinishReason::kError, services_.engine.clock().now_ns());
    // What was made before the failure still goes out, in front of the error.
    if (has_begun_ && !out->empty()) exchange_->write(std::move(*out));
    fail(Status(StatusCode::kDeviceError, event.error.empty() ? "The model failed while answering." : event.error, {},
                "engine_error"));
    return;
  }
  // Prompt log-probabilities come with choice 0; a streamed echo of the others must wait for them.
  if (event.choice_idx == 0 && !has_prompt_output_[prompt_idx]) {
    on_first_event_of_prompt(prompt_idx, &event);
    apply(prompt_idx, std::move(event), out);
    for (OutputEvent& held : std::exchange(held_back_[prompt_idx], {})) apply(prompt_idx, std::move(held), out);
    return;
  }
  if (spec_->stream && spec_->echo && spec_->show_logprobs && !has_prompt_output_[prompt_idx]) {
    held_back_[prompt_idx].push_back(std::move(event));
    return;
  }
  apply(prompt_idx, std::move(event), out);
}

void Generation::on_first_event_of_prompt(size_t prompt_idx, OutputEvent* event) {
  has_prompt_output_[prompt_idx] = true;
  prompt_outputs_[prompt_idx].logprobs = std::move(event->prompt_logprobs);
}

void Generation::apply(size_t prompt_idx, OutputEvent event, std::string* out) {
  const int32_t choice_idx = static_cast<int32_t>(prompt_idx) * spec_->sampling.n + event.choice_idx;
  Choice& choice = choices_[static_cast<size_t>(choice_idx)];
  if (choice.is_done) return;  // held back, and ended since
  if (event.choice_idx == 0 && event.num_cached_tokens > 0) {
    prompt_outputs_[prompt_idx].num_cached_tokens = event.num_cached_tokens;
  }
  const int64_t now_ns = services_.engine.clock().now_ns();
  ChoiceUpdate update = choice.text.append(&event);
  timings_[prompt_idx].on_event(event, static_cast<int32_t>(update.token_ids.size()), now_ns);
  if (spec_->echo_only) {
    update = {.text = {}, .token_ids = {}, .logprobs = {}, .finish_reason = update.finish_reason, .stop_reason = {}};
    if (update.finish_reason == FinishReason::kStop) update.finish_reason = FinishReason::kLength;
  }
  if (update.finish_reason) {
    choice.is_done = true;
    ++num_done_;
    timings_[prompt_idx].on_choice_finished(event.choice_idx, *update.finish_reason, now_ns);
    if (!event.finish_reason) services_.engine.finish(ids_[prompt_idx], event.choice_idx, FinishReason::kStop);
  }
  exchange_->count_tokens(static_cast<int64_t>(update.token_ids.size()));
  append_to(update.token_ids, &choice.whole.token_ids);
  choice.whole.finish_reason = update.finish_reason;
  if (spec_->stream) {
    if (!has_begun_) begin_stream(out);
    renderer_->update(choice_idx, update, usage_of(static_cast<size_t>(choice_idx)), out);
    if (cache_key_.empty()) return;
  }
  choice.whole.text += update.text;
  append_to(std::move(update.logprobs), &choice.whole.logprobs);
  choice.whole.stop_reason = std::move(update.stop_reason);
}

// The header goes out with the first event and not before: what fails until then gets its own status.
void Generation::begin_stream(std::string* out) {
  has_begun_ = true;
  http::HttpResponse response;
  response.content_type = spec_->endpoint == Endpoint::kLines ? kLinesContentType : http::kSseContentType;
  response.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  exchange_->start_stream(std::move(response));
  renderer_->begin(out);
}

Usage Generation::usage_of(size_t choice_idx) const {
  const size_t prompt_idx = choice_idx / static_cast<size_t>(spec_->sampling.n);
  return {.num_prompt_tokens = static_cast<int64_t>(spec_->prompts[prompt_idx].token_ids.size()),
          .num_completion_tokens = static_cast<int64_t>(choices_[choice_idx].whole.token_ids.size()),
          .num_cached_tokens = prompt_outputs_[prompt_idx].num_cached_tokens};
}

// A prompt counts once, however many choices it has.
Usage Generation::total_usage() const {
  Usage usage;
  for (size_t i = 0; i < spec_->prompts.size(); ++i) {
    usage.num_prompt_tokens += static_cast<int64_t>(spec_->prompts[i].token_ids.size());
    usage.num_cached_tokens += prompt_outputs_[i].num_cached_tokens;
  }
  for (const Choice& choice : choices_) {
    usage.num_completion_tokens += static_cast<int64_t>(choice.whole.token_ids.size());
  }
  return usage;
}

void Generation::send(std::string bytes) {
  if (heartbeat_) last_sent_ns_ = services_.engine.clock().now_ns();
  exchange_->write_now(std::move(bytes));
  if (!is_paused_ && exchange_->buffered_bytes() > services_.pause_above_buffered_bytes) set_paused(true);
}

void Generation::complete(std::string* out) {
  keep_for_others();
  settle();  // while what was made is still here to be counted
  if (spec_->stream) {
    renderer_->end(total_usage(), out);
    exchange_->write(std::move(*out));
    exchange_->finish_stream();
  } else {
    const Usage usage = total_usage();
    std::vector<ChoiceUpdate> wholes;
    wholes.reserve(choices_.size());
    for (Choice& choice : choices_) wholes.push_back(std::move(choice.whole));
    http::HttpResponse response;
    response.body = renderer_->whole(wholes, usage);
    exchange_->respond(std::move(response));
  }
  close();
}

void Generation::fail(const Status& status, double retry_after_s) {
  http::HttpResponse response = http::error_response(status);
  http::set_retry_after(response, retry_after_s);
  if (has_begun_) {
    exchange_->write(spec_->endpoint == Endpoint::kLines ? response.body + "\n" : http::sse_event(response.body));
    exchange_->finish_stream();  // without [DONE]
  } else {
    exchange_->respond(std::move(response));
  }
  close();
}

void Generation::on_disconnect() {
  is_abandoned_.store(true, std::memory_order_relaxed);
  if (exchange_) close();
}

// With neither engine nor metrics of tokens: none were made. X-Cache is what proxies and CDNs call it.
bool Generation::answer_from_cache() {
  if (services_.cache == nullptr || !is_cacheable(*spec_)) return false;
  std::string key = cache_key(*spec_, tenant_);
  const std::shared_ptr<const CachedAnswer> answer = services_.cache->find(key);
  exchange_->set_response_header("X-Cache", answer ? "hit" : "miss");
  if (!answer) {
    cache_key_ = std::move(key);
    return false;
  }
  prompt_outputs_.resize(spec_->prompts.size());
  for (size_t i = 0; i < prompt_outputs_.size(); ++i)
    prompt_outputs_[i].num_cached_tokens = answer->num_cached_tokens[i];
  renderer_ = make_renderer({*spec_, prompt_outputs_, services_.tokenizer, services_.system_fingerprint});
  std::string out;
  for (const ChoiceUpdate& choice : answer->choices) {
    choices_.push_back({ChoiceText(services_.tokenizer, *spec_, services_.engine.info().eos_token_ids), choice, true});
    exchange_->count_tokens(static_cast<int64_t>(choice.token_ids.size()));
  }
  num_done_ = choices_.size();
  if (spec_->stream) {
    begin_stream(&out);
    for (size_t i = 0; i < choices_.size(); ++i) {
      renderer_->update(static_cast<int32_t>(i), choices_[i].whole, usage_of(i), &out);
    }
  }
  complete(&out);
  return true;
}

void Generation::keep_for_others() {
  if (cache_key_.empty()) return;
  auto answer = std::make_shared<CachedAnswer>();
  for (const Choice& choice : choices_) {
    const auto& reason = choice.whole.finish_reason;
    if (reason != FinishReason::kStop && reason != FinishReason::kLength) return;
    answer->choices.push_back(choice.whole);
  }
  for (const PromptOutput& prompt : prompt_outputs_) answer->num_cached_tokens.push_back(prompt.num_cached_tokens);
  services_.cache->put(cache_key_, tenant_, std::move(answer));
}

// The client stays and hears how far it came: a last piece with "abort", as if the engine had ended it.
void Generation::on_cancel() {
  is_cancelled_ = true;
  is_abandoned_.store(true, std::memory_order_relaxed);
  if (exchange_ && renderer_) cancel_now();
}

void Generation::cancel_now() {
  std::string out;
  if (!has_begun_ && spec_->stream) begin_stream(&out);
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (choices_[i].is_done) continue;
    ChoiceUpdate update;
    update.finish_reason = FinishReason::kAbort;
    if (spec_->stream) renderer_->update(static_cast<int32_t>(i), update, usage_of(i), &out);
    choices_[i].whole.finish_reason = FinishReason::kAbort;
  }
  complete(&out);  // close() aborts what is not done
}

void Generation::schedule_heartbeat() {
  if (!heartbeat_) heartbeat_.emplace(executor_);
  const int64_t silent_ns = services_.engine.clock().now_ns() - last_sent_ns_;
  heartbeat_->expires_after(std::chrono::nanoseconds(services_.sse_heartbeat_s * 1'000'000'000 - silent_ns));
  heartbeat_->async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (self && !error && self->exchange_) self->on_heartbeat();
  });
}

// Before the first token too: a request that waits longer than this has a 200 and may fail later.
void Generation::on_heartbeat() {
  const int64_t silent_ns = services_.engine.clock().now_ns() - last_sent_ns_;
  if (renderer_ && silent_ns >= services_.sse_heartbeat_s * 1'000'000'000 && exchange_->buffered_bytes() == 0) {
    std::string out;
    if (!has_begun_) begin_stream(&out);
    send(out + http::sse_heartbeat());
  } else if (silent_ns >= services_.sse_heartbeat_s * 1'000'000'000) {
    last_sent_ns_ += silent_ns;  // nothing can go out now: in a while again
  }
  schedule_heartbeat();
}

void Generation::on_drained() {
  if (exchange_ && is_paused_) set_paused(false);
}

void Generation::set_paused(bool paused) {
  is_paused_ = paused;
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (choices_[i].is_done) continue;
    const auto n = static_cast<size_t>(spec_->sampling.n);
    const auto choice_idx = static_cast<int32_t>(i % n);
    if (paused) {
      services_.engine.pause(ids_[i / n], choice_idx);
    } else {
      services_.engine.resume(ids_[i / n], choice_idx);
    }
  }
}

// The answer is given, or nobody wants it: what still runs is aborted at once.
void Generation::close() {
  if (num_done_ < choices_.size() || choices_.empty()) {
    for (const RequestId id : ids_) services_.engine.abort(id);
  }
  for (GenerationTimings& timings : timings_) {
    timings.on_ended(FinishReason::kAbort, services_.engine.clock().now_ns());
  }
  if (!ids_.empty()) sink_->forget(ids_);
  settle();
  exchange_.reset();
}

}  // namespace sextant::openai
