// Tokens to text, one choice.
#include "server/openai/choice_text.h"

#include <algorithm>
#include <span>
#include <utility>

namespace sextant::openai {

ChoiceText::ChoiceText(const Tokenizer& tokenizer, const GenerationSpec& spec,
                       const std::vector<int32_t>& eos_token_ids)
    : spec_(spec), eos_token_ids_(eos_token_ids), detokenizer_(tokenizer, spec.skip_special_tokens) {
  if (!spec.stop.empty()) stops_.emplace(spec.stop, spec.include_stop_str_in_output);
}

// Text that min_tokens protects is shown unsearched, as in vLLM.
void ChoiceText::append_text(std::string text, ChoiceUpdate* update) {
  if (text.empty()) return;
  if (!stops_ || num_tokens_ <= spec_.sampling.min_tokens) {
    update->text += text;
    return;
  }
  StopStrings::Result found = stops_->append(text);
  update->text += found.text;
  if (found.matched) {
    update->finish_reason = FinishReason::kStop;
    update->stop_reason = *std::move(found.matched);
  }
}

ChoiceUpdate ChoiceText::append(OutputEvent* event) {
  ChoiceUpdate update;
  const size_t num_tokens = event->token_ids.size();
  // A stop token's own text is shown only when asked for.
  const bool hide_last = event->stop_token_id && !spec_.include_stop_str_in_output;
  size_t num_kept = 0;
  while (num_kept < num_tokens && !update.finish_reason) {
    const bool is_hidden = hide_last && num_kept + 1 == num_tokens;
    ++num_kept;
    ++num_tokens_;
    if (is_hidden) continue;
    // Token by token where a match must be told apart from what follows it; in one go otherwise.
    size_t count = 1;
    if (!stops_) {
      count = num_tokens - (hide_last ? 1 : 0) - (num_kept - 1);
      num_kept += count - 1;
      num_tokens_ += static_cast<int32_t>(count) - 1;
    }
    append_text(detokenizer_.append(std::span(event->token_ids).subspan(num_kept - count, count)), &update);
  }
  if (!update.finish_reason && event->finish_reason) {
    append_text(detokenizer_.flush(), &update);
    if (!update.finish_reason) {
      if (stops_) update.text += stops_->flush();
      update.finish_reason = event->finish_reason;
      const auto& eos = eos_token_ids_;
      if (event->stop_token_id && std::find(eos.begin(), eos.end(), *event->stop_token_id) == eos.end()) {
        update.stop_reason = *event->stop_token_id;
      }
    }
  }
  event->token_ids.resize(num_kept);
  if (event->logprobs.size() > num_kept) event->logprobs.resize(num_kept);
  update.token_ids = std::move(event->token_ids);
  update.logprobs = std::move(event->logprobs);
  return update;
}

}  // namespace sextant::openai
