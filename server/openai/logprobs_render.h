// Log-probabilities as the three shapes that clients know. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/engine.h"
#include "engine/text/tokenizer.h"
#include "server/openai/json_reader.h"

namespace sextant::openai {

class LogprobsRenderer {
 public:
  // `as_token_ids`: tokens are shown as "token_id:<id>".
  LogprobsRenderer(const Tokenizer& tokenizer, bool as_token_ids, bool skip_special_tokens)
      : tokenizer_(tokenizer), as_token_ids_(as_token_ids), skip_special_tokens_(skip_special_tokens) {}

  // /v1/completions. `prompt_ids` (echoed; the first has no log-probability) precede `ids`. `*text_offset`,
  // in characters, is where this piece's text begins in the choice's, and is moved to its end.
  Json completion(std::span<const int32_t> prompt_ids, std::span<const PositionLogprobs> prompt_logprobs,
                  std::string_view prompt_text, std::span<const int32_t> ids,
                  std::span<const PositionLogprobs> logprobs, size_t* text_offset) const;
  // /v1/chat/completions.
  Json chat(std::span<const int32_t> ids, std::span<const PositionLogprobs> logprobs) const;
  // vLLM's prompt_logprobs: null for the first token, then {"<id>": {logprob, rank, decoded_token}}.
  Json prompt(std::span<const int32_t> ids, std::span<const PositionLogprobs> logprobs) const;

 private:
  std::string token_name(int32_t id) const;  // valid UTF-8
  std::string completion_token_name(int32_t id) const;

  const Tokenizer& tokenizer_;
  const bool as_token_ids_;
  const bool skip_special_tokens_;
};

}  // namespace sextant::openai
