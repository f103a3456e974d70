// What a generation may use and what it did: reserved before its requests go to the engine, settled when they have ended.
#include <algorithm>
#include <boost/asio/post.hpp>
#include <functional>
#include <utility>

#include "server/gateway/identity.h"
#include "server/metrics.h"
#include "server/openai/generation.h"

namespace sextant::openai {

void Generation::reserve() {
  if (identity_ == nullptr || services_.budget == nullptr) {
    start();
    return;
  }
  TokenBudget::Ask ask;
  ask.n = spec_->sampling.n;
  ask.num_choices = spec_->num_choices();
  ask.is_max_tokens_asked = spec_->asked_max_tokens.has_value();
  for (const PromptSpec& prompt : spec_->prompts) {
    const auto num_tokens = static_cast<int64_t>(prompt.token_ids.size());
    ask.num_prompt_tokens += num_tokens;
    ask.longest_prompt_tokens = std::max(ask.longest_prompt_tokens, num_tokens);
    ask.max_tokens = std::max(ask.max_tokens, prompt.max_tokens);
  }
  const bool is_asked = services_.budget->reserve_elsewhere(
      *identity_, ask, [self = shared_from_this(), most = ask.max_tokens](TokenBudget::Grant grant) mutable {
        const boost::asio::any_io_executor executor = self->executor_;
        boost::asio::post(executor, [self = std::move(self), most, grant = std::move(grant)]() mutable {
          self->on_granted(std::move(grant), most);
        });
      });
  if (!is_asked) on_granted(services_.budget->reserve(*identity_, ask), ask.max_tokens);
}

void Generation::on_granted(TokenBudget::Grant grant, int64_t asked_max_tokens) {
  if (!exchange_) {  // the client went meanwhile
    if (grant.status.ok()) services_.budget->settle(*identity_, spec_->model, grant, {});
    return;
  }
  for (auto& [name, value] : grant.headers) exchange_->set_response_header(name, value);
  if (!grant.status.ok()) {
    if (services_.metrics != nullptr) services_.metrics->on_request_rejected();
    fail(grant.status, grant.retry_after_s);
    return;
  }
  if (grant.max_tokens < asked_max_tokens) cache_key_.clear();  // shorter than its key says
  for (PromptSpec& prompt : spec_->prompts) prompt.max_tokens = std::min(prompt.max_tokens, grant.max_tokens);
  grant_ = std::move(grant);
  start();
}

// Once, while what was made is still here.
void Generation::note_usage() {
  http::RequestNotes* notes = exchange_ ? exchange_->notes() : nullptr;
  if (notes == nullptr || !spec_ || std::exchange(is_noted_, true)) return;
  if (choices_.empty() || std::ranges::none_of(has_prompt_output_, std::identity())) {
    // What the response cache answers never was in the engine.
    if (num_done_ == 0 || num_done_ < choices_.size()) return;
  }
  const Usage usage = total_usage();
  if (notes->trace) notes->phases = phases();
  notes->prompt_tokens = usage.num_prompt_tokens;
  notes->completion_tokens = usage.num_completion_tokens;
  if (const auto reason = choices_.back().whole.finish_reason) notes->finish_reason = finish_reason_name(*reason);
}

// What was computed counts, also when nobody waited for its end.
void Generation::settle() {
  note_usage();
  if (!grant_) return;
  TokenBudget::Used used;
  if (!choices_.empty() && std::ranges::any_of(has_prompt_output_, std::identity())) {
    const Usage usage = total_usage();
    used = {usage.num_prompt_tokens, usage.num_cached_tokens, usage.num_completion_tokens};
  }
  services_.budget->settle(*identity_, spec_->model, *std::exchange(grant_, std::nullopt), used);
}

}  // namespace sextant::openai
