// ChoiceText: one choice's tokens to the text that may be shown: detokenizer, then stop strings.
// One per choice; on its generation's strand. Must not know JSON or HTTP.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/text/detokenizer.h"
#include "engine/text/stop_strings.h"
#include "server/openai/choice_update.h"
#include "server/openai/generation_spec.h"

namespace sextant::openai {

class ChoiceText {
 public:
  // The references outlive this object. `eos_token_ids` are the model's own: they give no stop_reason.
  ChoiceText(const Tokenizer& tokenizer, const GenerationSpec& spec, const std::vector<int32_t>& eos_token_ids);

  // What one event adds; takes the event's tokens and log-probabilities. When a stop string was found, tokens
  // after the one that completed it are dropped, and finish_reason is kStop whether or not the engine had
  // ended the choice.
  ChoiceUpdate append(OutputEvent* event);

  int32_t num_tokens() const { return num_tokens_; }

 private:
  void append_text(std::string text, ChoiceUpdate* update);

  const GenerationSpec& spec_;
  const std::vector<int32_t>& eos_token_ids_;
  Detokenizer detokenizer_;
  std::optional<StopStrings> stops_;
  int32_t num_tokens_ = 0;
};

}  // namespace sextant::openai
