// From events to samples.
#include "server/openai/generation_timings.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "server/metrics.h"

namespace sextant::openai {
namespace {

double seconds(int64_t from_ns, int64_t to_ns) { return static_cast<double>(to_ns - from_ns) * 1e-9; }

std::optional<double> interval(int64_t from_ns, int64_t to_ns) {
  if (from_ns == 0 || to_ns == 0) return std::nullopt;
  return seconds(from_ns, to_ns);
}

}  // namespace

GenerationTimings::GenerationTimings(ServerMetrics* metrics, int64_t arrival_ns, int32_t num_prompt_tokens,
                                     int32_t num_choices, std::optional<int64_t> max_tokens, std::string tenant)
    : metrics_(metrics),
      arrival_ns_(arrival_ns),
      num_prompt_tokens_(num_prompt_tokens),
      max_tokens_(max_tokens),
      tenant_(std::move(tenant)),
      choices_(static_cast<size_t>(num_choices)) {
  if (metrics_ != nullptr) metrics_->on_request_accepted();
}

void GenerationTimings::on_event(const OutputEvent& event, int32_t num_tokens, int64_t now_ns) {
  Choice& choice = choices_[static_cast<size_t>(event.choice_idx)];
  choice.num_preemptions = event.num_preemptions;
  choice.queued_ns = event.queued_ns;
  choice.first_scheduled_ns = event.first_scheduled_ns;
  num_cached_tokens_ = std::max(num_cached_tokens_, event.num_cached_tokens);
  if (num_tokens == 0) return;
  choice.num_tokens += num_tokens;
  if (choice.first_token_ns == 0) {
    choice.first_token_ns = event.step_end_ns;
    if (metrics_ != nullptr) metrics_->on_first_token(seconds(arrival_ns_, now_ns));
  } else if (metrics_ != nullptr) {
    metrics_->on_token_interval(seconds(choice.last_token_ns, event.step_end_ns));
  }
  choice.last_token_ns = event.step_end_ns;
}

void GenerationTimings::on_choice_finished(int32_t choice_idx, FinishReason reason, int64_t now_ns) {
  Choice& choice = choices_[static_cast<size_t>(choice_idx)];
  if (choice.finish_reason) return;
  choice.finish_reason = reason;
  if (++num_finished_ == choices_.size()) report(now_ns);
}

void GenerationTimings::on_ended(FinishReason reason, int64_t now_ns) {
  for (size_t i = 0; i < choices_.size(); ++i) on_choice_finished(static_cast<int32_t>(i), reason, now_ns);
}

GenerationTimings::Phases GenerationTimings::phases() const {
  Phases phases;
  const auto take_first = [](int64_t& first, int64_t time) {
    if (time != 0 && (first == 0 || time < first)) first = time;
  };
  for (const Choice& choice : choices_) {
    take_first(phases.queued_ns, choice.queued_ns);
    take_first(phases.first_scheduled_ns, choice.first_scheduled_ns);
    take_first(phases.first_token_ns, choice.first_token_ns);
    phases.last_token_ns = std::max(phases.last_token_ns, choice.last_token_ns);
  }
  return phases;
}

void GenerationTimings::report(int64_t now_ns) {
  if (metrics_ == nullptr) return;
  RequestTimings timings;
  timings.num_prompt_tokens = num_prompt_tokens_;
  timings.num_cached_tokens = num_cached_tokens_;
  if (max_tokens_) {
    timings.max_tokens = static_cast<int32_t>(std::min<int64_t>(*max_tokens_, std::numeric_limits<int32_t>::max()));
  }
  timings.tenant = tenant_;
  timings.e2e_s = seconds(arrival_ns_, now_ns);
  for (const Choice& choice : choices_) {
    timings.choices.push_back({.finish_reason = *choice.finish_reason,
                               .num_generated_tokens = choice.num_tokens,
                               .num_preemptions = choice.num_preemptions,
                               .queue_s = interval(choice.queued_ns, choice.first_scheduled_ns),
                               .prefill_s = interval(choice.first_scheduled_ns, choice.first_token_ns),
                               .decode_s = interval(choice.first_token_ns, choice.last_token_ns)});
  }
  metrics_->on_finished(timings);
}

}  // namespace sextant::openai
