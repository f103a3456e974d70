// GenerationSpec: one HTTP request, validated and in token ids: all that running and rendering it needs to
// know. Made on the text pool, then owned by one Generation. Must not know JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/core/sampling_params.h"

namespace sextant::openai {

// kLines: /v1/stream, whose answer is a line of JSON per piece of text; kGenerate: /generate.
enum class Endpoint { kCompletion, kChat, kLines, kGenerate };

struct PromptSpec {
  std::vector<int32_t> token_ids;
  int64_t max_tokens = 1;  // of each choice, resolved against the context
  std::string echo_text;   // what precedes each choice's text; empty without echo
};

struct GenerationSpec {
  Endpoint endpoint = Endpoint::kCompletion;
  std::string id;     // "cmpl-..." or "chatcmpl-..."
  std::string model;  // as the client named it
  int64_t created_unix_s = 0;
  std::vector<PromptSpec> prompts;  // choice `choice` of prompt `prompt` has index prompt * n + choice

  SamplingParams sampling;       // of every prompt, but for max_tokens and seed
  std::optional<uint64_t> seed;  // none: each prompt gets a random one
  std::optional<int64_t> asked_max_tokens;
  std::vector<std::string> stop;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;

  bool stream = false;
  bool include_usage = false;
  bool continuous_usage_stats = false;
  bool return_token_ids = false;
  bool return_tokens_as_token_ids = false;
  bool echo = false;
  bool echo_only = false;  // echo with max_tokens 0: the engine's one token is neither shown nor counted
  bool show_logprobs = false;
  bool show_prompt_logprobs =
      false;  // prompt_logprobs was asked for; echo with logprobs needs them without showing them

  int32_t priority = 0;
  std::string cache_salt;
  std::string response_role = "assistant";  // chat

  int32_t num_choices() const { return static_cast<int32_t>(prompts.size()) * sampling.n; }
};

}  // namespace sextant::openai
