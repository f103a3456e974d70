// ChatTemplate: a sandboxed interpreter of the Jinja that Hugging Face chat templates use.
// It can reach nothing but its variables: no attributes of host objects, no files, no unbounded work (limits below).
// Immutable after parse; render() may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"

namespace sextant {

struct ChatTemplateLimits {
  size_t max_source_bytes = 1 << 20;
  size_t max_output_bytes = 64 << 20;
  uint64_t max_steps = 20'000'000;  // evaluated nodes
  int max_depth = 200;              // nested expressions, blocks and macro calls
};

class ChatTemplate {
 public:
  // Errors carry "line N: ...".
  static Result<ChatTemplate> parse(std::string_view source, const ChatTemplateLimits& limits = {});

  // Renders as transformers' apply_chat_template does (trim_blocks, lstrip_blocks, loop controls, the `generation` tag,
  // tojson without ASCII escapes). `variables` is an object: messages, tools, documents, add_generation_prompt, bos_token, ...
  // Key order of objects is kept (hence ordered_json). `now_unix_s` feeds strftime_now (UTC).
  // A template's raise_exception(m) gives kInvalidArgument with the message m exactly; other failures say line and cause.
  Result<std::string> render(const nlohmann::ordered_json& variables, int64_t now_unix_s) const;

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sextant
