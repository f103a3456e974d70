// Renderer: a generation's outcome as OpenAI's JSON, streamed or whole. One per generation, on its strand.
// Must not know the engine or sockets.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "engine/text/tokenizer.h"
#include "server/openai/choice_update.h"
#include "server/openai/generation_spec.h"
#include "server/openai/json_reader.h"

namespace sextant::openai {

// What the engine said of one prompt.
struct PromptOutput {
  std::vector<PositionLogprobs> logprobs;  // of its tokens but the first
  int32_t num_cached_tokens = 0;
};

// All of it outlives the renderer.
struct RenderContext {
  const GenerationSpec& spec;
  const std::vector<PromptOutput>& prompts;
  const Tokenizer& tokenizer;
  std::string system_fingerprint;  // empty: null
};

class Renderer {
 public:
  virtual ~Renderer() = default;

  // Streaming: each appends whole server-sent events, or lines, to `out`.
  virtual void begin(std::string* out) = 0;  // once, before the first update
  // `so_far`: of this choice and its prompt.
  virtual void update(int32_t choice_idx, const ChoiceUpdate& update, const Usage& so_far, std::string* out) = 0;
  virtual void end(const Usage& total, std::string* out) = 0;

  // Not streaming: the body. choices[i] is all that became of choice i.
  virtual std::string whole(const std::vector<ChoiceUpdate>& choices, const Usage& total) = 0;
};

std::unique_ptr<Renderer> make_completion_renderer(RenderContext context);
std::unique_ptr<Renderer> make_chat_renderer(RenderContext context);
std::unique_ptr<Renderer> make_lines_renderer(RenderContext context);     // streams alone
std::unique_ptr<Renderer> make_generate_renderer(RenderContext context);  // whole answers alone
std::unique_ptr<Renderer> make_renderer(RenderContext context);           // by the endpoint of the spec

// What both formats share: the parts of a chunk around its choices, made once.
class ChunkEnvelope {
 public:
  ChunkEnvelope(const GenerationSpec& spec, const std::string& object, const std::string& system_fingerprint);

  // The same for a choice that is JSON text already, without `extra`.
  void append_choice(std::string_view choice, const Usage& so_far, std::string* out) const;
  // One event with one choice. `extra` (null, or an object) adds members after `choices`.
  void append(const Json& choice, const Json& extra, const Usage& so_far, std::string* out) const;
  // The event with no choice and the total, if asked for, and [DONE].
  void append_end(const Usage& total, std::string* out) const;

 private:
  void append_event(const std::string& choices, const Json& extra, const Json& usage, std::string* out) const;

  const GenerationSpec& spec_;
  std::string head_;  // `{"id":...,` up to `"choices":`
};

// `text` as a JSON string, byte for byte as dump_json() writes it.
void append_json_string(std::string_view text, std::string* out);
Json usage_json(const Usage& usage);
const char* finish_reason_name(FinishReason reason);
Json finish_reason_json(const ChoiceUpdate& update);  // null while it goes on
Json stop_reason_json(const StopReason& reason);
Json fingerprint_json(const std::string& system_fingerprint);

}  // namespace sextant::openai
